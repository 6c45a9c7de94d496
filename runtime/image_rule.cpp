#include "runtime/image_rule.hpp"

namespace modalkv {
namespace {

constexpr double kTracePixelsPerToken = 28.0 * 28.0;

}  // namespace

Trace with_image_rule(const Trace& trace, const ModelGeometry& model) {
  Trace result{.name = trace.name,
               .format = trace.format,
               .requests = trace.requests,
               .segments = {},
               .skipped_rows = trace.skipped_rows};
  result.segments.reserve(trace.segments.size());
  for (Request& request : result.requests) {
    const auto first = static_cast<std::uint32_t>(result.segments.size());
    const Tokens text = request.prompt_tokens - request.visual_tokens;
    request.visual_tokens = 0;
    request.images = 0;
    for (Segment segment : trace.segments_of(request)) {
      if (is_visual(segment.token_class)) {
        segment.tokens = image_tokens(model.image_rule,
                                      static_cast<double>(segment.tokens) * kTracePixelsPerToken);
        if (segment.tokens == 0) continue;
        request.visual_tokens += segment.tokens;
        ++request.images;
      }
      result.segments.push_back(segment);
    }
    request.prompt_tokens = text + request.visual_tokens;
    request.first_segment = first;
    request.segment_count = static_cast<std::uint32_t>(result.segments.size()) - first;
  }
  return result;
}

}  // namespace modalkv
