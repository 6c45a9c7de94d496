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
/// bytes. A new kind is one file and one entry of the table in encode_targets.cpp.
struct EncodeTarget {
  std::string_view name;
  /// False where a group could not be encoded.
  bool (*encode)(const EncodeRequest&);
  std::uint64_t (*checksum)(std::span<const std::byte>);
  bool (*runs_here)();
};

/// Those that this processor can run, the fastest first and the portable one last.
std::span<const EncodeTarget> encode_targets();

/// As encode_page(), by one target.
EncodeResult encode_page(const EncodeTarget& target, const EncodeRequest& request);

bool encode_portable(const EncodeRequest& request);
std::uint64_t checksum_portable(std::span<const std::byte> bytes);
#if defined(__x86_64__)
bool encode_avx2(const EncodeRequest& request);
std::uint64_t checksum_avx2(std::span<const std::byte> bytes);
bool encode_avx512(const EncodeRequest& request);
std::uint64_t checksum_avx512(std::span<const std::byte> bytes);
#endif

}  // namespace modalkv
