#include "tools/bench/e2e/machine_profile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <thread>
#include <vector>

#include "modalkv/error.hpp"
#include "modalkv/page.hpp"
#include "tools/bench/time_statistics.hpp"

namespace modalkv {
namespace {

constexpr int kRuns = 5;
constexpr Nanos kPatienceNanos = 120 * kSecond;
constexpr Bytes kMostCopiedBytes = 64 * kMiB;
constexpr Bytes kMostAttendedBytes = 256 * kMiB;
constexpr Bytes kPieces[] = {16 * kKiB, 64 * kKiB, 256 * kKiB, kMiB, 4 * kMiB};

template <typename T>
Sourced<T> measured(T value) {
  return {std::move(value), Evidence::measured, "modalkv bench e2e"};
}

// Groups of operations on a device of its own, timed one by one.
class Stopwatch {
 public:
  explicit Stopwatch(E2eMachine& machine) : device_(machine.open_device()) {
    const auto space = [&](SpaceInfo::Kind kind, std::span<std::byte> memory) {
      const auto bytes = static_cast<Bytes>(memory.size());
      const RegisteredSpace registered = device_->register_space({kind, bytes, memory.data()});
      if (registered.status != Status::ok) throw Error("the machine's memory cannot be registered");
      return Address{registered.space, 0, bytes};
    };
    device_memory = space(SpaceInfo::Kind::device, machine.device_memory());
    host_memory = space(SpaceInfo::Kind::host, machine.host_memory());
    tables = space(SpaceInfo::Kind::host, machine.tables());
  }

  /// Median seconds of a group, from its submission until it has ended.
  double seconds(QueueKind kind, std::span<const Op> ops) {
    const QueueId queue = find_queue(*device_, kind).value();
    std::vector<double> times;
    for (int run = 0; run <= kRuns; ++run) {
      const Nanos begin = device_->now();
      const Submitted submitted = device_->submit(queue, ops, {});
      if (submitted.status != Status::ok)
        throw Error(fmt::format("the device takes no {}: {}", name(kind), name(submitted.status)));
      const auto ended = device_->next_completion(kPatienceNanos);
      if (!ended || ended->status != Status::ok)
        throw Error(fmt::format("an operation on {} does not end well", name(kind)));
      if (run > 0) times.push_back(static_cast<double>(device_->now() - begin) / 1e9);
    }
    return std::max(median_of(times), 1e-9);
  }

  Address device_memory, host_memory, tables;

