#include "tools/trace/generator.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "tools/trace/content_id.hpp"

namespace modalkv {
namespace {

Tokens whole(double value) {
  return std::max<Tokens>(1, std::llround(value));
}

// The steps of the table are counts: any value between two belongs to the upper one.
std::int64_t image_count(const Workload& workload, Random& random) {
  return static_cast<std::int64_t>(std::ceil(draw(workload.images, random) - 1e-9));
}

}  // namespace

Trace generate_trace(const Workload& workload, const GeneratorOptions& options) {
  Random random(options.seed);
  const double image_share = options.image_share < 0 ? workload.image_share : options.image_share;
  std::optional<Zipf> pool;
  if (options.image_pool > 0)
    pool.emplace(static_cast<std::size_t>(options.image_pool), options.image_zipf);

  Trace trace;
  trace.name = workload.name;
  trace.format = "modalkv";
  double now_s = 0;
  for (std::int64_t i = 0; i < options.requests; ++i) {
    if (i > 0) now_s += random.gamma_of_mean_one(options.arrival_cv) / options.rate_per_s;
    // Microseconds: what a log would hold.
    Request request{.arrival_ns = std::llround(now_s * 1e6) * kMicrosecond,
                    .first_segment = static_cast<std::uint32_t>(trace.segments.size())};
    if (random.unit() < image_share) {
      const std::int64_t images = image_count(workload, random);
      for (std::int64_t image = 0; image < images; ++image) {
        Segment segment{.token_class = TokenClass::image};
        if (pool) {
          // An image's size belongs to the image, not to the request that shows it.
          const auto id = static_cast<std::uint64_t>(pool->draw(random));
          Random own(options.seed ^ (id + 1) * 0xd1342543de82ef95u);
          segment.content = content_id(id);
          segment.tokens = whole(draw(workload.image_tokens, own));
        } else {
          segment.tokens = whole(draw(workload.image_tokens, random));
        }
        request.visual_tokens += segment.tokens;
        ++request.images;
        trace.segments.push_back(segment);
      }
    }
    const Tokens text = whole(draw(workload.text_tokens, random));
    trace.segments.push_back({.token_class = TokenClass::text, .tokens = text});
    request.prompt_tokens = request.visual_tokens + text;
    request.output_tokens = whole(draw(workload.output_tokens, random));
    request.segment_count =
        static_cast<std::uint32_t>(trace.segments.size()) - request.first_segment;
    trace.requests.push_back(request);
  }
  return trace;
}

}  // namespace modalkv
