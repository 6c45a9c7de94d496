// Decoding one side of one head by a warp: what head_encoder.hpp does, backwards.
#pragma once

#include <algorithm>

#include "kernels/cuda/lane_tile.hpp"
#include "kernels/quantizer.hpp"

namespace modalkv::MODALKV_GPU {

template <int bits, bool in_values, bool wide>
class HeadDecoder {
 public:
  using Lane = TileLane<wide>;

  __device__ HeadDecoder(const PageBatch& batch, const DevicePage& page, int head)
      : batch_(batch),
        page_(page),
        places_(batch.shape, batch.layout, head),
        head_(head),
        dims_(batch.shape.head_dim) {}

  /// The elements of a pass of the tile from `begin` on.
  __device__ void load(Tokens begin, int pass) {
    constexpr int of_a_word = std::min(32 / bits, kOctet);  // elements of this lane
    const Tokens token = begin + at_.first_token(pass);
    const int channel = at_.first_channel();
    const bool mine = channel < dims_;
    // Two octets share a word of 2-bit codes.
    const int depth_at = in_values ? static_cast<int>(token) : channel;
    const int lowest = bits == 2 ? depth_at / kOctet % 2 * 8 : 0;
    SIMT_UNROLL
    for (int depth = 0; depth < kOctet; depth += of_a_word) {
      const Bytes word = places_.word(static_cast<int>(token) + (in_values ? depth : 0),
                                      mine ? channel + (in_values ? 0 : depth) : 0);
      const auto* line = reinterpret_cast<const uint4*>(page_.page + word);  // of eight rows
      const uint4 low = line[0], high = line[1];
      const std::uint32_t words[kOctet] = {low.x,  low.y,  low.z,  low.w,
                                           high.x, high.y, high.z, high.w};
      SIMT_UNROLL
      for (int row = 0; row < kOctet; ++row) {
        SIMT_UNROLL
        for (int e = 0; e < of_a_word; ++e) {
          const int bit = lowest + 16 * (e % 2) + bits * (e / 2);
          const int t = in_values ? depth + e : row, c = in_values ? row : depth + e;
          values_[t][c] = level(words[row] >> bit & ((1u << bits) - 1));
        }
      }
    }
    if constexpr (bits < 16) scale(static_cast<int>(token), mine ? channel : 0);
  }

  /// `turns`: of the lane's first token.
  __device__ void undo_transform(const float2* turns) {
    if (batch_.shape.format.key_rotation > 0)
      rotate_rows(values_, batch_.shape.format.key_rotation);
    if (batch_.bias.elements != nullptr)
      add_bias(values_, batch_.bias.elements + head_ * dims_, dims_, turns, 1.0f,
               at_.first_channel());
  }

  /// To the rows of the tokens in use.
  __device__ void store(Tokens begin, int pass) const {
    if (at_.first_channel() >= dims_) return;
    std::uint16_t* rows = in_values ? page_.values : page_.keys;
    const std::int64_t stride = std::int64_t{batch_.shape.kv_heads} * dims_;
    const bool bf16 = batch_.number == NumberFormat::bf16;
    SIMT_UNROLL
    for (int t = 0; t < kOctet; ++t) {
      const Tokens token = begin + at_.first_token(pass) + t;
      if (token >= page_.tokens) break;
      std::uint32_t words[4];
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i)
        words[i] = bf16 ? simt::pack_bf16x2(values_[t][2 * i], values_[t][2 * i + 1])
                        : simt::pack_f16x2(values_[t][2 * i], values_[t][2 * i + 1]);
      store_octet(rows + token * stride + std::int64_t{head_} * dims_ + at_.first_channel(),
                  make_uint4(words[0], words[1], words[2], words[3]), page_.aligned);
    }
  }

  __device__ int first_token(int pass) const { return at_.first_token(pass); }

 private:
  __device__ float level(std::uint32_t code) const {
    if constexpr (bits == 16)
      return places_.format.number == NumberFormat::bf16 ? simt::low_bf16(code)
                                                         : simt::low_f16(code);
    if constexpr (bits == 8)
      if (places_.format.number == NumberFormat::fp8_e4m3)
        return from_e4m3(static_cast<std::uint8_t>(code));
    if constexpr (bits == 4)
      if (places_.format.number != NumberFormat::int4)
        return from_e2m1(static_cast<std::uint8_t>(code));
    return static_cast<float>(static_cast<std::int32_t>(code));
  }

  // Each token has a scale and a zero in this lane, or each channel.
  __device__ void scale(int token, int channel) {
    const ElementFormat& format = places_.format;
    const bool per_channel = format.per_channel;
    const std::byte* scales = page_.page + places_.scale_row(token, channel);
    const std::byte* zeros = scales + places_.scales_of_row() * format.scale_bytes;
    const int first = per_channel ? channel : token % kLineRows;
    const float tensor_scale = in_values ? batch_.value_scale : batch_.key_scale;
    SIMT_UNROLL
    for (int i = 0; i < kOctet; ++i) {
      const GroupScale group = stored_scale(
          format, get(scales + (first + i) * format.scale_bytes, format.scale_bytes),
          get(zeros + (first + i) * format.zero_bytes, format.zero_bytes), tensor_scale);
      SIMT_UNROLL
      for (int k = 0; k < kOctet; ++k) {
        if (per_channel)
          values_[k][i] = values_[k][i] * group.scale + group.zero;
        else
          values_[i][k] = values_[i][k] * group.scale + group.zero;
      }
    }
  }

  __device__ static std::uint16_t get(const std::byte* from, int bytes) {
    if (bytes == 0) return 0;
    return bytes == 2 ? *reinterpret_cast<const std::uint16_t*>(from)
                      : static_cast<std::uint16_t>(*from);
  }

  const PageBatch& batch_;
  const DevicePage& page_;
  const SidePlaces<bits, in_values> places_;
  const int head_, dims_;
  Lane at_;
  LaneValues values_;
};

}  // namespace modalkv::MODALKV_GPU
