#include "tools/trace/trace_reader.hpp"

#include <fmt/format.h>

#include <array>

#include "modalkv/error.hpp"
#include "tools/profile/profile.hpp"
#include "tools/trace/row_error.hpp"
#include "tools/trace/trace_rows.hpp"

namespace modalkv {
namespace {

constexpr std::array<std::string_view, 5> kFormatNames{"azure-llm", "azure-lmm", "mooncake",
                                                       "servegen", "modalkv"};

/// Lines of a text, without their ends (LF or CRLF).
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {
    if (rest_.starts_with("\xef\xbb\xbf")) rest_.remove_prefix(3);
  }
  bool next(std::string_view& line) {
    if (rest_.empty()) return false;
    const std::size_t end = rest_.find('\n');
    line = rest_.substr(0, end);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    ++number_;
    return true;
  }
  std::int64_t number() const { return number_; }

 private:
  std::string_view rest_;
  std::int64_t number_ = 0;
};

bool is_csv(TraceFormat format) {
  return format == TraceFormat::azure_llm || format == TraceFormat::azure_lmm;
}

TraceFormat detect(std::string_view first_line, std::string_view text, std::string_view file) {
  if (first_line == kAzureLlmHeader) return TraceFormat::azure_llm;
  if (first_line == kAzureLmmHeader) return TraceFormat::azure_lmm;
  const auto has = [&](std::string_view key) {
    return first_line.find(fmt::format("\"{}\"", key)) != std::string_view::npos;
  };
  if (first_line.starts_with('{') && has("input_length")) {
    if (has("text_length")) return TraceFormat::servegen;
    // modalkv's own may begin with a request without images; mooncake has none anywhere.
    const bool images = text.find("\"image_tokens\"") != std::string_view::npos;
    return has("hash_ids") && !images ? TraceFormat::mooncake : TraceFormat::modalkv;
  }
  throw Error(fmt::format(
      "{}:1: unknown trace format; known are {} (name one with --format to see what is wrong)",
      file, fmt::join(kFormatNames, ", ")));
}

void parse_row(std::string_view line, TraceFormat format, const TraceOptions& options,
               TraceRow& row) {
  switch (format) {
    case TraceFormat::azure_llm:
      return parse_azure_row(line, options, false, row);
    case TraceFormat::azure_lmm:
      return parse_azure_row(line, options, true, row);
    case TraceFormat::mooncake:
      return parse_mooncake_row(line, row);
    case TraceFormat::servegen:
      return parse_servegen_row(line, row);
    case TraceFormat::modalkv:
      return parse_modalkv_row(line, row);
  }
}

void append(const TraceRow& row, Nanos arrival_ns, Trace& trace) {
  Request request{.arrival_ns = arrival_ns,
                  .output_tokens = row.output_tokens,
                  .first_segment = static_cast<std::uint32_t>(trace.segments.size()),
                  .segment_count = static_cast<std::uint32_t>(row.segments.size())};
  for (const Segment& segment : row.segments) {
    request.prompt_tokens += segment.tokens;
    if (!is_visual(segment.token_class)) continue;
    request.visual_tokens += segment.tokens;
    ++request.images;
  }
  trace.requests.push_back(request);
  trace.segments.insert(trace.segments.end(), row.segments.begin(), row.segments.end());
}

}  // namespace

std::string_view name(TraceFormat format) {
  return kFormatNames[static_cast<std::size_t>(format)];
}

TraceFormat trace_format(std::string_view name) {
  for (std::size_t i = 0; i < kFormatNames.size(); ++i)
    if (kFormatNames[i] == name) return static_cast<TraceFormat>(i);
  throw Error(fmt::format("unknown trace format '{}': expected auto, {}", name,
                          fmt::join(kFormatNames, ", ")));
}

Trace read_trace(const std::filesystem::path& path, const TraceOptions& options) {
  const std::string text = read_text_file(path);
  Trace trace = parse_trace(text, options, path.string());
  trace.name = path.filename().string();
  return trace;
}

Trace parse_trace(std::string_view text, const TraceOptions& options, std::string_view file) {
  Lines lines(text);
  std::string_view line;
  if (!lines.next(line)) throw Error(fmt::format("{}: the file is empty", file));
  const TraceFormat format = options.format ? *options.format : detect(line, text, file);
  Trace trace;
  trace.name = file;
  trace.format = name(format);
  std::string first_error;
  bool more = true;
  if (is_csv(format)) {
    const auto header = format == TraceFormat::azure_llm ? kAzureLlmHeader : kAzureLmmHeader;
    if (line != header) throw Error(fmt::format("{}:1: field 'header': expected {}", file, header));
    more = lines.next(line);
  }

  TraceRow row;
  std::optional<Nanos> first_ns;
  Nanos previous_ns = 0;
  for (; more; more = lines.next(line)) {
    if (options.limit > 0 && static_cast<std::int64_t>(trace.requests.size()) >= options.limit)
      break;
    if (line.empty()) continue;
    try {
      parse_row(line, format, options, row);
      const Nanos start_ns = is_csv(format) ? first_ns.value_or(row.clock_ns) : 0;
      const Nanos arrival_ns = row.clock_ns - start_ns;
      if (arrival_ns > kLongestTraceSeconds * kSecond)
        throw RowError("TIMESTAMP", "more than a year after the first row", "one trace");
      if (arrival_ns < previous_ns)
        throw RowError(is_csv(format) ? "TIMESTAMP" : "timestamp", "a time before the row above",
                       "rows in the order of arrival");
      first_ns = start_ns;
      previous_ns = arrival_ns;
      append(row, arrival_ns, trace);
    } catch (const RowError& error) {
      if (trace.skipped_rows++ == 0)
        first_error = fmt::format("{}:{}: {}", file, lines.number(), error.what());
      if (!options.skip_bad_rows) throw Error(first_error);
    }
  }
  if (trace.requests.empty())
    throw Error(trace.skipped_rows > 0 ? fmt::format("{} (none of the {} rows could be read)",
                                                     first_error, trace.skipped_rows)
                                       : fmt::format("{}: no requests in it", file));
  return trace;
}

}  // namespace modalkv
