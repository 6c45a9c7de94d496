// The facade: a device, its memory, and the KV cache on it.
#include "modalkv/runtime.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "modalkv/page.hpp"
#include "offload/host_device.hpp"
#include "offload/host_pools.hpp"
#include "runtime/kv_cache.hpp"
#include "scheduler/batch_demand.hpp"
#include "scheduler/planner.hpp"

namespace modalkv {
namespace {

// Memory of the process that stands in for a device's, and for tables.
class Slab {
 public:
  explicit Slab(Bytes bytes) : size_(static_cast<std::size_t>(bytes)) {
    if (bytes < 1) throw Error(fmt::format("runtime: {} bytes of memory make no sense", bytes));
    memory_ = static_cast<std::byte*>(::operator new(size_, kAlignment, std::nothrow));
    if (memory_ == nullptr)
      throw Error(fmt::format("runtime: {} bytes of memory cannot be had", bytes));
  }
  ~Slab() { ::operator delete(memory_, kAlignment); }
  Slab(Slab&&) = delete;

  std::span<std::byte> bytes() const { return {memory_, size_}; }

 private:
  static constexpr std::align_val_t kAlignment{4096};

  std::size_t size_;
  std::byte* memory_ = nullptr;
};

// The nearest node with room; without a GPU all are equally near.
HostPoolShare home(const Topology& topology, Bytes bytes) {
  const auto homes = homes_by_distance(topology, "");
  if (homes.empty()) throw Error("runtime: no memory node of this machine can hold a pool");
  return {homes.front(), bytes};
}

int attention_threads(const RuntimeConfig& config, const TopologyNode& node) {
  const auto cores = static_cast<int>(node.cores.size());
  return config.attention_threads > 0 ? config.attention_threads : std::max(cores, 1);
}

constexpr Nanos kFirstChunkNanos = 2 * kSecond;

}  // namespace

class Runtime::Impl {
 public:
  explicit Impl(const RuntimeConfig& config)
      : config_(config),
        topology_(read_topology()),
        home_(home(topology_, config.host_bytes)),
        pools_(std::span(&home_, 1),
               {.bytes = config.host_bytes,
                .chunk_bytes = std::clamp(round_up(config.host_bytes, kMiB), kMiB, 64 * kMiB),
                .headroom_bytes = 256 * kMiB},
               host_memory_, pinner_),
        device_memory_(config.device_bytes),
        tables_(config.tables_bytes),
        device_(standard_queues(1, attention_threads(config, *home_.node))),
        cache_(device_, config,
               {device_memory_.bytes(),
                {pools_[0].memory(), static_cast<std::size_t>(pools_[0].reserved_bytes())},
                tables_.bytes()}) {
    pools_.wait_usable(0, 1, kFirstChunkNanos);
    grow();
  }

  KvCache& cache() {
    grow();
    return cache_;
  }
  const KvCache& cache() const { return cache_; }

  void register_memory(std::span<std::byte> memory) {
    const RegisteredSpace registered = device_.register_space(
        {SpaceInfo::Kind::device, static_cast<Bytes>(memory.size()), memory.data()});
    if (registered.status != Status::ok)
      throw Error(fmt::format("runtime: {} bytes of engine memory cannot be registered: {}",
                              memory.size(), name(registered.status)));
    engine_.push_back({registered.space, memory});
  }

  Address address(const void* begin, Bytes bytes) const {
    const auto* at = static_cast<const std::byte*>(begin);
    for (const auto& [space, memory] : engine_)
      if (at >= memory.data() && bytes >= 0 && bytes <= memory.data() + memory.size() - at)
        return {space, at - memory.data(), bytes};
    throw Error(fmt::format("runtime: {} bytes at {} are in no registered memory", bytes, begin));
  }

