#include "kernels/encode_targets.hpp"

#include <cstddef>

#include "kernels/processor.hpp"

namespace modalkv {
namespace {

// Those of the table that run here; each runs where the one before it does.
std::span<const EncodeTarget* const> find_targets() {
  static constexpr const EncodeTarget* kAll[] = {
#if defined(__x86_64__)
    &kAvx512Target,
    &kAvx2Target,
#endif
    &kPortableTarget
  };
  std::size_t first = 0;
#if defined(__x86_64__)
  if (!has_avx512()) first = has_avx2() ? 1 : 2;
#endif
  return std::span(kAll).subspan(first);
}

}  // namespace

std::span<const EncodeTarget* const> encode_targets() {
  static const std::span<const EncodeTarget* const> found = find_targets();
  return found;
}

}  // namespace modalkv
