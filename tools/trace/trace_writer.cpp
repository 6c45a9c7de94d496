#include "tools/trace/trace_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "modalkv/error.hpp"
#include "tools/trace/content_id.hpp"

namespace modalkv {
namespace {

void append_milliseconds(std::string& out, Nanos ns) {
  fmt::format_to(std::back_inserter(out), "{}", ns / kMillisecond);
  const Nanos rest = ns % kMillisecond;
  if (rest == 0) return;
  std::string fraction = fmt::format(".{:06}", rest);
  fraction.erase(fraction.find_last_not_of('0') + 1);
  out += fraction;
}

template <typename Value>
void append_array(std::string& out, std::string_view key, std::span<const Segment> segments,
                  Value value) {
  out += fmt::format(", \"{}\": [", key);
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (i > 0) out += ", ";
    out += value(segments[i]);
  }
  out += ']';
}

bool has_ids(std::span<const Segment> segments) {
  return std::any_of(segments.begin(), segments.end(),
                     [](const Segment& segment) { return !segment.content.is_unique(); });
}

}  // namespace

std::string to_json_lines(const Trace& trace) {
  std::string out;
  for (std::size_t i = 0; i < trace.requests.size(); ++i) {
    const Request& request = trace.requests[i];
    const auto segments = trace.segments_of(request);
    const auto images = segments.first(static_cast<std::size_t>(request.images));
    const auto text = segments.subspan(images.size());
    const auto visual = [](const Segment& segment) { return is_visual(segment.token_class); };
    if (!std::all_of(images.begin(), images.end(), visual) ||
        std::any_of(text.begin(), text.end(), visual))
      throw Error(fmt::format(
          "{}: request {} has text before an image, which this format cannot say", trace.name, i));
    const auto id = [](const Segment& segment) { return content_id_json(segment.content); };
    out += "{\"timestamp\": ";
    append_milliseconds(out, request.arrival_ns);
    fmt::format_to(std::back_inserter(out), ", \"input_length\": {}, \"output_length\": {}",
                   request.prompt_tokens, request.output_tokens);
    if (!images.empty())
      append_array(out, "image_tokens", images,
                   [](const Segment& segment) { return fmt::format("{}", segment.tokens); });
    if (has_ids(images)) append_array(out, "image_ids", images, id);
    if (has_ids(text)) append_array(out, "hash_ids", text, id);
    out += "}\n";
  }
  return out;
}

}  // namespace modalkv