  std::optional<Plan> replan(const ModelGeometry& model, const HardwareProfile& hardware) {
    const CostModel cost(model, hardware);
    const BatchDemand demand(model, config_.policy, cost, 1);
    const auto [text, visual] = cache_.held_tokens();
    const PermissionCounts counts = count_permissions(config_.policy, text, visual);
    StepProblem problem =
        demand.problem({counts.high_only, counts.text_low, counts.visual_low, text + visual});
    const Tokens sequences = cache_.awake_sequences();
    problem.compute = cost.compute({.decode_tokens = sequences, .sampled_tokens = sequences});
    problem.device_budget_bytes = cache_.device_page_bytes();
    problem.host_budget_bytes = pools_[0].usable_bytes();
    const auto placement = plan_placement(problem);
    if (!placement) return {};
    cache_.set_placement(*placement);
    return describe_plan(problem, *placement);
  }

  std::string describe() const {
    const auto token_bytes = [&](Tokens page_tokens, const KvFormat& format) {
      return config_.layers *
             page_bytes({page_tokens, config_.kv_heads, config_.head_dim, format}) / page_tokens;
    };
    const auto capacity = [&](const char* what, Bytes bytes) {
      return fmt::format("a token {}: {} bytes; the device holds {}, the host {}\n", what, bytes,
                         cache_.device_page_bytes() / bytes, pools_[0].usable_bytes() / bytes);
    };
    const PrecisionPolicy& policy = config_.policy;
    std::string text = capacity("in 16 bits", token_bytes(config_.own_page_tokens, policy.high));
    if (policy.text_low)
      text +=
          capacity("of text, compressed", token_bytes(config_.own_page_tokens, *policy.text_low));
    if (policy.visual_low)
      text += capacity("of an image, compressed",
                       token_bytes(config_.visual_page_tokens, *policy.visual_low));
    return text + pools_.describe() + "\n" + cache_.describe();
  }

 private:
  struct EngineMemory {
    SpaceId space;
    std::span<std::byte> memory;
  };

  void grow() { cache_.grow_host(pools_[0].usable_bytes()); }

  RuntimeConfig config_;
  Topology topology_;
  HostPoolShare home_;
  HostMemory host_memory_;
  MlockPinner pinner_;
  HostPools pools_;
  Slab device_memory_, tables_;
  HostDevice device_;
  KvCache cache_;
  std::vector<EngineMemory> engine_;
};

Runtime::Runtime(const RuntimeConfig& config) : impl_(std::make_unique<Impl>(config)) {}
Runtime::Runtime(Runtime&&) noexcept = default;
Runtime::~Runtime() = default;

void Runtime::register_memory(std::span<std::byte> memory) {
  impl_->register_memory(memory);
}
Address Runtime::address(const void* begin, Bytes bytes) const {
  return std::as_const(*impl_).address(begin, bytes);
}
std::optional<SequenceId> Runtime::begin(std::span<const Segment> prompt) {
  return impl_->cache().begin(prompt);
}
Status Runtime::append(const AppendRequest& request) {
  return impl_->cache().append(request);
}
Attended Runtime::attend(std::span<const AttendRequest> batch, int layer) {
  return impl_->cache().attend(batch, layer);
}
Status Runtime::pause(SequenceId sequence) {
  return impl_->cache().pause(sequence);
}
Status Runtime::resume(SequenceId sequence) {
  return impl_->cache().resume(sequence);
}
Forked Runtime::fork(SequenceId sequence) {
  return impl_->cache().fork(sequence);
}
Truncated Runtime::truncate(SequenceId sequence, Tokens tokens) {
  return impl_->cache().truncate(sequence, tokens);
}
Status Runtime::release(SequenceId sequence) {
  return impl_->cache().release(sequence);
}
std::optional<RuntimeEvent> Runtime::poll(Nanos timeout_ns) {
  return impl_->cache().poll(timeout_ns);
}
Status Runtime::wait(std::uint64_t step, Nanos timeout_ns) {
  return impl_->cache().wait(step, timeout_ns);
}
std::optional<Plan> Runtime::replan(const ModelGeometry& model, const HardwareProfile& hardware) {
  return impl_->replan(model, hardware);
}
Tokens Runtime::tokens(SequenceId sequence, int layer) const {
  return std::as_const(*impl_).cache().tokens(sequence, layer);
}
const RuntimeCounters& Runtime::counters() const {
  return std::as_const(*impl_).cache().counters();
}
std::string Runtime::describe() const {
  return impl_->describe();
}

}  // namespace modalkv
