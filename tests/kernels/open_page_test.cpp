// A page filled as tokens come is, once closed, the page that is encoded at once.
#include "kernels/open_page.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/kernels/made_pages.hpp"

namespace modalkv {
namespace {

constexpr NumberFormat kNumbers[] = {NumberFormat::fp16, NumberFormat::bf16};

Rows from(const Rows& rows, Tokens token) {
  Rows later = rows;
  later.elements += token * rows.token_stride;
  return later;
}

TEST(OpenPage, FilledInAnyPiecesAndClosedIsTheEncodedPage) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const auto below = [&](std::uint64_t n) { return static_cast<Tokens>(random() % n); };
    PageShape shape{16 * (1 + below(4)), static_cast<int>(1 + below(3)),
                    16 * static_cast<int>(1 + below(16))};
    shape.format = {{kNumbers[below(2)]}, {kNumbers[below(2)]}};
    const NumberFormat input = kNumbers[below(2)];
    const Tensor keys(shape, input, Data::normal, seed), values(shape, input, Data::normal, ~seed);
    const Tokens tokens = 1 + below(static_cast<std::uint64_t>(shape.tokens));
    const Encoded expected = encode(shape, keys, values, tokens);
    ASSERT_EQ(expected.result.status, Status::ok);

    Page page(expected.page.size(), std::byte{0xcd});
    // Rows behind `tokens` are written too, and cut off by closing.
    const Tokens written = tokens + below(static_cast<std::uint64_t>(shape.tokens - tokens + 1));
    for (Tokens first = 0; first < written;) {
      const Tokens piece = 1 + below(static_cast<std::uint64_t>(written - first));
      ASSERT_EQ(append_rows(shape, from(keys.rows(), first), from(values.rows(), first), first,
                            piece, page)
                    .status,
                Status::ok);
      first += piece;
    }
    close_page(shape, {{{1, 2, 3, 4}}, 99, static_cast<std::uint32_t>(tokens)}, page);
    EXPECT_EQ(page, expected.page);
  }
}

TEST(OpenPage, WhatIsNotWrittenYetIsZero) {
  const PageShape shape{32, 2, 64};
  const Tensor rows(shape, NumberFormat::fp16, Data::normal, 1);
  Page page(static_cast<std::size_t>(page_bytes(shape)), std::byte{0xff});
  ASSERT_EQ(append_rows(shape, rows.rows(), rows.rows(), 0, 1, page).status, Status::ok);
  const auto written =
      std::count_if(page.begin(), page.end(), [](std::byte byte) { return byte != std::byte{}; });
  EXPECT_GT(written, 0);
  EXPECT_LE(written, 2 * 2 * 64 * 2);  // a token's K and V of two heads
}

TEST(OpenPage, NamesWhatIsNotANumberOrTooLarge) {
  const PageShape shape{16, 2, 64};
  Page page(static_cast<std::size_t>(page_bytes(shape)));
  for (const auto& [number, value] : {std::pair{NumberFormat::fp16, NAN},
                                      {NumberFormat::fp16, INFINITY},
                                      {NumberFormat::bf16, 1e6f}})  // FP16 pages do not hold it
    for (const bool in_values : {false, true}) {
      const Tensor good(shape, number, Data::normal, 1);
      Tensor bad = good;
      bad.set(3, 1, 63, value);
      const EncodeResult result = append_rows(shape, (in_values ? good : bad).rows(),
                                              (in_values ? bad : good).rows(), 5, 4, page);
      EXPECT_EQ(result.status, Status::rejected);
      EXPECT_EQ(result.in_values, in_values);
      EXPECT_EQ(result.head, 1);
      EXPECT_EQ(result.token, 3);
      EXPECT_EQ(page, Page(page.size())) << "nothing is written";
    }
}

}  // namespace
}  // namespace modalkv
