// An engine over a KvCache on real threads, with memory on two host nodes: what was submitted is
// taken down and checked for hazards.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/number.hpp"
#include "offload/forwarding_device.hpp"
#include "runtime/kv_cache.hpp"
#include "tests/offload/devices.hpp"
#include "tests/runtime/small_cache.hpp"
#include "tests/runtime/test_device.hpp"

namespace modalkv {

inline constexpr int kLayers = 3, kQueryHeads = 4, kKvHeads = 2, kHeadDim = 32;
inline constexpr Bytes kKvRow = kKvHeads * kHeadDim * 2, kQueryRow = kQueryHeads * kHeadDim * 2;

inline RuntimeConfig config_of() {
  RuntimeConfig config = small_cache_config();
  config.policy.visual_low = both(int4_token_head());
  config.policy.window_tokens = 0;
  config.partials_bytes = kMiB;
  return config;
}

// Takes down what was submitted.
class Recorder final : public ForwardingDevice {
 public:
  struct Group {
    QueueKind queue{};
    int numa_node = 0;
    std::vector<Op> ops{};
  };

  explicit Recorder(Device& inner) : ForwardingDevice(inner) {}
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override {
    const Submitted submitted = inner_.submit(queue, ops, after);
    const QueueInfo& info = queues()[queue.index];
    if (submitted.status == Status::ok)
      groups.push_back({info.kind, info.numa_node, {ops.begin(), ops.end()}});
    return submitted;
  }

  std::vector<Group> groups{};
};

struct Sizes {
  Bytes device_bytes = 4 * kMiB, host_bytes = 4 * kMiB, tables_bytes = kMiB, host_chunk_bytes = 0;
};

class Engine {
 public:
  explicit Engine(RuntimeConfig config = config_of(), Sizes sizes = {}, DiskTier* disk = nullptr)
      : config_(std::move(config)),
        device_memory_(static_cast<std::size_t>(sizes.device_bytes)),
        tables_(static_cast<std::size_t>(sizes.tables_bytes)),
        rows_(2 * kMiB),
        cache_(recorder_, config_,
               {.device = device_memory_,
                .hosts = {{hosts_[0] =
                               std::vector<std::byte>(static_cast<std::size_t>(sizes.host_bytes)),
                           0},
                          {hosts_[1] =
                               std::vector<std::byte>(static_cast<std::size_t>(sizes.host_bytes)),
                           1}},
                .tables = tables_,
                .host_chunk_bytes = sizes.host_chunk_bytes}) {
    if (disk != nullptr) cache_.use_disk(*disk);
    for (std::size_t host = 0; host < 2; ++host) cache_.grow_host(host, sizes.host_bytes);
    space_ = recorder_
                 .register_space(
                     {SpaceInfo::Kind::device, static_cast<Bytes>(rows_.size()), rows_.data()})
                 .space;
    // Sixteen equidistant numbers, the least and the most in every vector: INT4 holds them exactly.
    auto* element = reinterpret_cast<std::uint16_t*>(rows_.data());
    std::mt19937 random(1);
    for (std::size_t i = 0; i < rows_.size() / 2; ++i)
      element[i] = to_fp16(i % kHeadDim == 0   ? -2.0f
                           : i % kHeadDim == 1 ? 1.75f
                                               : static_cast<float>(random() % 16) / 4 - 2);
  }

  KvCache& cache() { return cache_; }
  Recorder& recorder() { return recorder_; }
  const CheckingDevice& checker() const { return checker_; }
  SequenceId begin(std::vector<Segment> prompt) { return cache_.begin(prompt)->sequence; }

