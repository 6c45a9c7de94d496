#include "kernels/open_page.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/checksum.hpp"
#include "kernels/number.hpp"

namespace modalkv {
namespace {

constexpr bool is_finite(std::uint16_t code, NumberFormat number) {
  const std::uint16_t exponent = number == NumberFormat::bf16 ? 0x7f80 : 0x7c00;
  return (code & exponent) != exponent;
}

class RowWriter {
 public:
  RowWriter(const PageShape& shape, std::span<std::byte> page, bool in_values)
      : layout_(shape),
        number_(in_values ? shape.format.value.number : shape.format.key.number),
        page_(page.data()),
        in_values_(in_values) {}

  /// False where an element cannot be held.
  bool write(const std::uint16_t* vector, NumberFormat number, int head, Tokens token) const {
    // Neighbours along a word's depth share it: dimensions of K, tokens of V.
    const ElementPlace begin =
        in_values_ ? layout_.value(head, token, 0) : layout_.key(head, token, 0);
    const int dims = layout_.shape().head_dim;
    bool finite = true;
    for (int dim = 0; dim < dims; ++dim) {
      std::uint16_t code = vector[dim];
      finite &= is_finite(code, number);
      if (number != number_) {
        code = to_16bit(from_16bit(code, number), number_);
        finite &= is_finite(code, number_);
      }
      const Bytes at = in_values_ ? begin.word + begin.bit / 8 +
                                        dim / kLineRows * lines_of_16_channels() * kLineBytes +
                                        dim % kLineRows * 4
                                  : begin.word + dim / 2 * kLineBytes + dim % 2 * 2;
      std::memcpy(page_ + at, &code, sizeof(code));
    }
    return finite;
  }

 private:
  Bytes lines_of_16_channels() const { return layout_.shape().tokens / 2; }

  PageLayout layout_;
  NumberFormat number_;
  std::byte* page_;
  bool in_values_;
};

}  // namespace

EncodeResult append_rows(const PageShape& shape, const Rows& keys, const Rows& values, Tokens first,
                         Tokens tokens, std::span<std::byte> page) {
  if (first == 0) std::fill(page.begin(), page.end(), std::byte{});
  for (const bool in_values : {false, true}) {
    const Rows& rows = in_values ? values : keys;
    const RowWriter writer(shape, page, in_values);
    for (Tokens token = 0; token < tokens; ++token)
      for (int head = 0; head < shape.kv_heads; ++head)
        if (!writer.write(rows.elements + token * rows.token_stride + head * rows.head_stride,
                          rows.number, head, first + token))
          return {Status::rejected, in_values, head, token};
  }
  return {};
}

void close_page(const PageShape& shape, const PageTrailer& trailer, std::span<std::byte> page) {
  static constexpr std::array<std::uint16_t, kMaxHeadDim> kZeros{};
  for (const bool in_values : {false, true}) {
    const RowWriter writer(shape, page, in_values);
    const NumberFormat number = in_values ? shape.format.value.number : shape.format.key.number;
    for (Tokens token = trailer.tokens; token < shape.tokens; ++token)
      for (int head = 0; head < shape.kv_heads; ++head)
        writer.write(kZeros.data(), number, head, token);
  }
  write_trailer(shape, trailer, page);
}

}  // namespace modalkv
