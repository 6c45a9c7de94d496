// The facade: a device, its memory, and the KV cache on it.
#include "modalkv/runtime.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "modalkv/page.hpp"
#include "offload/cuda/cuda_driver.hpp"
#include "offload/gpu_probe.hpp"
#include "offload/host_pools.hpp"
#include "offload/tracing_device.hpp"
#include "runtime/admin_server.hpp"
#include "runtime/backend.hpp"
#include "runtime/kv_cache.hpp"
#include "runtime/kv_owner.hpp"
#include "runtime/metrics.hpp"
#include "runtime/step_watch.hpp"

namespace modalkv {
namespace {

// Sizes with which no arithmetic overflows, and which no machine of ours exceeds.
const RuntimeConfig& within_reason(const RuntimeConfig& config) {
  constexpr Bytes kMostBytes = Bytes{1} << 46;
  constexpr int kMostLayers = 4096, kMostQueryHeads = 65536, kMostThreads = 4096;
  const auto refuse = [](std::int64_t value, std::int64_t most, const char* what) {
    if (value > most)
      throw Error(fmt::format("runtime: {} {}, expected {} at most", value, what, most));
  };
  for (const Bytes bytes : {config.device_bytes, config.host_bytes, config.tables_bytes,
                            config.staging_slot_bytes, config.partials_bytes, config.disk_bytes})
    refuse(bytes, kMostBytes, "bytes of memory");
  refuse(config.layers, kMostLayers, "layers");
  refuse(config.query_heads, kMostQueryHeads, "query heads");
  refuse(config.staging_slots, kMostLayers, "staging slots");
  refuse(config.attention_threads, kMostThreads, "threads for attention");
  return config;
}

// Nobody waits for longer.
Nanos within_a_day(Nanos timeout_ns) {
  return std::clamp(timeout_ns, Nanos{0}, 86400 * kSecond);
}

constexpr Bytes kHeadroomBytes = 256 * kMiB;

std::unique_ptr<GpuDriver> open_gpu(const RuntimeConfig& config) {
  if (!config.gpu) return nullptr;
  return open_cuda_driver({.gpu = *config.gpu});
}

// Where the GPU hangs; empty without one.
std::string pci_bus_id(const RuntimeConfig& config) {
  if (!config.gpu) return {};
  const GpuProbe probe = probe_gpus();
  const auto gpu = static_cast<std::size_t>(*config.gpu);
  return gpu < probe.gpus.size() ? probe.gpus[gpu].pci_bus_id : "";
}

// The nearest nodes with room or, where their cores attend, all of them; without a GPU all are
// equally near.
std::vector<HostPoolShare> homes(const Topology& topology, const RuntimeConfig& config) {
  const Bytes bytes = config.host_bytes;
  const auto nodes = homes_by_distance(topology, pci_bus_id(config));
  if (nodes.empty()) throw Error("runtime: no memory node of this machine can hold a pool");
  auto shares = config.policy.places.cpu ? spread_evenly(nodes, bytes, kHeadroomBytes)
                                         : fill_in_order(nodes, bytes, kHeadroomBytes);
  // The pool itself says what it lacks.
  if (shares.empty()) shares.push_back({nodes.front(), bytes});
  return shares;
}

// Copies, the "GPU", and a queue for the cores of each node with a pool.
std::vector<QueueInfo> queues_of(const RuntimeConfig& config,
                                 std::span<const HostPoolShare> homes) {
  std::vector<QueueInfo> queues = standard_queues(0);
  for (const HostPoolShare& home : homes) {
    const std::vector<int>& cores = home.node->cores;
    const auto wanted = static_cast<std::size_t>(
        config.attention_threads > 0 ? config.attention_threads : static_cast<int>(cores.size()));
    QueueInfo info{.kind = QueueKind::host, .numa_node = home.node->index};
    info.threads = static_cast<int>(std::max(wanted, std::size_t{1}));
    if (wanted <= cores.size())
      info.cpus.assign(cores.begin(), cores.begin() + static_cast<std::ptrdiff_t>(wanted));
    queues.push_back(info);
  }
  return queues;
}

constexpr Nanos kFirstChunkNanos = 2 * kSecond;
constexpr std::size_t kTracedGroups = 16'384;

// Of all pools.
std::vector<DegradedMode> degraded_modes(const HostPools& pools, bool has_gpu) {
  DegradedMode unpinned{"host_memory_not_pinned"}, unbound{"host_memory_not_bound_to_its_node"},
      misplaced{"host_memory_on_another_node"}, smaller{"host_memory_smaller_than_asked"};
  for (std::size_t i = 0; i < pools.size(); ++i) {
    const HostPoolReport report = pools[i].report();
    unpinned.degraded |= report.unpinned_chunks > 0;
    unbound.degraded |= report.unbound_chunks > 0 || report.unbound_threads > 0;
    misplaced.degraded |= report.misplaced_pages > 0;
    smaller.degraded |= !report.growing && report.usable_bytes < report.asked_bytes;
  }
  return {{"device_is_host_memory", !has_gpu}, unpinned, unbound, misplaced, smaller};
}

}  // namespace

class Runtime::Impl {
 public:
  explicit Impl(const RuntimeConfig& config)
      : config_(within_reason(config)),
        backend_(open_gpu(config), config.device_memory.empty() ? config.device_bytes : 0,
                 config.tables_bytes),
        topology_(read_topology()),
        homes_(homes(topology_, config)),
        pools_(homes_,
               {.bytes = config.host_bytes,
                .chunk_bytes = chunk_bytes(config),
                .headroom_bytes = kHeadroomBytes,
                .must_pin = backend_.has_gpu()},
               host_memory_, backend_.pinner()),
        device_(backend_.make_device(queues_of(config, homes_))),
        tracing_(*device_, config.admin ? kTracedGroups : 1),
        cache_(tracing_, config, memory()),
        watch_(tracing_, config) {
    pools_.wait_usable(0, 1, kFirstChunkNanos);
    grow();
    if (config.admin) {
      tracing_.record(true);
      const auto queues = tracing_.queues();
      admin_ = std::make_unique<AdminServer>(*config.admin,
                                             std::vector<QueueInfo>(queues.begin(), queues.end()),
                                             snapshot({true, true, true}));
    }
    // Last: a runtime that cannot be leaves the disk as it was.
    if (config.disk_directory.empty()) return;
    open_disk();
    if (admin_ != nullptr) admin_->publish(snapshot({true, true, true}));
  }

