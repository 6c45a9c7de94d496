// One space of an emulated GPU, with red zones between what lies in it.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/cuda/gpu_launch.hpp"

namespace modalkv {

class GpuMemory {
 public:
  explicit GpuMemory(Bytes bytes = Bytes{8} << 20)
      : bytes_(static_cast<std::size_t>(bytes + kAlignment), kRed) {}

  /// Room aligned to `alignment` and no better, after a red zone; filled with what no kernel makes.
  Address room(Bytes bytes, Bytes alignment = kAlignment) {
    if (bytes == 0) return {};
    const Bytes begin =
        round_up(used_ + kRedZone, 2 * alignment) + (alignment < kAlignment ? alignment : 0);
    used_ = begin + bytes;
    EXPECT_LE(used_ + kRedZone, static_cast<Bytes>(bytes_.size()) - kAlignment) << "space is full";
    taken_.push_back({{}, begin, bytes});
    std::memset(at(taken_.back()), 0x7f, static_cast<std::size_t>(bytes));
    return taken_.back();
  }

  template <typename T>
  Address put(std::span<const T> elements, Bytes alignment = kAlignment) {
    const Address address = room(static_cast<Bytes>(elements.size_bytes()), alignment);
    if (!elements.empty()) std::memcpy(at(address), elements.data(), elements.size_bytes());
    return address;
  }
  template <typename T>
  Address put(const std::vector<T>& elements, Bytes alignment = kAlignment) {
    return put(std::span<const T>(elements), alignment);
  }

  std::byte* at(const Address& address) { return begin() + address.offset; }
  template <typename T>
  std::vector<T> read(const Address& address) {
    std::vector<T> elements(static_cast<std::size_t>(address.bytes) / sizeof(T));
    if (!elements.empty()) std::memcpy(elements.data(), at(address), elements.size() * sizeof(T));
    return elements;
  }

  /// Nothing has written between what lies here.
  void expect_whole_red_zones() {
    Bytes from = 0;
    for (std::size_t i = 0; i <= taken_.size(); ++i) {
      const Bytes to = i < taken_.size() ? taken_[i].offset : used_ + kRedZone;
      for (Bytes b = from; b < to; ++b)
        ASSERT_EQ(begin()[b], kRed) << "byte " << b << " of a red zone";
      if (i < taken_.size()) from = to + taken_[i].bytes;
    }
  }

  std::vector<std::byte*> spaces() { return {begin()}; }

 private:
  static constexpr Bytes kAlignment = 256, kRedZone = 192;
  static constexpr std::byte kRed{0xa5};

  std::byte* begin() {
    return bytes_.data() + round_up(reinterpret_cast<std::intptr_t>(bytes_.data()), kAlignment) -
           reinterpret_cast<std::intptr_t>(bytes_.data());
  }

  std::vector<std::byte> bytes_;
  std::vector<Address> taken_;
  Bytes used_ = 0;
};

}  // namespace modalkv
