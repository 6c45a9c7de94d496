#include <fmt/format.h>

#include <iterator>

#include "tools/report/report.hpp"

namespace modalkv {

std::string requests_csv(const Report& report) {
  fmt::memory_buffer out;
  fmt::format_to(std::back_inserter(out),
                 "policy,rate_scale,request,state,arrival_s,queue_ms,ttft_ms,tpot_ms,e2el_ms,"
                 "prompt_tokens,visual_tokens,reused_tokens,output_tokens,preemptions\n");
  for (const PolicyRun& run : report.runs) {
    const std::string prefix = fmt::format("{},{:g},", run.result.policy, run.result.rate_scale);
    for (std::size_t i = 0; i < run.result.outcomes.size(); ++i) {
      const RequestOutcome& outcome = run.result.outcomes[i];
      const auto to = std::back_inserter(out);
      fmt::format_to(to, "{}{},{},{}.{:06},", prefix, i, name(outcome.state),
                     outcome.arrival_ns / kSecond, outcome.arrival_ns % kSecond / kMicrosecond);
      if (outcome.state == RequestState::completed) {
        // Microseconds as milliseconds with three places: integers print faster than doubles.
        const auto put_ms = [&](Nanos ns) {
          const Nanos us = (ns + kMicrosecond / 2) / kMicrosecond;
          fmt::format_to(to, "{}.{:03},", us / 1000, us % 1000);
        };
        put_ms(outcome.first_scheduled_ns - outcome.arrival_ns);
        put_ms(outcome.first_token_ns - outcome.arrival_ns);
        if (outcome.output_tokens > 1) {
          put_ms((outcome.finish_ns - outcome.first_token_ns) / (outcome.output_tokens - 1));
        } else {
          out.push_back(',');
        }
        put_ms(outcome.finish_ns - outcome.arrival_ns);
      } else {
        fmt::format_to(to, ",,,,");
      }
      fmt::format_to(to, "{},{},{},{},{}\n", outcome.prompt_tokens, outcome.visual_tokens,
                     outcome.reused_tokens, outcome.output_tokens, outcome.preemptions);
    }
  }
  return fmt::to_string(out);
}

}  // namespace modalkv
