// The trace readers. The first byte chooses the format and whether bad rows are skipped ('0' to
// '5': auto and the five formats; '6' to ';': the same, skipping); the rest is the file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "modalkv/error.hpp"
#include "tools/trace/trace_reader.hpp"
#include "tools/trace/trace_writer.hpp"

namespace modalkv {
namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

TraceOptions options_of(unsigned choice) {
  TraceOptions options;
  if (const unsigned format = choice % 6; format > 0)
    options.format = static_cast<TraceFormat>(format - 1);
  options.skip_bad_rows = choice / 6 % 2 == 1;
  return options;
}

std::optional<Trace> parsed(std::string_view text, const TraceOptions& options) {
  try {
    return parse_trace(text, options, "fuzz");
  } catch (const Error& error) {
    const std::string_view message = error.what();
    check(message.starts_with("fuzz:") && message.find('\n') == std::string_view::npos);
    return std::nullopt;
  }
}

void check_sums(const Trace& trace) {
  Nanos previous_ns = 0;
  for (const Request& request : trace.requests) {
    Tokens tokens = 0, visual = 0;
    for (const Segment& segment : trace.segments_of(request)) {
      check(segment.tokens > 0);
      tokens += segment.tokens;
      visual += is_visual(segment.token_class) ? segment.tokens : 0;
    }
    check(tokens == request.prompt_tokens && visual == request.visual_tokens);
    check(request.output_tokens >= 1 && request.arrival_ns >= previous_ns);
    previous_ns = request.arrival_ns;
  }
}

}  // namespace
}  // namespace modalkv

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace modalkv;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto trace = parsed(text, options_of(data[0]));
  if (!trace) return 0;
  check_sums(*trace);
  const Trace again = parse_trace(to_json_lines(*trace), {}, "again");
  check(again.requests == trace->requests && again.segments == trace->segments);
  return 0;
}
