// A second reader of pages, from what is written about them at the head of kernels/page_layout.hpp
// and kernels/quantizer.hpp, and on purpose without their code: it walks a page from its first byte
// to its last instead of computing offsets, and takes numbers apart field by field.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "modalkv/page.hpp"

namespace modalkv::reference {

/// A floating-point number of 1 + exponent_bits + mantissa_bits bits, as IEEE 754 reads them.
/// `infinities`: its largest exponent is kept for infinities and NaNs.
inline double floating(std::uint32_t code, int exponent_bits, int mantissa_bits,
                       bool infinities = true) {
  const std::uint32_t mantissa = code % (1u << mantissa_bits);
  const std::uint32_t exponent = (code >> mantissa_bits) % (1u << exponent_bits);
  const bool negative = (code >> (mantissa_bits + exponent_bits)) % 2 != 0;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  double magnitude = 0;
  if (infinities && exponent == (1u << exponent_bits) - 1) {
    magnitude = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(mantissa, 1 - bias - mantissa_bits);
  } else {
    magnitude = std::ldexp(mantissa + std::ldexp(1, mantissa_bits),
                           static_cast<int>(exponent) - bias - mantissa_bits);
  }
  return negative ? -magnitude : magnitude;
}

inline double fp16(std::uint32_t code) {
  return floating(code, 5, 10);
}
inline double bf16(std::uint32_t code) {
  return floating(code, 8, 7);
}
/// OCP: no infinities, and one magnitude that is not a number.
inline double e4m3(std::uint32_t code) {
  return code % 128 == 127 ? NAN : floating(code, 4, 3, false);
}
inline double e2m1(std::uint32_t code) {
  return floating(code, 2, 1, false);
}
inline double e8m0(std::uint32_t code) {
  return std::ldexp(1, static_cast<int>(code) - 127);
}

/// Both 16-bit formats of an engine.
inline double number_16bit(NumberFormat number, std::uint16_t code) {
  return number == NumberFormat::bf16 ? bf16(code) : fp16(code);
}

/// One side (K or V) of one head: what is stored for each token and channel.
class Side {
 public:
  Side(const ElementFormat& format, Tokens tokens, int dims)
      : format_(format),
        dims_(dims),
        codes_(static_cast<std::size_t>(tokens * dims)),
        scales_(codes_.size()),
        zeros_(codes_.size()) {}

  std::uint32_t& code(Tokens token, Tokens dim) { return codes_[at(token, dim)]; }
  std::uint32_t& scale(Tokens token, Tokens dim) { return scales_[at(token, dim)]; }
  std::uint32_t& zero(Tokens token, Tokens dim) { return zeros_[at(token, dim)]; }

  /// What an element stands for: each operation rounded to binary32.
  float value(Tokens token, Tokens dim, float tensor_scale) const {
    const std::uint32_t code = codes_[at(token, dim)];
    const double scale = meant_scale(scales_[at(token, dim)], tensor_scale);
    const std::uint32_t zero = zeros_[at(token, dim)];
    switch (format_.number) {
      case NumberFormat::fp16:
        return static_cast<float>(fp16(code));
      case NumberFormat::bf16:
        return static_cast<float>(bf16(code));
      case NumberFormat::fp8_e4m3:
        return static_cast<float>(e4m3(code) * scale);
      case NumberFormat::nvfp4:
      case NumberFormat::mxfp4:
        return static_cast<float>(e2m1(code) * scale);
      case NumberFormat::int8:
      case NumberFormat::int4:
      case NumberFormat::int2:
        break;
    }
    if (format_.zero_bytes == 2) {
      const auto product = static_cast<float>(code * scale);
      return static_cast<float>(double{product} + fp16(zero));
    }
    const int middle = 1 << (payload_bits(format_.number) - 1);
    const int signed_zero = zero < 128 ? static_cast<int>(zero) : static_cast<int>(zero) - 256;
    const int subtracted = format_.zero_bytes == 1 ? signed_zero : middle;
    return static_cast<float>((static_cast<int>(code) - subtracted) * scale);
  }

 private:
  std::size_t at(Tokens token, Tokens dim) const {
    return static_cast<std::size_t>(token * dims_ + dim);
  }
  double meant_scale(std::uint32_t stored, float tensor_scale) const {
    if (format_.scale_bytes == 0) return double{tensor_scale};
    if (format_.scale_bytes == 2) return fp16(stored);
    return format_.number == NumberFormat::mxfp4 ? e8m0(stored) : e4m3(stored);
  }