  /// Rows of the engine's memory from `first` on.
  AppendRequest rows(SequenceId sequence, Tokens first, Tokens tokens) const {
    return {sequence,
            tokens,
            {space_, first * kKvRow, tokens * kKvRow},
            {space_, kValues + first * kKvRow, tokens * kKvRow}};
  }
  Status append(std::span<const AppendRequest> batch, int layer,
                std::span<const Ticket> after = {}) {
    return patiently([&] { return cache_.append(batch, layer, after); });
  }
  /// All layers of a sequence's next tokens.
  Status append(SequenceId sequence, Tokens first, Tokens tokens) {
    const AppendRequest request = rows(sequence, first, tokens);
    for (int layer = 0; layer < kLayers; ++layer)
      if (const Status status = append({&request, 1}, layer); status != Status::ok) return status;
    return Status::ok;
  }
  AttendRequest query(SequenceId sequence, Bytes nth = 0) const {
    return {sequence,
            1,
            {space_, kQueries + nth * kQueryRow, kQueryRow},
            {space_, kOutputs + nth * kQueryRow, kQueryRow},
            {space_, kSums + nth * kQueryHeads * 4, kQueryHeads * 4}};
  }
  Status attend(SequenceId sequence, int layer, Bytes nth = 0, bool partial = false) {
    const AttendRequest request = query(sequence, nth);
    Attended attended;
    const Status status = patiently([&] {
      attended = partial ? cache_.attend_partial({&request, 1}, layer)
                         : cache_.attend({&request, 1}, layer);
      return attended.status;
    });
    return status == Status::ok ? cache_.wait(attended.step, 10 * kSecond) : status;
  }
  std::vector<float> output(Bytes nth = 0) const {
    std::vector<float> all;
    for (Bytes i = 0; i < kQueryRow; i += 2) {
      std::uint16_t half;
      std::memcpy(&half, rows_.data() + kOutputs + nth * kQueryRow + i, 2);
      all.push_back(from_fp16(half));
    }
    return all;
  }
  float log_sum_exp(int head, Bytes nth = 0) const {
    float sum;
    std::memcpy(&sum, rows_.data() + kSums + (nth * kQueryHeads + head) * 4, 4);
    return sum;
  }
  /// An element that no format can hold.
  void spoil(Tokens row) {
    const std::uint16_t infinite = to_fp16(std::numeric_limits<float>::infinity());
    std::memcpy(rows_.data() + row * kKvRow, &infinite, 2);
  }
  std::vector<std::byte>& host_memory(std::size_t host) { return hosts_[host]; }
  std::vector<std::byte>& device_memory() { return device_memory_; }
  std::vector<RuntimeEvent> settle() {
    std::vector<RuntimeEvent> events;
    for (int i = 0; i < 5000; ++i) {
      while (const auto event = cache_.poll(kMillisecond)) events.push_back(*event);
      if (cache_.settled()) return events;
    }
    ADD_FAILURE() << "it never comes to rest\n" << cache_.describe();
    return events;
  }

 private:
  static constexpr Bytes kValues = 512 * kKiB, kQueries = kMiB, kOutputs = kMiB + 256 * kKiB,
                         kSums = kMiB + 512 * kKiB;

  template <typename Call>
  Status patiently(Call call) {
    Status status = call();
    for (int i = 0; status == Status::busy && i < 2000; ++i) {
      if (const auto event = cache_.poll(kMillisecond)) unasked_.push_back(*event);
      status = call();
    }
    return status;
  }

  RuntimeConfig config_;
  // They outlive the device, which may still be at work when the test ends.
  std::vector<std::byte> device_memory_, tables_, rows_;
  std::array<std::vector<std::byte>, 2> hosts_{};
  TestDevice world_;
  CheckingDevice checker_{*world_};
  Recorder recorder_{checker_};
  KvCache cache_;
  SpaceId space_{};
  std::vector<RuntimeEvent> unasked_;
};

/// What attention comes to in each layer.
inline std::vector<std::vector<float>> outputs(Engine& engine, SequenceId sequence) {
  std::vector<std::vector<float>> all;
  for (int layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(engine.attend(sequence, layer), Status::ok);
    all.push_back(engine.output());
  }
  return all;
}

/// Merged in another order it may round otherwise.
inline void expect_same(const std::vector<std::vector<float>>& a,
                        const std::vector<std::vector<float>>& b) {
  for (std::size_t layer = 0; layer < a.size(); ++layer)
    for (std::size_t i = 0; i < a[layer].size(); ++i)
      ASSERT_NEAR(a[layer][i], b[layer][i], 5e-3) << "layer " << layer << ", " << i;
}

}  // namespace modalkv
