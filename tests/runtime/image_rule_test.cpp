#include "runtime/image_rule.hpp"

#include <gtest/gtest.h>

#include "tests/runtime/small_world.hpp"

namespace modalkv {
namespace {

using namespace small_world;
using Kind = ImageTokenRule::Kind;

Trace two_images() {
  return TraceBuilder()
      .add(5, {image(1000, 3), image(100, 4), text(50, 9)}, 7)
      .add(6, {text(20)}, 8)
      .trace();
}

ModelGeometry with_rule(const ImageTokenRule& rule) {
  ModelGeometry geometry = model();
  geometry.image_rule = rule;
  return geometry;
}

TEST(ImageRule, FixedCountReplacesEverySize) {
  const Trace trace =
      with_image_rule(two_images(), with_rule({.kind = Kind::fixed, .tokens_per_unit = 576}));
  ASSERT_EQ(trace.requests.size(), 2u);
  const Request& request = trace.requests[0];
  EXPECT_EQ(request.visual_tokens, 1152);
  EXPECT_EQ(request.prompt_tokens, 1202);
  EXPECT_EQ(request.images, 2);
  EXPECT_EQ(request.output_tokens, 7);
  EXPECT_EQ(request.arrival_ns, 5);
  const auto segments = trace.segments_of(request);
  ASSERT_EQ(segments.size(), 3u);
  EXPECT_EQ(segments[0], image(576, 3));
  EXPECT_EQ(segments[1], image(576, 4));
  EXPECT_EQ(segments[2], text(50, 9));
  EXPECT_EQ(trace.segments_of(trace.requests[1])[0], text(20));
  EXPECT_EQ(trace.requests[1].prompt_tokens, 20);
}

// One token of a trace stands for 28 x 28 pixels: 1000 are 784,000 pixels, 100 are 78,400.
TEST(ImageRule, PixelsAreCountedBySide) {
  const Trace trace = with_image_rule(
      two_images(), with_rule({.kind = Kind::pixels, .unit_side_px = 32, .max_tokens = 16'384}));
  EXPECT_EQ(trace.segments_of(trace.requests[0])[0].tokens, 766);  // 784,000 / 1024 = 765.6
  EXPECT_EQ(trace.segments_of(trace.requests[0])[1].tokens, 77);   // 78,400 / 1024 = 76.6
  const Trace same = with_image_rule(
      two_images(), with_rule({.kind = Kind::pixels, .unit_side_px = 28, .max_tokens = 16'384}));
  EXPECT_EQ(same.requests[0].visual_tokens, 1100);
  const Trace capped = with_image_rule(
      two_images(), with_rule({.kind = Kind::pixels, .unit_side_px = 28, .max_tokens = 400}));
  EXPECT_EQ(capped.requests[0].visual_tokens, 500);
}

TEST(ImageRule, TilesAreCountedWhole) {
  const Trace trace = with_image_rule(
      two_images(),
      with_rule(
          {.kind = Kind::tiles, .tokens_per_unit = 256, .unit_side_px = 448, .max_tokens = 3328}));
  // 784,000 / 200,704 = 3.9 tiles; 78,400 are less than one.
  EXPECT_EQ(trace.segments_of(trace.requests[0])[0].tokens, 4 * 256);
  EXPECT_EQ(trace.segments_of(trace.requests[0])[1].tokens, 256);
}

TEST(ImageRule, ATextModelDropsImagesAndKeepsText) {
  const Trace trace = with_image_rule(two_images(), with_rule({.kind = Kind::none}));
  EXPECT_EQ(trace.requests[0].prompt_tokens, 50);
  EXPECT_EQ(trace.requests[0].visual_tokens, 0);
  EXPECT_EQ(trace.requests[0].images, 0);
  ASSERT_EQ(trace.segments_of(trace.requests[0]).size(), 1u);
  EXPECT_EQ(trace.segments_of(trace.requests[0])[0], text(50, 9));
}

TEST(ImageRule, KeepsTheTracesNameAndTheSumsOfItsSegments) {
  Trace original = random_trace(8);
  original.name = "name";
  original.format = "servegen";
  original.skipped_rows = 3;
  const Trace trace = with_image_rule(original, model());
  EXPECT_EQ(trace.name, "name");
  EXPECT_EQ(trace.format, "servegen");
  EXPECT_EQ(trace.skipped_rows, 3);
  for (std::size_t r = 0; r < trace.requests.size(); ++r) {
    const Request& request = trace.requests[r];
    Tokens all = 0, visual = 0;
    std::int32_t images = 0;
    for (const Segment& segment : trace.segments_of(request)) {
      all += segment.tokens;
      visual += is_visual(segment.token_class) ? segment.tokens : 0;
      images += is_visual(segment.token_class);
    }
    EXPECT_EQ(request.prompt_tokens, all);
    EXPECT_EQ(request.visual_tokens, visual);
    EXPECT_EQ(request.images, images);
    EXPECT_EQ(images, original.requests[r].images);
  }
}

}  // namespace
}  // namespace modalkv