  KvCache& cache() {
    grow();
    serve();
    return cache_;
  }
  const KvCache& cache() const { return cache_; }

  void register_memory(std::span<std::byte> memory) {
    const RegisteredSpace registered = tracing_.register_space(
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

  // `call(cache, tickets)` when the tickets of all events are there.
  template <typename Call>
  std::invoke_result_t<Call, KvCache&, const std::vector<Ticket>&> after(
      std::span<const EngineEvent> events, Call&& call) {
    if (const Status status = import(events, after_); status != Status::ok) return {status};
    return call(cache(), after_);
  }

  Status append(std::span<const AppendRequest> batch, int layer,
                std::span<const EngineEvent> events) {
    return after(events, [&](KvCache& cache, const std::vector<Ticket>& tickets) {
      watch_.before(layer, false);
      return cache.append(batch, layer, tickets);
    });
  }

  using Attends = Attended (KvCache::*)(std::span<const AttendRequest>, int,
                                        std::span<const Ticket>, EngineEvent);
  Attended attend(Attends attends, std::span<const AttendRequest> batch, int layer,
                  std::span<const EngineEvent> events, EngineEvent done) {
    return after(events, [&](KvCache& cache, const std::vector<Ticket>& tickets) {
      watch_.before(layer, true);
      const Attended attended = (cache.*attends)(batch, layer, tickets, done);
      if (attended.status == Status::ok) watch_.attended(batch, layer);
      return attended;
    });
  }

  // `call(cache)`, which waits; then what came of the steps that have ended.
  template <typename Call>
  auto wait(Call&& call) {
    const auto result = call(cache());
    if (const auto planned = watch_.look([&] { return batch(); }))
      cache_.set_placement(planned->placement);
    serve();
    return result;
  }

  std::optional<Plan> replan(const ModelGeometry& model, const HardwareProfile& hardware) {
    const auto planned =
        watch_.plan(rank_share(model, config_.tensor_parallel_ranks), hardware, batch());
    if (!planned) return {};
    cache_.set_placement(planned->placement);
    return planned->plan;
  }

  std::string plan_history() const { return watch_.plan_history(); }
  std::uint16_t admin_port() const { return admin_ == nullptr ? 0 : admin_->port(); }

  RuntimeMetrics metrics() const {
    RuntimeMetrics metrics{.usage = cache_.usage(),
                           .counters = cache_.counters(),
                           .degraded = degraded_modes(pools_, backend_.has_gpu()),
                           .uptime_ns = tracing_.now()};
    if (disk_tier_ != nullptr) {
      const DiskTierUsage disk = disk_tier_->usage();
      metrics.usage.pools.push_back({.tier = Tier::disk,
                                     .capacity_bytes = disk.capacity_bytes,
                                     .used_bytes = disk.held_bytes + disk.erasing_bytes,
                                     .retired_bytes = disk.erasing_bytes});
      metrics.disk = disk_tier_->counters();
      metrics.degraded.push_back({"disk_has_failed", metrics.disk->failed_jobs > 0});
    }
    watch_.fill(metrics);
    return metrics;
  }

  std::string describe() const {
    const auto token_bytes = [&](Tokens page_tokens, const KvFormat& format) {
      return config_.layers *
             page_bytes({page_tokens, config_.kv_heads, config_.head_dim, format}) / page_tokens;
    };
    const auto capacity = [&](const char* what, Bytes bytes) {
      return fmt::format("a token {}: {} bytes; the device holds {}, the host {}\n", what, bytes,
                         cache_.device_page_bytes() / bytes, usable_bytes() / bytes);
    };
    const PrecisionPolicy& policy = config_.policy;
    std::string text = capacity("in 16 bits", token_bytes(config_.own_page_tokens, policy.high));
    if (policy.text_low)
      text +=
          capacity("of text, compressed", token_bytes(config_.own_page_tokens, *policy.text_low));
    if (policy.visual_low)
      text += capacity("of an image, compressed",
                       token_bytes(config_.visual_page_tokens, *policy.visual_low));
    text += pools_.describe() + "\n";
    if (page_disk_ != nullptr) text += page_disk_->description() + "\n";
    return text + plan_history() + cache_.describe();
  }

 private:
  struct EngineMemory {
    SpaceId space;
    std::span<std::byte> memory;
  };

  // A whole number of slabs.
  static Bytes chunk_bytes(const RuntimeConfig& config) {
    return std::clamp(round_up(config.host_bytes, kMiB), kMiB, 64 * kMiB);
  }

  void open_disk() {
    if (config_.kv_tag.empty())
      throw Error("runtime: a disk_directory needs a kv_tag that names model, weights and rank");
    PageDiskConfig disk;
    disk.directory = config_.disk_directory;
    disk.capacity_bytes = config_.disk_bytes;
    disk.owner = kv_owner(config_);
    disk.max_page_bytes = largest_page_bytes(config_);
    page_disk_ = std::make_unique<PageDisk>(disk);
    disk_tier_ =
        std::make_unique<DiskTier>(*page_disk_, DiskTierConfig{.policy = config_.content_eviction});
    cache_.use_disk(*disk_tier_);
  }

  KvCacheMemory memory() const {
    KvCacheMemory memory{
        .device = config_.device_memory.empty() ? backend_.device_memory() : config_.device_memory,
        .tables = backend_.tables(),
        .host_chunk_bytes = chunk_bytes(config_)};
    for (std::size_t i = 0; i < pools_.size(); ++i)
      memory.hosts.push_back(
          {{pools_[i].memory(), static_cast<std::size_t>(pools_[i].reserved_bytes())},
           homes_[i].node->index});
    return memory;
  }

  void grow() {
    for (std::size_t i = 0; i < pools_.size(); ++i) cache_.grow_host(i, pools_[i].usable_bytes());
  }

  Bytes usable_bytes() const {
    Bytes bytes = 0;
    for (std::size_t i = 0; i < pools_.size(); ++i) bytes += pools_[i].usable_bytes();
    return bytes;
  }

  RunningBatch batch() const {
    const auto [text, visual] = cache_.held_tokens();
    // Of the host what it is going to be, however far each rank's pools have grown.
    return {text, visual, cache_.awake_sequences(), cache_.device_page_bytes(), config_.host_bytes};
  }

  // What somebody asks the admin server for.
  void serve() {
    if (admin_ != nullptr && admin_->wanted()) admin_->publish(snapshot(admin_->take_wanted()));
  }

  AdminSnapshot snapshot(const AdminServer::Wanted& wanted) const {
    AdminSnapshot snapshot{.at = std::chrono::steady_clock::now()};
    if (wanted.metrics) snapshot.metrics = metrics();
    if (wanted.state) snapshot.state = describe();
    if (wanted.trace) snapshot.groups = watch_.groups(config_.admin->trace_steps);
    return snapshot;
  }

  // Tickets for what a call waits for. An event that is asked for again has its ticket still.
  Status import(std::span<const EngineEvent> events, std::vector<Ticket>& tickets) {
    std::erase_if(imported_, [](const auto& known) { return has_happened(known.first); });
    tickets.clear();
    for (const EngineEvent& event : events) {
      if (event.word == nullptr) return Status::rejected;
      const auto known =
          std::find_if(imported_.begin(), imported_.end(), [&](const auto& imported) {
            return imported.first.word == event.word && imported.first.value == event.value;
          });
      if (known != imported_.end()) {
        tickets.push_back(known->second);
        continue;
      }
      const Submitted submitted = tracing_.import_event(event);
      if (submitted.status != Status::ok) return submitted.status;
      imported_.push_back({event, submitted.ticket});
      tickets.push_back(submitted.ticket);
    }
    return Status::ok;
  }

  RuntimeConfig config_;
  Backend backend_;
  Topology topology_;
  std::vector<HostPoolShare> homes_;
  HostMemory host_memory_;
  HostPools pools_;
  std::unique_ptr<Device> device_;
  TracingDevice tracing_;
  std::unique_ptr<PageDisk> page_disk_;
  std::unique_ptr<DiskTier> disk_tier_;
  KvCache cache_;
  StepWatch watch_;
  std::vector<EngineMemory> engine_;
  std::vector<std::pair<EngineEvent, Ticket>> imported_;  // and not yet happened
  std::vector<Ticket> after_;
  std::unique_ptr<AdminServer> admin_;
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
std::optional<Begun> Runtime::begin(std::span<const Segment> prompt, Tokens max_reused_tokens) {
  return impl_->cache().begin(prompt, max_reused_tokens);
}
Tokens Runtime::lookup(std::span<const Segment> prompt) const {
  return std::as_const(*impl_).cache().lookup(prompt);
}
void Runtime::forget_content() {
  impl_->cache().forget_content();
}
bool Runtime::can_admit(std::span<const Segment> prompt, Tokens new_tokens) const {
  return std::as_const(*impl_).cache().can_admit(prompt, new_tokens);
}
Status Runtime::reserve(SequenceId sequence, Tokens tokens) {
  return impl_->cache().reserve(sequence, tokens);
}
Status Runtime::append(std::span<const AppendRequest> batch, int layer,
                       std::span<const EngineEvent> after) {
  return impl_->append(batch, layer, after);
}
Attended Runtime::attend(std::span<const AttendRequest> batch, int layer,
                         std::span<const EngineEvent> after, EngineEvent done) {
  return impl_->attend(&KvCache::attend, batch, layer, after, done);
}
Attended Runtime::attend_partial(std::span<const AttendRequest> batch, int layer,
                                 std::span<const EngineEvent> after, EngineEvent done) {
  return impl_->attend(&KvCache::attend_partial, batch, layer, after, done);
}
bool Runtime::cancel(std::uint64_t step) {
  return impl_->cache().cancel(step);
}
Status Runtime::prefetch(std::span<const SequenceId> batch) {
  return impl_->cache().prefetch(batch);
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
  return impl_->wait([&](KvCache& cache) { return cache.poll(within_a_day(timeout_ns)); });
}
Status Runtime::wait(std::uint64_t step, Nanos timeout_ns) {
  return impl_->wait([&](KvCache& cache) { return cache.wait(step, within_a_day(timeout_ns)); });
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
std::string Runtime::plan_history() const {
  return impl_->plan_history();
}
std::string Runtime::metrics() const {
  return prometheus_text(impl_->metrics());
}
std::uint16_t Runtime::admin_port() const {
  return impl_->admin_port();
}

}  // namespace modalkv