 private:
  std::unique_ptr<Device> device_;
};

Address part(const Address& of, Bytes offset, Bytes bytes) {
  return {of.space, of.offset + offset, bytes};
}

// Bytes a second of one direction in pieces of a size, apart from each other on both sides.
double copy_rate(Stopwatch& watch, QueueKind kind, Bytes piece) {
  const bool up = kind == QueueKind::h2d;
  const Bytes stride = 2 * piece;
  const Bytes room = std::min({watch.device_memory.bytes, watch.host_memory.bytes});
  const Bytes count = std::clamp<Bytes>(std::min(room, 2 * kMostCopiedBytes) / stride, 1, 2048);
  std::vector<Op> ops;
  for (Bytes i = 0; i < count; ++i) {
    const Address device = part(watch.device_memory, i * stride, piece),
                  host = part(watch.host_memory, i * stride, piece);
    ops.push_back(up ? Copy{host, device} : Copy{device, host});
  }
  return static_cast<double>(count * piece) / watch.seconds(kind, ops);
}

// Bytes of 16-bit KV a second that one sequence's queries read on a queue, `query_tokens` of them.
struct Attention {
  double bytes_per_s = 0, flops_per_s = 0;
};

Attention attention_rate(Stopwatch& watch, const ModelGeometry& model, QueueKind kind,
                         Tokens query_tokens, Bytes most_bytes) {
  const Address& memory = kind == QueueKind::host ? watch.host_memory : watch.device_memory;
  const PageShape shape{kPageTokens, model.kv_heads, model.head_dim, both(fp16())};
  const Bytes query = query_tokens * model.q_heads * model.head_dim * 2;
  const Bytes partials = partial_bytes(query_tokens * model.q_heads, model.head_dim);
  const Bytes after = round_up(query, 256) + round_up(partials, 256);
  const Tokens pages = std::min((std::min(memory.bytes, most_bytes) - after) / page_bytes(shape),
                                watch.tables.bytes / kPageTableEntryBytes);
  if (pages < 1) throw Error("the device's memory is too small to be measured");
  Attend op;
  op.queries = part(memory, 0, query);
  op.partials = part(memory, round_up(query, 256), partials);
  op.pages = part(memory, after, pages * page_bytes(shape));
  op.page_table = part(watch.tables, 0, pages * kPageTableEntryBytes);
  op.shape = shape;
  op.tokens = pages * shape.tokens;
  op.query_heads = model.q_heads;
  op.query_tokens = static_cast<std::int32_t>(query_tokens);
  op.logit_scale = 1 / std::sqrt(static_cast<float>(model.head_dim));
  const double seconds = watch.seconds(kind, std::vector<Op>{op});
  const OpCost costs = cost(op);
  return {static_cast<double>(costs.read_bytes) / seconds, costs.flops / seconds};
}

// Seconds of all layers' matrices at so many rows.
double decoder_seconds(E2eMachine& machine, const ModelGeometry& model, Tokens rows) {
  E2eWords& words = machine.words();
  std::vector<double> times;
  // Once is enough where it takes long.
  for (double all = 0; times.size() < 3 && all < 2; all += times.back()) {
    const auto begin = std::chrono::steady_clock::now();
    machine.decoder().embed(rows, 0);
    for (int layer = 0; layer < model.layers; ++layer) {
      machine.decoder().project(layer, rows, {&words.projected, 0});
      machine.decoder().feed_forward(layer, rows, {&words.attended, 0});
    }
    const std::uint64_t sampled = words.sampled.load() + 1;
    machine.decoder().sample(1, {&words.sampled, sampled});
    while (words.sampled.load(std::memory_order_acquire) < sampled) std::this_thread::yield();
    times.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return median_of(times);
}

}  // namespace

HardwareProfile measure_machine(E2eMachine& machine, const E2eLoad& load) {
  const ModelGeometry& model = load.model;
  Stopwatch watch(machine);
  // Page tables of pages one after another; K and V of zeros attend as fast as any.
  auto* table = reinterpret_cast<std::int64_t*>(machine.tables().data());
  const PageShape shape{kPageTokens, model.kv_heads, model.head_dim, both(fp16())};
  for (std::size_t i = 0; i < machine.tables().size() / kPageTableEntryBytes; ++i)
    table[i] = static_cast<std::int64_t>(i) * page_bytes(shape);
  const auto zero = [&](QueueKind kind, const Address& memory) {
    watch.seconds(kind, std::vector<Op>{Fill{memory, 0}});
  };
  zero(QueueKind::compute, watch.device_memory);
  zero(QueueKind::host, watch.host_memory);

  HardwareProfile profile;
  profile.name = machine.name();
  LinkProfile& link = profile.link;
  for (const Bytes piece : kPieces)
    if (4 * piece <= std::min(watch.device_memory.bytes, watch.host_memory.bytes))
      link.piece_table.value.push_back({piece, copy_rate(watch, QueueKind::h2d, piece)});
  link.piece_table = measured(std::move(link.piece_table.value));
  double best = 0;
  for (LinkPoint& point : link.piece_table.value)
    best = point.bytes_per_s = std::max(best, point.bytes_per_s);
  link.h2d_bytes_per_s = measured(best);
  link.d2h_bytes_per_s = measured(copy_rate(watch, QueueKind::d2h, kMiB));
  link.descriptor_ns = measured(0.0);  // it is in the table
  link.duplex_share = {1, Evidence::guess, "not measured"};

  const double handover_s = watch.seconds(QueueKind::compute, {});
  profile.gpu.handover_ns = measured(handover_s * 1e9);
  const Attention decode = attention_rate(watch, model, QueueKind::compute, 1, kMostAttendedBytes);
  const Bytes chunk_bytes = load.chunk_tokens * kv_bytes_per_token_layer(model, both(fp16()));
  const Attention prefill = attention_rate(watch, model, QueueKind::compute, load.chunk_tokens,
                                           4 * chunk_bytes + 64 * kMiB);
  const Attention on_cpu = attention_rate(watch, model, QueueKind::host, 1, kMostAttendedBytes);

  const double parameters = model.layers * (attention_parameters(model) + ffn_parameters(model)) +
                            static_cast<double>(model.vocabulary) * model.hidden;
  const double weights_per_s =
      2 * parameters / decoder_seconds(machine, model, std::min<Tokens>(load.batch, 8));
  const double chunk_flops_per_s = 2 * parameters * static_cast<double>(load.chunk_tokens) /
                                   decoder_seconds(machine, model, load.chunk_tokens);
  // Rates as found: what is faster sets the peak, the others are shares of it.
  const double memory = std::max(decode.bytes_per_s, weights_per_s);
  const double flops = std::max(chunk_flops_per_s, prefill.flops_per_s);
  GpuProfile& gpu = profile.gpu;
  gpu.memory_bytes =
      measured(static_cast<Bytes>(machine.device_memory().size()) + 2 * weight_bytes(model));
  gpu.memory_bytes_per_s = measured(memory);
  gpu.flops_16bit = measured(flops);
  gpu.efficiency = {measured(weights_per_s / memory), measured(chunk_flops_per_s / flops),
                    measured(decode.bytes_per_s / memory), measured(prefill.flops_per_s / flops)};
  gpu.attention_launch_ns = gpu.small_ops_ns_per_layer = measured(handover_s * 1e9);
  gpu.small_ops_ns_per_token = gpu.step_host_ns = measured(0.0);
  gpu.reserved_bytes = measured(Bytes{0});
  profile.host.numa_nodes = measured(std::vector<NumaNode>{
      {static_cast<Bytes>(machine.host_memory().size()), on_cpu.bytes_per_s, 1}});
  profile.host.pinnable_share = measured(1.0);
  profile.host.attention_memory = measured(1.0);
  return profile;
}

}  // namespace modalkv
