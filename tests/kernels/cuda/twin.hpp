// One space of memory twice: operations are performed on one by perform() (kernels/effects.hpp),
// launched on the other on the emulated GPU, and all bytes of the two must be the same afterwards,
// those between what operations touch included.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <new>
#include <span>
#include <vector>

#include "kernels/cuda/gpu_launch.hpp"
#include "kernels/effects.hpp"
#include "kernels/simt/launch.hpp"

namespace modalkv {

/// Memory aligned as a GPU's allocations are.
class Slab {
 public:
  explicit Slab(std::size_t bytes)
      : bytes_(bytes), data_(new (std::align_val_t{256}) std::byte[bytes]) {
    std::memset(data_, 0xa5, bytes);
  }
  Slab(const Slab& other) : Slab(other.bytes_) { std::memcpy(data_, other.data_, bytes_); }
  Slab& operator=(const Slab&) = delete;
  ~Slab() { ::operator delete[](data_, std::align_val_t{256}); }

  std::byte* data() const { return data_; }
  std::span<std::byte> bytes() const { return {data_, bytes_}; }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

class Twin {
 public:
  explicit Twin(std::size_t bytes = 1 << 20) : host_(bytes) {}

  /// `shift`: bytes by which it misses the alignment of 64.
  template <typename T>
  Address put(const std::vector<T>& values, Bytes shift = 0) {
    const Address at = room(static_cast<Bytes>(values.size() * sizeof(T)), shift);
    std::memcpy(host_.data() + at.offset, values.data(), values.size() * sizeof(T));
    return at;
  }
  Address room(Bytes bytes, Bytes shift = 0) {
    const Address at{{0}, used_ + shift, bytes};
    used_ = round_up(used_ + shift + bytes, 64) + 64;
    EXPECT_LE(used_, static_cast<Bytes>(host_.bytes().size()));
    return at;
  }
  std::byte* at(const Address& address) { return host_.data() + address.offset; }

  struct Options {
    std::uint64_t seed = 0;
    unsigned workers = 1;
    std::size_t scratch_bytes = 64 << 10;
    int multiprocessors = 3;
  };
  /// What both end in. Where that is not ok, what the operations write is left out of the
  /// comparison, and this memory stays as it was.
  Status run(std::span<const Op> ops, const Options& options) {
    const Slab before = host_;
    const Slab gpu = host_;
    std::byte* host_spaces[] = {host_.data()};
    Status expected = Status::ok;
    for (const Op& op : ops)
      if (expected == Status::ok) expected = perform(op, host_spaces);
    EXPECT_EQ(launch(ops, gpu, options), expected);
    if (expected != Status::ok) {
      for (const Op& op : ops)
        for (const Access& access : accesses(op))
          if (access.writes) {
            const auto bytes = static_cast<std::size_t>(access.where.bytes);
            std::memcpy(at(access.where), before.data() + access.where.offset, bytes);
            std::memcpy(gpu.data() + access.where.offset, before.data() + access.where.offset,
                        bytes);
          }
    }
    expect_same(gpu);
    return expected;
  }
  Status run(const Op& op, const Options& options) { return run(std::span(&op, 1), options); }
  Status run(const Op& op) { return run(op, Options{}); }

  Slab copy() const { return host_; }
  void expect_same(const Slab& gpu) const {
    const auto used = static_cast<std::size_t>(used_);
    if (std::memcmp(host_.data(), gpu.data(), used) == 0) return;
    std::size_t first = 0;
    while (host_.data()[first] == gpu.data()[first]) ++first;
    ADD_FAILURE() << "byte " << first << " is " << static_cast<int>(gpu.data()[first])
                  << " on the GPU and " << static_cast<int>(host_.data()[first]) << " on the host";
  }

 private:
  static Status launch(std::span<const Op> ops, const Slab& memory, const Options& options) {
    const simt::Emulation emulation({.seed = options.seed, .workers = options.workers});
    const Slab scratch(options.scratch_bytes);
    std::byte* spaces[] = {memory.data()};
    std::uint32_t status = 0;
    const GpuLaunch launch{nullptr, &status, scratch.bytes(), options.multiprocessors};
    EXPECT_EQ(emulated_gpu::launch(ops, spaces, launch), 0);
    return static_cast<Status>(status);
  }

  Slab host_;
  Bytes used_ = 64;
};

}  // namespace modalkv
