#include "tools/trace/generator.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tools/trace/trace_stats.hpp"

namespace modalkv {
namespace {

const Workload& workload(std::string_view name) {
  for (const Workload& each : workloads())
    if (each.name == name) return each;
  throw std::invalid_argument(std::string(name));
}

std::vector<Segment> images_of(const Trace& trace) {
  std::vector<Segment> images;
  for (const Segment& segment : trace.segments)
    if (is_visual(segment.token_class)) images.push_back(segment);
  return images;
}

TEST(Generator, SameSeedSameTraceOtherSeedAnother) {
  for (const Workload& each : workloads()) {
    const GeneratorOptions options{.requests = 200, .image_pool = 10, .seed = 7};
    const Trace a = generate_trace(each, options), b = generate_trace(each, options);
    EXPECT_EQ(a.requests, b.requests);
    EXPECT_EQ(a.segments, b.segments);
    GeneratorOptions other = options;
    other.seed = 8;
    const Trace c = generate_trace(each, other);
    EXPECT_NE(a.requests, c.requests);
    EXPECT_NE(a.segments, c.segments);
  }
}

TEST(Generator, RequestsAreWhole) {
  for (const Workload& each : workloads()) {
    const Trace trace = generate_trace(each, {.requests = 500, .rate_per_s = 50});
    ASSERT_EQ(trace.requests.size(), 500u);
    std::uint32_t next_segment = 0;
    Nanos previous_ns = 0;
    for (const Request& request : trace.requests) {
      EXPECT_EQ(request.first_segment, next_segment);
      next_segment += request.segment_count;
      EXPECT_GE(request.arrival_ns, previous_ns);
      previous_ns = request.arrival_ns;
      EXPECT_GE(request.output_tokens, 1);
      Tokens all = 0, visual = 0;
      for (const Segment& segment : trace.segments_of(request)) {
        EXPECT_GE(segment.tokens, 1);
        all += segment.tokens;
        visual += is_visual(segment.token_class) ? segment.tokens : 0;
      }
      EXPECT_EQ(all, request.prompt_tokens);
      EXPECT_EQ(visual, request.visual_tokens);
      EXPECT_EQ(request.segment_count, static_cast<std::uint32_t>(request.images) + 1);
      EXPECT_EQ(trace.segments_of(request).back().token_class, TokenClass::text);
    }
    EXPECT_EQ(next_segment, trace.segments.size());
  }
}

TEST(Generator, WithoutAPoolEveryImageIsNew) {
  for (const Segment& image : images_of(generate_trace(workload("chat"), {.requests = 300})))
    EXPECT_TRUE(image.content.is_unique());
}

TEST(Generator, APoolMakesImagesRecurWithTheSameSize) {
  const Trace trace = generate_trace(workload("servegen"), {.requests = 2000, .image_pool = 40});
  std::map<ContentId, std::set<Tokens>> sizes;
  for (const Segment& image : images_of(trace)) sizes[image.content].insert(image.tokens);
  EXPECT_EQ(sizes.size(), 40u);
  std::set<Tokens> all;
  for (const auto& [id, tokens] : sizes) {
    EXPECT_FALSE(id.is_unique());
    EXPECT_EQ(tokens.size(), 1u);
    all.insert(tokens.begin(), tokens.end());
  }
  EXPECT_GT(all.size(), 10u);
}

TEST(Generator, ASmallerPoolIsReusedMore) {
  const auto reusable = [](std::int64_t pool) {
    return trace_stats(generate_trace(workload("chat"), {.requests = 1000, .image_pool = pool}))
        .reusable_share;
  };
  EXPECT_EQ(reusable(0), 0);
  EXPECT_GT(reusable(10), reusable(1000) + 0.1);
  EXPECT_GT(reusable(1000), 0.02);
}

TEST(Generator, ZipfDecidesHowPopularTheMostPopularImageIs) {
  const auto top_share = [](double zipf) {
    const Trace trace =
        generate_trace(workload("chat"), {.requests = 5000, .image_pool = 100, .image_zipf = zipf});
    std::map<ContentId, int> shown;
    const auto images = images_of(trace);
    for (const Segment& image : images) ++shown[image.content];
    int most = 0;
    for (const auto& [id, count] : shown) most = std::max(most, count);
    return most / static_cast<double>(images.size());
  };
  EXPECT_LT(top_share(0), 0.02);           // 1 of 100
  EXPECT_NEAR(top_share(1), 0.193, 0.02);  // 1 / (1 + 1/2 + ... + 1/100)
  EXPECT_NEAR(top_share(2), 0.612, 0.03);
}

TEST(Generator, ArrivalsKeepRateAndVariation) {
  for (const double cv : {0.0, 0.5, 1.0, 3.0}) {
    const TraceStats stats = trace_stats(
        generate_trace(workload("chat"), {.requests = 50'000, .rate_per_s = 20, .arrival_cv = cv}));
    EXPECT_NEAR(stats.rate_per_s, 20, 0.3 + 0.4 * cv) << cv;
    EXPECT_NEAR(stats.arrival_cv, cv, 1e-3 + 0.05 * cv) << cv;
  }
}

TEST(Generator, TheShareOfImageRequestsIsAKnob) {
  for (const double share : {0.0, 0.25, 1.0})
    EXPECT_NEAR(trace_stats(generate_trace(workload("servegen"),
                                           {.requests = 10'000, .image_share = share}))
                    .requests_with_images,
                share, 0.02);
}

// The numbers are those that the sources publish, not those of our tables.
TEST(Generator, ServegenStatistics) {
  const TraceStats stats = trace_stats(generate_trace(workload("servegen"), {.requests = 50'000}));
  EXPECT_NEAR(stats.requests_with_images, 0.988, 0.003);
  EXPECT_NEAR(stats.images.mean, 1.5, 0.12);
  EXPECT_NEAR(stats.text_tokens.mean, 487.5, 30);
  EXPECT_NEAR(stats.text_tokens.quantiles[2], 94, 5);
  EXPECT_NEAR(stats.text_tokens.quantiles[3], 1639, 80);
  EXPECT_NEAR(stats.image_tokens.mean, 513.5, 30);
  EXPECT_NEAR(stats.image_tokens.quantiles[2], 360, 15);
  EXPECT_NEAR(stats.output_tokens.mean, 136.6, 8);
  EXPECT_NEAR(stats.output_tokens.quantiles[2], 120, 5);
  EXPECT_NEAR(stats.visual_share, 0.615, 0.03);
}

TEST(Generator, AzureLmmStatistics) {
  const TraceStats text =
      trace_stats(generate_trace(workload("azure-lmm"), {.requests = 50'000, .image_share = 0}));
  EXPECT_NEAR(text.prompt_tokens.quantiles[1], 171, 8);
  EXPECT_NEAR(text.prompt_tokens.quantiles[2], 779, 25);
  EXPECT_NEAR(text.prompt_tokens.quantiles[3], 3068, 160);
  const Trace trace = generate_trace(workload("azure-lmm"), {.requests = 50'000, .image_share = 1});
  const auto with_at_most = [&](int images) {
    return static_cast<double>(
               std::count_if(trace.requests.begin(), trace.requests.end(),
                             [&](const Request& request) { return request.images <= images; })) /
           static_cast<double>(trace.requests.size());
  };
  EXPECT_NEAR(with_at_most(1), 0.662, 0.01);
  EXPECT_NEAR(with_at_most(3), 0.857, 0.01);
  EXPECT_NEAR(with_at_most(10), 0.947, 0.01);
  EXPECT_EQ(trace_stats(trace).image_tokens.quantiles[0], 576);
}

}  // namespace
}  // namespace modalkv
