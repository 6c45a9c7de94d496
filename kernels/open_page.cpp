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

// Whether a page of `to` numbers can hold these elements.
bool can_hold(NumberFormat to, const std::uint16_t* vector, int dims, NumberFormat number) {
  bool finite = true;
  for (int dim = 0; dim < dims; ++dim) {
    finite &= is_finite(vector[dim], number);
    if (number != to) finite &= is_finite(to_16bit(from_16bit(vector[dim], number), to), to);
  }
  return finite;
}

class RowWriter {
 public:
  RowWriter(const PageShape& shape, std::span<std::byte> page, bool in_values)
      : layout_(shape),
        number_(in_values ? shape.format.value.number : shape.format.key.number),
        page_(page.data()),
        in_values_(in_values) {}

  NumberFormat number() const { return number_; }

  void write(const std::uint16_t* vector, NumberFormat number, int head, Tokens token) const {
    // Neighbours along a word's depth share it: dimensions of K, tokens of V.
    const ElementPlace begin =
        in_values_ ? layout_.value(head, token, 0) : layout_.key(head, token, 0);
    const Bytes of_16_channels = layout_.shape().tokens / 2 * kLineBytes;
    for (int dim = 0; dim < layout_.shape().head_dim; ++dim) {
      const std::uint16_t code =
          number == number_ ? vector[dim] : to_16bit(from_16bit(vector[dim], number), number_);
      const Bytes at = in_values_
                           ? begin.bit / 8 + dim / kLineRows * of_16_channels + dim % kLineRows * 4
                           : dim / 2 * kLineBytes + dim % 2 * 2;
      std::memcpy(page_ + begin.word + at, &code, sizeof(code));
    }
  }

 private:
  PageLayout layout_;
  NumberFormat number_;
  std::byte* page_;
  bool in_values_;
};

// Calls `use(in_values, token, head, vector)` for all rows until it returns false.
template <typename Use>
bool for_each_vector(const PageShape& shape, const Rows& keys, const Rows& values, Tokens tokens,
                     Use use) {
  for (const bool in_values : {false, true}) {
    const Rows& rows = in_values ? values : keys;
    for (Tokens token = 0; token < tokens; ++token)
      for (int head = 0; head < shape.kv_heads; ++head)
        if (!use(in_values, token, head,
                 rows.elements + token * rows.token_stride + head * rows.head_stride))
          return false;
  }
  return true;
}

}  // namespace

EncodeResult append_rows(const PageShape& shape, const Rows& keys, const Rows& values, Tokens first,
                         Tokens tokens, std::span<std::byte> page) {
  const RowWriter writers[] = {{shape, page, false}, {shape, page, true}};
  EncodeResult result;
  for_each_vector(shape, keys, values, tokens,
                  [&](bool in_values, Tokens token, int head, const std::uint16_t* vector) {
                    const NumberFormat number = in_values ? values.number : keys.number;
                    if (can_hold(writers[in_values].number(), vector, shape.head_dim, number))
                      return true;
                    result = {Status::rejected, in_values, head, token};
                    return false;
                  });
  if (result.status != Status::ok) return result;
  if (first == 0) std::fill(page.begin(), page.end(), std::byte{});
  for_each_vector(shape, keys, values, tokens,
                  [&](bool in_values, Tokens token, int head, const std::uint16_t* vector) {
                    writers[in_values].write(vector, in_values ? values.number : keys.number, head,
                                             first + token);
                    return true;
                  });
  return result;
}

void close_page(const PageShape& shape, const PageTrailer& trailer, std::span<std::byte> page) {
  static constexpr std::array<std::uint16_t, kMaxHeadDim> kZeros{};
  for (const bool in_values : {false, true}) {
    const RowWriter writer(shape, page, in_values);
    for (Tokens token = trailer.tokens; token < shape.tokens; ++token)
      for (int head = 0; head < shape.kv_heads; ++head)
        writer.write(kZeros.data(), writer.number(), head, token);
  }
  write_trailer(shape, trailer, page);
}

}  // namespace modalkv
