// Every formula of the layout: no two elements share a bit, nothing lies outside its region, and
// the page is full.
#include "kernels/page_layout.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/kernels/formats.hpp"

namespace modalkv {
namespace {

// Which bits of a page are taken; taking one twice is an error.
class Bits {
 public:
  explicit Bits(const PageShape& shape) : taken_(static_cast<std::size_t>(page_bytes(shape)) * 8) {}
  void take(Bytes byte, int bit, int count) {
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(byte * 8 + bit + i);
      ASSERT_LT(at, taken_.size());
      ASSERT_FALSE(taken_[at]) << "byte " << byte << ", bit " << bit + i;
      taken_[at] = true;
    }
  }
  Bytes full_up_to() const {
    std::size_t bit = 0;
    while (bit < taken_.size() && taken_[bit]) ++bit;
    return static_cast<Bytes>(bit / 8);
  }

 private:
  std::vector<bool> taken_;
};

TEST(PageLayout, EveryElementAndScaleHasBitsOfItsOwnAndNoneAreLeft) {
  for (const PageShape& shape : test_shapes()) {
    SCOPED_TRACE(describe(shape));
    const PageLayout layout(shape);
    Bits bits(shape);
    const auto take_side = [&](const ElementFormat& format, bool keys) {
      const std::int64_t group = group_elements(format, shape);
      for (int head = 0; head < shape.kv_heads; ++head)
        for (Tokens token = 0; token < shape.tokens; ++token)
          for (int dim = 0; dim < shape.head_dim; ++dim) {
            const ElementPlace place =
                keys ? layout.key(head, token, dim) : layout.value(head, token, dim);
            ASSERT_EQ(place.word % 4, 0);
            ASSERT_NO_FATAL_FAILURE(bits.take(place.word, place.bit, payload_bits(format.number)));
            if (format.scale_bytes == 0 || (format.per_channel ? token : dim) % group != 0)
              continue;
            const Bytes base = keys ? layout.key_metadata(head) : layout.value_metadata(head);
            ASSERT_NO_FATAL_FAILURE(
                bits.take(base + layout.scale(format, token, dim), 0, 8 * format.scale_bytes));
            ASSERT_NO_FATAL_FAILURE(
                bits.take(base + layout.zero(format, token, dim), 0, 8 * format.zero_bytes));
          }
    };
    ASSERT_NO_FATAL_FAILURE(take_side(shape.format.key, true));
    ASSERT_NO_FATAL_FAILURE(take_side(shape.format.value, false));
    const Bytes used = bits.full_up_to();
    EXPECT_LE(used, layout.trailer());
    EXPECT_LT(layout.trailer() - used, kPageAlignmentBytes);
    ASSERT_NO_FATAL_FAILURE(bits.take(layout.trailer(), 0, 8 * kPageTrailerBytes));
  }
}

TEST(PageLayout, LinesAreAlignedAndHoldSixteenRows) {
  for (const PageShape& shape : test_shapes()) {
    SCOPED_TRACE(describe(shape));
    const PageLayout layout(shape);
    const int key_deep = word_elements(shape.format.key);
    const int value_deep = word_elements(shape.format.value);
    for (int head = 0; head < shape.kv_heads; ++head) {
      EXPECT_EQ(layout.key_lines(head) % kLineBytes, 0);
      EXPECT_EQ(layout.value_lines(head) % kLineBytes, 0);
      for (int i = 0; i < kLineRows; ++i) {
        EXPECT_EQ(layout.key(head, i, 0).word, layout.key_lines(head) + 4 * i);
        EXPECT_EQ(layout.value(head, 0, i).word, layout.value_lines(head) + 4 * i);
      }
      EXPECT_EQ(layout.key(head, 0, key_deep).word, layout.key_lines(head) + kLineBytes);
      if (shape.tokens > value_deep) {
        EXPECT_EQ(layout.value(head, value_deep, 0).word, layout.value_lines(head) + kLineBytes);
      }
    }
  }
}

TEST(PageLayout, RotationsAreOfWholeBlocksOfQuantizedKeys) {
  const auto rotated = [](ElementFormat key, int head_dim, int order) {
    return is_page({16, 1, head_dim, {key, fp16(), order}});
  };
  for (const int order : {16, 32, 64, 128}) EXPECT_TRUE(rotated(int4_token_head(), 128, order));
  EXPECT_TRUE(rotated(int4_token_head(), 80, 16));
  EXPECT_FALSE(rotated(int4_token_head(), 80, 32));
  for (const int order : {-16, 1, 8, 48, 256})
    EXPECT_FALSE(rotated(int4_token_head(), 256, order)) << order;
  EXPECT_FALSE(rotated(bf16(), 128, 16)) << "nothing is gained";
}

// Byte by byte, for one small page: INT4 keys of 16 tokens and 2 heads of 16.
TEST(PageLayout, ASmallPageByHand) {
  const PageShape shape{16, 2, 16, both(int4_token_head())};
  const PageLayout layout(shape);
  // A head: 2 lines of K and 2 of V. A word holds 8 elements.
  EXPECT_EQ(layout.value_lines(0), 128);
  EXPECT_EQ(layout.key_lines(1), 256);
  EXPECT_EQ(layout.key(0, 3, 0).word, 12);
  EXPECT_EQ(layout.key(0, 3, 0).bit, 0);
  EXPECT_EQ(layout.key(0, 3, 1).bit, 16);
  EXPECT_EQ(layout.key(0, 3, 2).bit, 4);
  EXPECT_EQ(layout.key(0, 3, 7).bit, 28);
  EXPECT_EQ(layout.key(0, 3, 8).word, 64 + 12);
  EXPECT_EQ(layout.value(1, 9, 5).word, 256 + 128 + 64 + 20);
  EXPECT_EQ(layout.value(1, 9, 5).bit, 16);
  // Metadata: 16 scales and 16 zeros of 2 bytes a side and head.
  EXPECT_EQ(layout.key_metadata(0), 512);
  EXPECT_EQ(layout.value_metadata(0), 512 + 64);
  EXPECT_EQ(layout.key_metadata(1), 512 + 128);
  EXPECT_EQ(layout.scale(shape.format.key, 5, 7), 10);
  EXPECT_EQ(layout.zero(shape.format.key, 5, 7), 32 + 10);
  EXPECT_EQ(layout.trailer(), 512 + 256);
  EXPECT_EQ(page_bytes(shape), 832);
}

}  // namespace
}  // namespace modalkv
