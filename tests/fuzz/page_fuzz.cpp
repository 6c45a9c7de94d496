// Encode and decode. The first bytes choose the page's shape, formats, rotation, tokens, the rows'
// format and an encoder; the rest, repeated, are the rows. That encoder and the portable one must
// say the same and make the same bytes; what was encoded must verify and decode; a damaged page
// must not lead decoding astray. One input in eight may be of a large page: what small ones cannot
// reach takes ten times as long.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/encode_targets.hpp"

namespace modalkv {
namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

class Choices {
 public:
  Choices(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  unsigned next() { return at_ < size_ ? data_[at_++] : 0; }
  std::vector<std::uint16_t> rows(std::size_t count) {
    std::vector<std::uint16_t> all(count);
    const std::size_t begin = at_, left = size_ - at_, bytes = count * sizeof(std::uint16_t);
    for (std::size_t at = 0; at < bytes && left > 0; at += left)
      std::memcpy(reinterpret_cast<std::uint8_t*>(all.data()) + at, data_ + begin,
                  std::min(left, bytes - at));
    at_ = left > 0 ? begin + 1 : begin;  // the other side begins a byte later
    return all;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
};

ElementFormat element_format(Choices& choices) {
  const unsigned a = choices.next(), b = choices.next();
  ElementFormat format{static_cast<NumberFormat>(a % 8)};
  format.per_channel = a / 8 % 2 == 1;
  format.scale_bytes = static_cast<int>(a / 16 % 3);
  format.zero_bytes = static_cast<int>(a / 48 % 3);
  format.group = static_cast<int>(b % 9) * 16;
  return format;
}

void run(Choices& choices) {
  PageShape shape;
  const unsigned a = choices.next(), b = choices.next(), c = choices.next();
  const bool large = a / 32 == 7;
  shape.tokens = 16 * (1 + a % (large ? 4 : 2));
  shape.kv_heads = 1 + static_cast<int>(a / 4 % (large ? 3 : 2));
  shape.head_dim = 16 * (1 + static_cast<int>(b % (large ? 16 : 4)));
  shape.format.key_rotation = b / 16 % 2 == 0 ? 0 : 16 << b / 32 % 4;
  shape.format.key = element_format(choices);
  shape.format.value = element_format(choices);
  if (!is_page(shape)) return;
  const auto tokens = static_cast<std::uint32_t>(1 + c % static_cast<unsigned>(shape.tokens));
  const NumberFormat number = a / 16 % 2 == 0 ? NumberFormat::fp16 : NumberFormat::bf16;
  const auto count = static_cast<std::size_t>(tokens) * static_cast<std::size_t>(shape.kv_heads) *
                     static_cast<std::size_t>(shape.head_dim);
  const std::vector<std::uint16_t> keys = choices.rows(count), values = choices.rows(count);
  const auto rows = [&](const std::vector<std::uint16_t>& all) {
    return Rows{all.data(), std::int64_t{shape.kv_heads} * shape.head_dim, shape.head_dim, number};
  };
  EncodeRequest request{shape, rows(keys), rows(values), {{{9, 8, 7, 6}}, a, tokens}, {}, {}, {}};
  std::vector<std::byte> expected(static_cast<std::size_t>(page_bytes(shape)), std::byte{0xa5});
  std::vector<std::byte> page = expected;
  const auto targets = encode_targets();
  request.page = expected;
  const EncodeResult first = encode_page(*targets.back(), request);
  request.page = page;
  const EncodeResult result =
      encode_page(*targets[b / 128 % std::max<std::size_t>(1, targets.size() - 1)], request);
  check(result.status == first.status && result.in_values == first.in_values &&
        result.head == first.head && result.token == first.token);
  check(result.status != Status::ok || std::memcmp(page.data(), expected.data(), page.size()) == 0);
  if (first.status == Status::ok) {
    check(verify_page(expected) == Status::ok);
    check(read_trailer(expected).tokens == tokens);
  }
  expected[a * 40503u % expected.size()] ^= std::byte{1};
  std::vector<float> floats(static_cast<std::size_t>(shape.tokens * shape.kv_heads) *
                            static_cast<std::size_t>(shape.head_dim));
  decode_keys(shape, expected, {}, floats);
  decode_values(shape, expected, {}, floats);
  check(first.status != Status::ok || verify_page(expected) == Status::checksum);
}

}  // namespace
}  // namespace modalkv

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  modalkv::Choices choices(data, size);
  modalkv::run(choices);
  return 0;
}
