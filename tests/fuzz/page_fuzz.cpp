// Encode and decode. The first bytes choose the page's shape, formats, rotation, tokens and the
// rows' format; the rest, repeated, are the rows. Every encoder that runs here must say the same
// and make the same bytes; what was encoded must verify and decode; a damaged page must not lead
// decoding astray.
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
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
    const std::size_t begin = at_, left = size_ - at_;
    for (std::size_t i = 0; i < count && left > 0; ++i)
      all[i] = static_cast<std::uint16_t>(data_[begin + 2 * i % left] |
                                          data_[begin + (2 * i + 1) % left] << 8);
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
  shape.tokens = 16 * (1 + a % 4);
  shape.kv_heads = 1 + static_cast<int>(a / 4 % 3);
  shape.head_dim = 16 * (1 + static_cast<int>(b % 16));
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
  EncodeResult first;
  std::vector<std::byte> expected;
  for (const EncodeTarget* target : encode_targets()) {
    std::vector<std::byte> page(static_cast<std::size_t>(page_bytes(shape)), std::byte{0xa5});
    request.page = page;
    const EncodeResult result = encode_page(*target, request);
    if (expected.empty()) {
      first = result;
      expected = page;
    }
    check(result.status == first.status && result.in_values == first.in_values &&
          result.head == first.head && result.token == first.token);
    check(result.status != Status::ok || page == expected);
  }
  if (first.status == Status::ok) {
    check(verify_page(shape, expected) == Status::ok);
    check(read_trailer(shape, expected).tokens == tokens);
  }
  expected[a * 40503u % expected.size()] ^= std::byte{1};
  std::vector<float> floats(static_cast<std::size_t>(shape.tokens * shape.kv_heads) *
                            static_cast<std::size_t>(shape.head_dim));
  decode_keys(shape, expected, {}, floats);
  decode_values(shape, expected, {}, floats);
  check(first.status != Status::ok || verify_page(shape, expected) == Status::checksum);
}

}  // namespace
}  // namespace modalkv

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  modalkv::Choices choices(data, size);
  modalkv::run(choices);
  return 0;
}