  ElementFormat format_;
  int dims_;
  std::vector<std::uint32_t> codes_, scales_, zeros_;
};

/// Everything on a page.
class PageReader {
 public:
  PageReader(const PageShape& shape, std::span<const std::byte> page) : shape_(shape), page_(page) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      keys_.emplace_back(shape.format.key, shape.tokens, shape.head_dim);
      values_.emplace_back(shape.format.value, shape.tokens, shape.head_dim);
    }
    for (int head = 0; head < shape.kv_heads; ++head) {
      read_key_lines(keys_[static_cast<std::size_t>(head)]);
      read_value_lines(values_[static_cast<std::size_t>(head)]);
    }
    for (int head = 0; head < shape.kv_heads; ++head) {
      read_metadata(shape.format.key, keys_[static_cast<std::size_t>(head)]);
      read_metadata(shape.format.value, values_[static_cast<std::size_t>(head)]);
    }
    end_ = at_;
    at_ = page.size() - 64 + 40;
    used_ = static_cast<Tokens>(take(4));
  }

  Tokens used_tokens() const { return used_; }
  /// First byte behind the metadata.
  std::size_t metadata_end() const { return end_; }

  /// [tokens in use, kv_heads, head_dim], as decode_keys and decode_values give them.
  std::vector<float> decoded(bool values, float tensor_scale = 1) const {
    std::vector<float> all;
    for (Tokens token = 0; token < used_; ++token)
      for (const Side& head : values ? values_ : keys_)
        for (int dim = 0; dim < shape_.head_dim; ++dim)
          all.push_back(head.value(token, dim, tensor_scale));
    return all;
  }

 private:
  // The next `bytes` bytes, little-endian.
  std::uint32_t take(int bytes) {
    std::uint32_t value = 0;
    for (int i = 0; i < bytes; ++i)
      value += std::to_integer<std::uint32_t>(page_[at_++]) << (8 * i);
    return value;
  }

  // The codes of the next word in the order of their depth.
  std::vector<std::uint32_t> take_word(const ElementFormat& format) {
    const int bits = payload_bits(format.number);
    std::uint32_t halves[] = {take(2), take(2)};
    std::vector<std::uint32_t> codes;
    for (int pair = 0; pair < 16 / bits; ++pair)
      for (std::uint32_t& half : halves) {
        codes.push_back(half % (1u << bits));
        half >>= bits;
      }
    return codes;
  }

  void read_key_lines(Side& side) {
    const ElementFormat& format = shape_.format.key;
    const int deep = 32 / payload_bits(format.number);
    for (Tokens tile = 0; tile < shape_.tokens; tile += 16)
      for (int dim = 0; dim < shape_.head_dim; dim += deep)
        for (int row = 0; row < 16; ++row) {
          int d = dim;
          for (const std::uint32_t code : take_word(format)) side.code(tile + row, d++) = code;
        }
  }

  void read_value_lines(Side& side) {
    const ElementFormat& format = shape_.format.value;
    const int deep = 32 / payload_bits(format.number);
    for (int tile = 0; tile < shape_.head_dim; tile += 16)
      for (Tokens token = 0; token < shape_.tokens; token += deep)
        for (int row = 0; row < 16; ++row) {
          Tokens t = token;
          for (const std::uint32_t code : take_word(format)) side.code(t++, tile + row) = code;
        }
  }

  void read_metadata(const ElementFormat& format, Side& side) {
    if (format.scale_bytes == 0) return;
    const Tokens group =
        format.group > 0 ? format.group : (format.per_channel ? shape_.tokens : shape_.head_dim);
    const Tokens outer_step = format.per_channel ? group : 16;
    const Tokens inner_step = format.per_channel ? shape_.head_dim : group;
    for (Tokens token = 0; token < shape_.tokens; token += outer_step)
      for (Tokens dim = 0; dim < shape_.head_dim; dim += inner_step)
        for (const bool zeros : {false, true}) {
          const int bytes = zeros ? format.zero_bytes : format.scale_bytes;
          const auto keep = [&](Tokens t, Tokens d, std::uint32_t stored) {
            if (t < shape_.tokens && d < shape_.head_dim)
              (zeros ? side.zero(t, d) : side.scale(t, d)) = stored;
          };
          if (format.per_channel) {
            for (int d = 0; d < shape_.head_dim; ++d) {
              const std::uint32_t stored = take(bytes);
              for (Tokens t = token; t < token + group; ++t) keep(t, d, stored);
            }
          } else {
            for (Tokens t = token; t < token + 16; ++t) {
              const std::uint32_t stored = take(bytes);
              for (Tokens d = dim; d < dim + group; ++d) keep(t, d, stored);
            }
          }
        }
  }

  PageShape shape_;
  std::span<const std::byte> page_;
  std::size_t at_ = 0, end_ = 0;
  Tokens used_ = 0;
  std::vector<Side> keys_, values_;  // of each head
};

}  // namespace modalkv::reference
