// The page encoders, one for each kind of processor, and which of them run here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/page_codec.hpp"

namespace modalkv {

/// What encode_page() is asked for.
struct EncodeRequest {
  PageShape shape{};
  Rows keys, values;
  PageTrailer trailer;
  TensorScales scales;
  KnownBias known;
  std::span<std::byte> page;
};

/// One source (page_encoder.hpp), compiled for several kinds of processors: all make the same
/// bytes. A new kind is one file and one entry of the list in encode_targets.cpp.
struct EncodeTarget {
  std::string_view name;
  /// False where a group could not be encoded.
  bool (*encode)(const EncodeRequest&);
  std::uint64_t (*checksum)(std::span<const std::byte>);
  /// A vector to 16-bit numbers, as kernels/number.hpp rounds; a multiple of 16 elements.
  void (*round_to_fp16)(std::span<const float>, std::uint16_t*);
  void (*round_to_bf16)(std::span<const float>, std::uint16_t*);
};

/// Those that this processor can run, the fastest first and the portable one last.
std::span<const EncodeTarget* const> encode_targets();

/// As encode_page(), by one target.
EncodeResult encode_page(const EncodeTarget& target, const EncodeRequest& request);

extern const EncodeTarget kPortableTarget;
#if defined(__x86_64__)
extern const EncodeTarget kAvx2Target, kAvx512Target;
#endif

}  // namespace modalkv
