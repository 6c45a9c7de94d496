// What a step costs the engine's thread: appending a token and attending, a layer, on a device that
// does nothing. Every sequence holds 16 K image tokens in 257 blocks, resident or streamed.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <deque>
#include <vector>

#include "offload/host_device.hpp"
#include "runtime/kv_cache.hpp"

namespace modalkv {
namespace {

class NullDevice final : public Device {
 public:
  std::span<const QueueInfo> queues() const override { return infos_; }
  RegisteredSpace register_space(const SpaceInfo&) override { return {Status::ok, {spaces_++}}; }
  Submitted submit(QueueId, std::span<const Op>, std::span<const Ticket>) override {
    done_.push_back({{++last_}, Status::ok, 0});
    return {Status::ok, {last_}};
  }
  std::optional<Completion> next_completion(Nanos) override {
    if (done_.empty()) return {};
    const Completion completion = done_.front();
    done_.pop_front();
    return completion;
  }
  Nanos now() const override { return 0; }
  Submitted import_event(EngineEvent) override { return {Status::unsupported, {}}; }
  Status export_event(Ticket, EngineEvent) override { return Status::unsupported; }

 private:
  std::vector<QueueInfo> infos_ = standard_queues(1);
  std::uint16_t spaces_ = 0;
  std::uint64_t last_ = 0;
  std::deque<Completion> done_;
};

// Addresses without memory: nothing touches them.
std::span<std::byte> nowhere(Bytes bytes) {
  void* at = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_NONE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return {static_cast<std::byte*>(at), static_cast<std::size_t>(bytes)};
}

constexpr int kLayers = 32;

void step(benchmark::State& state) {
  const auto batch = static_cast<int>(state.range(0));
  const bool streamed = state.range(1) != 0;
  RuntimeConfig config;
  config.layers = kLayers;
  config.query_heads = config.kv_heads = 8;
  config.policy.selection = Selection::text_centric;
  config.policy.visual_low = both(int4_token_head());
  config.policy.places.streamed = true;
  config.staging_slots = 4;
  config.staging_slot_bytes = kGiB;
  config.partials_bytes = 256 * kMiB;
  NullDevice device;
  std::vector<std::byte> tables(static_cast<std::size_t>(64 * kMiB));
  const std::span device_memory = nowhere(256 * kGiB), host_memory = nowhere(256 * kGiB);
  KvCache cache(device, config,
                {.device = device_memory, .hosts = {{host_memory}}, .tables = tables});
  cache.grow_host(0, 256 * kGiB);
  Placement placement;
  for (Shares& shares : placement.shares)
    shares[static_cast<std::size_t>(streamed ? Action::streamed_low : Action::resident_low)] = 1;
  cache.set_placement(placement);
  const auto rows = [](Tokens tokens) { return Address{{0}, 0, tokens * 8 * 128 * 2}; };
  std::vector<AttendRequest> requests;
  const Segment prompt[] = {{TokenClass::image, 16'384}, {TokenClass::text, 16}};
  for (int i = 0; i < batch; ++i) {
    requests.push_back({*cache.begin(prompt), 1, rows(1), rows(1)});
    for (int layer = 0; layer < kLayers; ++layer)
      if (const AppendRequest request{requests.back().sequence, 16'400, rows(16'400), rows(16'400)};
          cache.append({&request, 1}, layer) != Status::ok)
        return state.SkipWithError("the prompt does not fit");
    while (cache.poll(0)) {
    }
  }
  std::vector<AppendRequest> appends;
  for (const AttendRequest& request : requests)
    appends.push_back({request.sequence, 1, rows(1), rows(1)});
  int layer = 0;
  for (auto _ : state) {
    if (cache.append(appends, layer) != Status::ok) return state.SkipWithError("no room to append");
    const Attended attended = cache.attend(requests, layer);
    if (attended.status != Status::ok) return state.SkipWithError("no room to attend");
    benchmark::DoNotOptimize(cache.wait(attended.step, 0));
    layer = (layer + 1) % kLayers;
  }
  state.SetLabel(cache.counters().streamed_bytes > 0 ? "streamed" : "resident");
  munmap(device_memory.data(), device_memory.size());
  munmap(host_memory.data(), host_memory.size());
}
BENCHMARK(step)->ArgsProduct({{1, 32}, {0, 1}})->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace modalkv

BENCHMARK_MAIN();
