// Made-up K and V, and pages of them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/number.hpp"
#include "kernels/page_codec.hpp"

namespace modalkv {

enum class Data { normal, outliers, constant, tiny, huge, zeros, one_sided };
constexpr Data kAllData[] = {Data::normal, Data::outliers, Data::constant, Data::tiny,
                             Data::huge,   Data::zeros,    Data::one_sided};

// K or V of an engine: tokens lie apart by more than they need.
class Tensor {
 public:
  Tensor(const PageShape& shape, NumberFormat number, Data data, std::uint64_t seed)
      : shape_(shape),
        number_(number),
        elements_(static_cast<std::size_t>(shape.tokens * token_stride())) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    for (Tokens token = 0; token < shape.tokens; ++token)
      for (int head = 0; head < shape.kv_heads; ++head)
        for (int dim = 0; dim < shape.head_dim; ++dim) {
          float value = normal(random);
          if (data == Data::outliers && dim % 31 == 3) value = value * 20 + 60;
          if (data == Data::constant) value = 0.3f + static_cast<float>(head);
          if (data == Data::tiny) value *= 1e-6f;
          if (data == Data::huge) value *= 1e4f;
          if (data == Data::zeros) value = 0;
          if (data == Data::one_sided) value = 5 + std::abs(value);
          set(token, head, dim, value);
        }
  }

  void set(Tokens token, int head, int dim, float value) {
    elements_[at(token, head, dim)] =
        number_ == NumberFormat::bf16 ? to_bf16(value) : to_fp16(value);
  }
  float get(Tokens token, int head, int dim) const {
    const std::uint16_t element = elements_[at(token, head, dim)];
    return from_16bit(element, number_);
  }
  Rows rows() const { return {elements_.data(), token_stride(), shape_.head_dim, number_}; }

 private:
  std::int64_t token_stride() const { return std::int64_t{shape_.kv_heads} * shape_.head_dim + 24; }
  std::size_t at(Tokens token, int head, int dim) const {
    return static_cast<std::size_t>(token * token_stride() + head * shape_.head_dim + dim);
  }

  PageShape shape_;
  NumberFormat number_;
  std::vector<std::uint16_t> elements_;
};

using Page = std::vector<std::byte>;

struct Encoded {
  EncodeResult result;
  Page page;
};

inline Encoded encode(const PageShape& shape, const Tensor& keys, const Tensor& values,
                      Tokens tokens, const TensorScales& scales = {}, const KnownBias& known = {}) {
  Page page(static_cast<std::size_t>(page_bytes(shape)), std::byte{0xee});
  PageTrailer trailer{{{1, 2, 3, 4}}, 99, static_cast<std::uint32_t>(tokens)};
  return {encode_page(shape, keys.rows(), values.rows(), trailer, scales, page, known), page};
}

inline std::vector<float> decode(const PageShape& shape, const Page& page, bool values,
                                 Tokens tokens, const TensorScales& scales = {},
                                 const KnownBias& known = {}) {
  std::vector<float> all(static_cast<std::size_t>(tokens * shape.kv_heads * shape.head_dim));
  values ? decode_values(shape, page, scales, all) : decode_keys(shape, page, scales, all, known);
  return all;
}

}  // namespace modalkv
