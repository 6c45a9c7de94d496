// The operations mean what the kernels do.
#include "kernels/effects.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_pages.hpp"

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
      encode.key_bias = space.put(elements);
      encode.rope_frequencies = space.put(frequencies);
      encode.token_positions = space.put(positions);
      encode.rope_sections = sections;
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

}  // namespace
}  // namespace modalkv
