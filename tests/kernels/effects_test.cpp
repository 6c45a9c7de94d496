// The operations mean what the kernels do.
#include "kernels/effects.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_attention.hpp"

namespace modalkv {
namespace {

// One space; what is put there is aligned to 64 bytes.
class Space {
 public:
  template <typename T>
  Address put(const std::vector<T>& values) {
    const Address at = room(static_cast<Bytes>(values.size() * sizeof(T)));
    std::memcpy(bytes_.data() + at.offset, values.data(), values.size() * sizeof(T));
    return at;
  }
  Address room(Bytes bytes) {
    const Address at{{0}, used_, bytes};
    used_ = round_up(used_ + bytes, 64);
    bytes_.resize(static_cast<std::size_t>(used_));
    return at;
  }
  Page at(const Address& address) const {
    const auto begin = bytes_.begin() + address.offset;
    return {begin, begin + address.bytes};
  }
  Status perform(const Op& op) {
    const std::array spaces{bytes_.data()};
    return modalkv::perform(op, spaces);
  }

 private:
  std::vector<std::byte> bytes_;
  Bytes used_ = 0;
};

TEST(Effects, EncodeIsEncodePageWithAndWithoutABias) {
  const PageShape shape{16, 2, 64, {int4_token_head(), int2_grouped(32), 64}};
  std::vector<std::uint16_t> rows(16 * 2 * 64);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = to_fp16(static_cast<float>(i % 173));
  std::vector<float> elements(2 * 64), frequencies(32);
  for (std::size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<float>(i % 11);
  fill_rope_frequencies(1e4, frequencies);
  std::vector<std::int32_t> positions(13 * 3);
  for (std::size_t i = 0; i < positions.size(); ++i)
    positions[i] = static_cast<std::int32_t>(i * i);
  const RopeSections sections{{8, 12, 12}};
  const KeyBias bias{elements.data(), frequencies.data(), sections, 64};
  for (const bool biased : {false, true}) {
    Space space;
    Encode encode{space.put(rows), space.put(rows), space.room(page_bytes(shape)), shape, 13};
    encode.content = {{5, 6, 7, 8}};
    encode.generation = 3;
    if (biased) {
      encode.key_bias.elements = space.put(elements);
      encode.key_bias.frequencies = space.put(frequencies);
      encode.key_bias.positions = space.put(positions);
      encode.key_bias.sections = sections;
    }
    EXPECT_EQ(space.perform(encode), Status::ok);
    Page expected(static_cast<std::size_t>(page_bytes(shape)));
    const Rows all{rows.data(), 2 * 64, 64};
    const KnownBias known{biased ? &bias : nullptr, positions};
    EXPECT_EQ(encode_page(shape, all, all, {encode.content, 3, 13}, {}, expected, known).status,
              Status::ok);
    EXPECT_EQ(space.at(encode.page), expected);
  }
}

// More pages than one handful of the table, the last one partial.
TEST(Effects, AttendAndScoreSeeKeysWithTheirBias) {
  const PageShape shape{16, 2, 64, {int8_token_head(), int4_token_head(), 32}};
  const Tokens tokens = 66 * 16 + 5;
  std::vector<std::int32_t> positions;
  for (std::int32_t t = 0; t < tokens; ++t) positions.push_back(10 + t);
  const MadeBias bias(shape, {}, positions, 1);
  const MadeList list = make_biased_list(shape, tokens, bias, 2);
  const MadeQueries made = make_queries(1, 4, 64, 0.1f, 3);
  Space space;
  Attend attend{};
  attend.shape = shape;
  attend.tokens = tokens;
  attend.query_heads = 4;
  attend.query_tokens = 1;
  std::vector<std::uint16_t> rows(made.elements.begin(), made.elements.begin() + 4 * 64);
  attend.queries = space.put(rows);
  attend.input = made.number;
  attend.logit_scale = made.queries().scale;
  std::vector<std::byte> pages;
  std::vector<Bytes> offsets;
  for (const Page& page : list.pages) {
    offsets.push_back(static_cast<Bytes>(pages.size()));
    pages.insert(pages.end(), page.begin(), page.end());
  }
  attend.pages = space.put(pages);
  attend.page_table = space.put(offsets);
  attend.partials = space.room(partial_bytes(4, 64));
  attend.key_bias = {
      space.put(bias.elements), space.put(bias.frequencies), space.put(positions), {}};
  ASSERT_EQ(space.perform(attend), Status::ok);
  const Page found = space.at(attend.partials);
  std::vector<float> partials(found.size() / sizeof(float));
  std::memcpy(partials.data(), found.data(), found.size());
  const PageList lists[] = {list.list()};
  expect_close(made.queries(), lists, 64, partials);

  Score score{.queries = attend.queries,
              .pages = attend.pages,
              .page_table = attend.page_table,
              .partials = attend.partials,
              .scores = space.room(tokens * 4),
              .scratch = space.room(score_scratch_bytes(shape)),
              .shape = shape,
              .tokens = tokens,
              .query_heads = 4,
              .query_tokens = 1,
              .input = attend.input,
              .logit_scale = attend.logit_scale,
              .key_bias = attend.key_bias};
  ASSERT_EQ(space.perform(score), Status::ok);
  const Page scored = space.at(score.scores);
  std::vector<float> scores(scored.size() / sizeof(float));
  std::memcpy(scores.data(), scored.data(), scored.size());
  const reference::DecodedList decoded[] = {reference::decode_list(lists[0])};
  const auto expected = reference::attention(made.queries(), decoded, 64).probabilities;
  for (std::size_t t = 0; t < scores.size(); ++t) {
    double mean = 0;
    for (std::size_t row = 0; row < 4; ++row) mean += expected[row * scores.size() + t] / 4;
    ASSERT_NEAR(scores[t], mean, 1e-2 * mean + 1e-9) << t;
  }
}

TEST(Effects, AnOpenPageIsFilledClosedAndDecoded) {
  const PageShape shape{16, 2, 64};
  std::vector<std::uint16_t> keys(5 * 2 * 64), values(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    keys[i] = to_fp16(static_cast<float>(i % 173));
    values[i] = to_fp16(static_cast<float>(i % 57));
  }
  const auto rows = [](const Address& all, Tokens first, Tokens tokens) -> Address {
    return {all.space, all.offset + first * 2 * 64 * 2, tokens * 2 * 64 * 2};
  };
  Space space;
  const Address k = space.put(keys), v = space.put(values), page = space.room(page_bytes(shape));
  for (const auto& [first, tokens] : {std::pair<Tokens, Tokens>{0, 2}, {2, 3}})
    ASSERT_EQ(space.perform(Append{rows(k, first, tokens), rows(v, first, tokens), page, shape,
                                   first, tokens}),
              Status::ok);
  Decode decode{page, space.room(k.bytes), space.room(v.bytes), shape, 5};
  EXPECT_EQ(space.perform(decode), Status::checksum);  // still open
  ASSERT_EQ(space.perform(Close{page, shape, 5, {{4, 3, 2, 1}}, 8}), Status::ok);
  EXPECT_EQ(read_trailer(space.at(page)).generation, 8u);
  EXPECT_EQ(read_trailer(space.at(page)).content, (ContentId{{4, 3, 2, 1}}));
  ASSERT_EQ(space.perform(decode), Status::ok);
  EXPECT_EQ(space.at(decode.keys), space.at(k));
  EXPECT_EQ(space.at(decode.values), space.at(v));
  EXPECT_EQ(space.perform(VerifyPage{page, {{4, 3, 2, 1}}, 8}), Status::ok);
  EXPECT_EQ(space.perform(VerifyPage{page, {{4, 3, 2, 1}}, 9}), Status::checksum);
  EXPECT_EQ(space.perform(VerifyPage{page, {{4, 3, 2, 0}}, 8}), Status::checksum);
  ASSERT_EQ(space.perform(Fill{{page.space, page.offset, 1}, 77}), Status::ok);
  EXPECT_EQ(space.perform(VerifyPage{page, {{4, 3, 2, 1}}, 8}), Status::checksum);
  EXPECT_EQ(space.perform(decode), Status::checksum);
}

TEST(Effects, FinishDividesAndRounds) {
  const std::vector<float> partials{1, 2, 3, 4, /*maximum*/ 2, /*sum*/ 3, 9, 9, 9, 9, -INFINITY, 0};
  Space space;
  Finish finish{space.put(partials), space.room(2 * 4 * 2), space.room(2 * 4), 2, 4};
  ASSERT_EQ(space.perform(finish), Status::ok);
  std::array<std::uint16_t, 8> outputs;
  std::memcpy(outputs.data(), space.at(finish.outputs).data(), sizeof(outputs));
  for (std::size_t d = 0; d < 4; ++d) EXPECT_EQ(outputs[d], to_fp16(static_cast<float>(d + 1) / 3));
  EXPECT_EQ(outputs[4], 0);
  std::array<float, 2> log_sum_exp;
  std::memcpy(log_sum_exp.data(), space.at(finish.log_sum_exp).data(), sizeof(log_sum_exp));
  EXPECT_FLOAT_EQ(log_sum_exp[0], 2 + std::log(3.0f));
  EXPECT_EQ(log_sum_exp[1], -INFINITY);
}

}  // namespace
}  // namespace modalkv
