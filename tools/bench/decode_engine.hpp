// An engine that does nothing but attend: sequences of images whose KV lies where the shares say,
// on a device of real threads whose link is slower than its memory.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "offload/host_device.hpp"
#include "runtime/kv_cache.hpp"
#include "tools/bench/huge_buffer.hpp"
#include "tools/bench/patient_engine.hpp"
#include "tools/bench/recording_device.hpp"

namespace modalkv {

/// Of the model and of the batch.
struct DecodeShape {
  int layers = 8;
  int batch = 4;
  int heads = 8;  ///< of queries and of KV
  int head_dim = 128;
  Tokens tokens = 4096;  ///< of an image, of each sequence
  KvFormat format{};
  int host_threads = 1;  ///< that attend on the host
  int staging_slots = 2;
  std::uint64_t seed = 1;
};

/// Of the image tokens; they add up to 1.
struct PlaceShares {
  double resident = 0, streamed = 1, cpu = 0;
};

class DecodeEngine {
 public:
  /// Throws Error where the KV does not fit.
  DecodeEngine(const DecodeShape& shape, const PlaceShares& shares, double link_bytes_per_s);

  /// All sequences are as long again as their prompts: every step after so many has the same work.
  void rewind();
  /// A token for each sequence, in all layers, each layer begun when the one before it has ended;
  /// from the first call to the last outcome. Throws Error where it fails.
  Nanos step();
  /// What a step submits, with nothing left in flight.
  std::vector<RecordedGroup> record_step();

  HostDevice& device() { return host_device_; }
  /// Of the latest step, 16-bit numbers [batch, heads, head_dim] of the last layer.
  std::span<const std::uint16_t> outputs() const { return outputs_; }
  const RuntimeCounters& counters() const { return cache_.counters(); }

 private:
  RuntimeConfig config(const PlaceShares& shares) const;
  void fill(SequenceId sequence);

  DecodeShape shape_;
  HugeBuffer device_memory_, host_memory_, tables_;
  std::vector<std::uint16_t> rows_, outputs_;  // rows: of keys, values and queries
  std::atomic<std::uint64_t> layers_done_{0};
  HostDevice host_device_;
  RecordingDevice device_;
  KvCache cache_;
  PatientEngine calls_;
  Address rows_at_{}, outputs_at_{};
  std::vector<AppendRequest> appends_;
  std::vector<AttendRequest> attends_;
  std::uint64_t layers_begun_ = 0;
  std::int64_t chunks_ = 0;  // given so far
};

}  // namespace modalkv
