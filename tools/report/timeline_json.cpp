// Chrome trace format, which Perfetto opens: a process a policy, a track a stream, counters for
// memory and link use.
#include <fmt/format.h>

#include <iterator>

#include "tools/report/report.hpp"

namespace modalkv {
namespace {

constexpr const char* kTracks[] = {"compute", "host to device", "device to host", "CPU attention"};

class Timeline {
 public:
  void metadata(int process, int track, std::string_view kind, std::string_view text) {
    begin();
    fmt::format_to(std::back_inserter(out_),
                   R"({{"ph":"M","pid":{},"tid":{},"name":"{}","args":{{"name":"{}"}}}})", process,
                   track, kind, text);
  }
  void slice(int process, int track, std::string_view text, Nanos begin_ns, Nanos length_ns) {
    if (length_ns <= 0) return;
    begin();
    fmt::format_to(std::back_inserter(out_),
                   R"({{"ph":"X","pid":{},"tid":{},"name":"{}","ts":{}.{:03},"dur":{}.{:03}}})",
                   process, track, text, begin_ns / 1000, begin_ns % 1000, length_ns / 1000,
                   length_ns % 1000);
  }
  void counter(int process, std::string_view text, Nanos at_ns, std::string_view values) {
    begin();
    fmt::format_to(std::back_inserter(out_),
                   R"({{"ph":"C","pid":{},"name":"{}","ts":{}.{:03},"args":{{{}}}}})", process,
                   text, at_ns / 1000, at_ns % 1000, values);
  }
  std::string str() { return "{\"traceEvents\":[\n" + fmt::to_string(out_) + "\n]}\n"; }

 private:
  void begin() {
    if (out_.size() > 0) fmt::format_to(std::back_inserter(out_), ",\n");
  }
  fmt::memory_buffer out_;
};

void add_run(Timeline& timeline, const ReplayResult& result, int process) {
  timeline.metadata(process, 0, "process_name",
                    fmt::format("{} at rate {:g}", result.policy, result.rate_scale));
  for (int track = 0; track < 4; ++track)
    timeline.metadata(process, track + 1, "thread_name", kTracks[track]);
  for (const StepRecord& step : result.window) {
    const std::string text =
        fmt::format("{} decode + {} prefill", step.decode_sequences, step.prefill_tokens);
    // A slice shows how much of the step its stream was busy, from the step's begin; prefetch of
    // the next step included.
    const Nanos length = step.end_ns - step.begin_ns;
    const Nanos busy[] = {step.gpu_busy_ns, step.h2d_busy_ns, step.d2h_busy_ns, step.cpu_busy_ns};
    for (int track = 0; track < 4; ++track)
      timeline.slice(process, track + 1, text, step.begin_ns, std::min(length, busy[track]));
  }
  for (const StepRecord& step : result.series) {
    timeline.counter(process, "KV GiB", step.begin_ns,
                     fmt::format(R"("GPU":{:.3f},"staging":{:.3f},"host":{:.3f},"reuse":{:.3f})",
                                 static_cast<double>(step.device_kv_bytes) / kGiB,
                                 static_cast<double>(step.staging_bytes) / kGiB,
                                 static_cast<double>(step.host_kv_bytes) / kGiB,
                                 static_cast<double>(step.reuse_bytes) / kGiB));
    const auto length = static_cast<double>(std::max<Nanos>(1, step.end_ns - step.begin_ns));
    timeline.counter(
        process, "link use %", step.begin_ns,
        fmt::format(R"("host to device":{:.1f},"device to host":{:.1f})",
                    std::min(100.0, 100 * static_cast<double>(step.h2d_busy_ns) / length),
                    std::min(100.0, 100 * static_cast<double>(step.d2h_busy_ns) / length)));
    timeline.counter(
        process, "requests", step.begin_ns,
        fmt::format(R"("running":{},"waiting":{})", step.decode_sequences, step.waiting_requests));
  }
}

}  // namespace

std::string timeline_json(const Report& report) {
  Timeline timeline;
  int process = 0;
  for (const PolicyRun& run : report.runs) add_run(timeline, run.result, ++process);
  return timeline.str();
}

}  // namespace modalkv
