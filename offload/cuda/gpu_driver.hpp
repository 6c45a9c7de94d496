// What CudaDevice needs of a GPU and its driver, and no type of CUDA: a few calls, so that tests
// put an emulated GPU behind them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/effects.hpp"
#include "modalkv/op.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

/// Of a call. The driver keeps no error: what failed is told here, once.
enum class [[nodiscard]] GpuResult : std::uint8_t{
    ok,
    failed,  ///< what was asked for is not done, or not all of it; the GPU goes on
    lost,    ///< the GPU or its context cannot be used any more, by no call
};

using GpuStream = void*;  ///< a cudaStream_t, also one of the engine
using GpuEvent = void*;
using GpuGraph = void*;
/// In pinned memory: host and GPU see each other's values. Never goes back.
using GpuWord = std::atomic<std::uint64_t>;

struct GpuCopy {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  std::size_t bytes = 0;
};

/// Which processors can touch memory.
struct GpuReach {
  bool gpu = false;
  bool host = false;
};

/// One GPU. Addresses are unified: a pointer means the same bytes to the host and the GPU, where
/// they can touch them. What is made lives as long as the driver. Set-up calls throw Error; no call
/// waits for the GPU. Calls on streams come from one thread at a time, register_host and
/// unregister_host from any.
class GpuDriver {
 public:
  virtual ~GpuDriver() = default;

  // Set-up.
  virtual GpuStream make_stream(bool high_priority) = 0;
  virtual GpuEvent make_event() = 0;
  /// Zeros, pinned, aligned to 4,096 bytes.
  virtual std::span<std::byte> make_pinned(Bytes bytes) = 0;
  /// Of the GPU, aligned to 4,096 bytes.
  virtual std::span<std::byte> make_device_memory(Bytes bytes) = 0;

  // Memory of others.
  /// Empty: pinned, and the GPU can touch it until `unregister_host` of the same bytes. Else one
  /// line why not.
  [[nodiscard]] virtual std::string register_host(std::span<std::byte> memory) = 0;
  virtual void unregister_host(std::span<std::byte> memory) = 0;
  virtual GpuReach reach(const std::byte* memory) = 0;
  /// Whether copy() from host memory to host memory waits for nothing either. CUDA's does not
  /// return before it is done: after all that the stream waits for.
  virtual bool copies_within_host() const = 0;

  // In the order of a stream, after all that it was given before.
  virtual GpuResult record(GpuEvent event, GpuStream stream) = 0;
  /// For the latest record() of the event; there must have been one.
  virtual GpuResult wait_event(GpuStream stream, GpuEvent event) = 0;
  /// All memory that the stream has written is seen by who sees the value.
  virtual GpuResult write_word(GpuStream stream, GpuWord& word, std::uint64_t value) = 0;
  /// As write_word(), where others raise the word too: it never goes back.
  virtual GpuResult raise_word(GpuStream stream, GpuWord& word, std::uint64_t value) = 0;
  /// Until the word is at least `value`.
  virtual GpuResult wait_word(GpuStream stream, GpuWord& word, std::uint64_t value) = 0;
  /// The copies of one call are in no order among each other.
  virtual GpuResult copy(GpuStream stream, std::span<const GpuCopy> copies) = 0;
  /// As modalkv::gpu::launch (kernels/cuda/gpu_launch.hpp), on a stream that was made here.
  virtual GpuResult launch(GpuStream stream, std::span<const Op> ops, SpaceMemory memory,
                           std::uint32_t* status) = 0;

  // The copies and launches that a stream is given between these become a graph instead, to be run
  // any number of times; what the stream holds already goes on.
  virtual GpuResult begin_capture(GpuStream stream) = 0;
  /// After begin_capture() was ok, also where a call in between was not: only then does the stream
  /// run what it is given again. Set-up, but throws nothing.
  virtual GpuResult end_capture(GpuStream stream, GpuGraph& graph) = 0;
  /// On the stream that it was captured on, whose scratch it uses.
  virtual GpuResult replay(GpuGraph graph, GpuStream stream) = 0;

  /// Finds out what has gone wrong on the GPU since.
  virtual GpuResult check() = 0;
  /// One line: the latest failure; empty where there was none.
  virtual std::string last_error() const = 0;
  /// The GPU is stuck or lost: nothing is freed or waited for any more, as that could take for
  /// ever.
  virtual void abandon() = 0;

 protected:
  GpuDriver() = default;
  GpuDriver(const GpuDriver&) = default;
  GpuDriver& operator=(const GpuDriver&) = default;
};

}  // namespace modalkv
