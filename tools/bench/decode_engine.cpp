#include "tools/bench/decode_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <random>

#include "modalkv/error.hpp"
#include "tools/bench/random_rows.hpp"

namespace modalkv {
namespace {

constexpr Tokens kTextTokens = 16;
constexpr Tokens kChunkTokens = 512;
constexpr Tokens kRowOffsets = 64;
constexpr Tokens kVisualPageTokens = 64;
constexpr int kPartialsInFlight = 64;  // of each row
constexpr Bytes kTableBytesAPage = 64;
constexpr Nanos kPatienceNanos = 20 * kSecond;
constexpr double kRounding = 1.05;  // of placements, to blocks

bool is_16_bit(const KvFormat& format) {
  return format == both(fp16());
}

Bytes image_page_bytes(const DecodeShape& shape) {
  return page_bytes({kVisualPageTokens, shape.heads, shape.head_dim, shape.format});
}

// Of all sequences in a layer.
Bytes image_bytes(const DecodeShape& shape) {
  return shape.batch * divide_up(shape.tokens, kVisualPageTokens) * image_page_bytes(shape);
}

Bytes rounded_share(const DecodeShape& shape, Bytes bytes, double share) {
  return static_cast<Bytes>(static_cast<double>(bytes) * share * kRounding) +
         shape.batch * image_page_bytes(shape);
}

Bytes slot_bytes(const DecodeShape& shape, const PlaceShares& shares) {
  return round_up(rounded_share(shape, image_bytes(shape), shares.streamed), kMiB);
}

Bytes token_bytes(const DecodeShape& shape) {
  return Bytes{4} * shape.heads * shape.head_dim;
}

Bytes partials_bytes(const DecodeShape& shape) {
  const Bytes one = partial_bytes(std::int64_t{shape.batch} * shape.heads, shape.head_dim);
  return round_up(kPartialsInFlight * one, kMiB);
}

// Partial results of the CPU lie there too.
Bytes tables_bytes(const DecodeShape& shape) {
  const Tokens pages = shape.layers * shape.batch * divide_up(shape.tokens, kVisualPageTokens);
  return round_up(kTableBytesAPage * pages, kMiB) + partials_bytes(shape) + 4 * kMiB;
}

Bytes device_bytes(const DecodeShape& shape, const PlaceShares& shares) {
  const Bytes text = 4 * shape.batch * kVisualPageTokens * token_bytes(shape);
  const Bytes chunk = 4 * kChunkTokens * token_bytes(shape);
  return shape.staging_slots * slot_bytes(shape, shares) + partials_bytes(shape) +
         shape.layers * (rounded_share(shape, image_bytes(shape), shares.resident) + text + chunk) +
         16 * kMiB;
}

Bytes host_bytes(const DecodeShape& shape) {
  return shape.layers * rounded_share(shape, image_bytes(shape), 1) + 16 * kMiB;
}

Bytes available(Bytes all, Bytes device) {
  require_memory(all, "KV of the sequences");
  return device;
}

Placement placement_of(const DecodeShape& shape, const PlaceShares& shares) {
  const bool high = is_16_bit(shape.format);
  Placement placement;
  placement.staging_slots = shape.staging_slots;
  for (Shares& group : placement.shares) {
    const auto share = [&](Action as_high, Action as_low) -> double& {
      return group[static_cast<std::size_t>(high ? as_high : as_low)];
    };
    share(Action::resident_high, Action::resident_low) = shares.resident;
    share(Action::streamed_high, Action::streamed_low) = shares.streamed;
    share(Action::cpu_high, Action::cpu_low) = shares.cpu;
  }
  return placement;
}

}  // namespace

DecodeEngine::DecodeEngine(const DecodeShape& shape, const PlaceShares& shares,
                           double link_bytes_per_s)
    : shape_(shape),
      device_memory_(
          available(device_bytes(shape, shares) + host_bytes(shape), device_bytes(shape, shares))),
      host_memory_(host_bytes(shape)),
      tables_(tables_bytes(shape)),
      outputs_(static_cast<std::size_t>(shape.batch * shape.heads * shape.head_dim)),
      host_device_(roomy_queues(shape.host_threads, link_bytes_per_s)),
      device_(host_device_),
      cache_(device_, config(shares),
             {.device = device_memory_.bytes(),
              .hosts = {{host_memory_.bytes()}},
              .tables = tables_.bytes()}),
      calls_(cache_, host_device_, kPatienceNanos) {
  cache_.grow_host(0, static_cast<Bytes>(host_memory_.bytes().size()));
  cache_.set_placement(placement_of(shape, shares));
  std::mt19937_64 random(shape.seed);
  rows_ = random_elements(static_cast<std::size_t>(kChunkTokens * shape.heads * shape.head_dim),
                          NumberFormat::fp16, 1, random);
  const auto registered = [&](std::vector<std::uint16_t>& elements) -> Address {
    const auto bytes = static_cast<Bytes>(elements.size() * 2);
    const RegisteredSpace space = device_.register_space(
        {SpaceInfo::Kind::device, bytes, reinterpret_cast<std::byte*>(elements.data())});
    if (space.status != Status::ok) throw Error("the engine's rows cannot be registered");
    return {space.space, 0, bytes};
  };
  rows_at_ = registered(rows_);
  outputs_at_ = registered(outputs_);
  const Segment prompt[] = {{TokenClass::image, shape.tokens}, {TokenClass::text, kTextTokens}};
  for (int i = 0; i < shape.batch; ++i) fill(cache_.begin(prompt)->sequence);
}

RuntimeConfig DecodeEngine::config(const PlaceShares& shares) const {
  RuntimeConfig config;
  config.layers = shape_.layers;
  config.query_heads = config.kv_heads = shape_.heads;
  config.head_dim = shape_.head_dim;
  config.policy.selection = Selection::text_centric;
  if (!is_16_bit(shape_.format)) config.policy.visual_low = shape_.format;
  config.policy.places = {true, true, true};
  config.visual_page_tokens = kVisualPageTokens;
  config.staging_slots = shape_.staging_slots;
  config.staging_slot_bytes = slot_bytes(shape_, shares);
  config.partials_bytes = partials_bytes(shape_);
  config.overdue_ns = kPatienceNanos;
  return config;
}

// Each chunk of each layer has its rows from elsewhere: pages differ.
void DecodeEngine::fill(SequenceId sequence) {
  const Bytes token = Bytes{2} * shape_.heads * shape_.head_dim;
  const Tokens all = shape_.tokens + kTextTokens;
  for (Tokens begin = 0, tokens; begin < all; begin += tokens) {
    tokens = std::min(all - begin, kChunkTokens - kRowOffsets);
    for (int layer = 0; layer < shape_.layers; ++layer) {
      const Address rows{rows_at_.space, chunks_++ * 7 % kRowOffsets * token, tokens * token};
      const AppendRequest chunk{sequence, tokens, rows, rows};
      calls_.until_room([&] { return cache_.append({&chunk, 1}, layer); });
    }
    calls_.settle();
  }
  const auto nth = static_cast<Bytes>(attends_.size());
  const Address row{rows_at_.space, nth % kRowOffsets * token, token};
  appends_.push_back({sequence, 1, row, row});
  attends_.push_back({sequence, 1, row, {outputs_at_.space, nth * token, token}});
}

void DecodeEngine::rewind() {
  for (const AttendRequest& request : attends_)
    if (const Truncated cut = cache_.truncate(request.sequence, shape_.tokens + kTextTokens);
        cut.status != Status::ok)
      throw Error(fmt::format("the runtime does not truncate: {}", name(cut.status)));
  calls_.settle();
}

Nanos DecodeEngine::step() {
  const Nanos begin = host_device_.now();
  std::uint64_t last = 0;
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const Submitted before = device_.import_event({&layers_done_, layers_begun_});
    if (before.status != Status::ok) throw Error("too many layers in flight");
    const std::array after{before.ticket};
    calls_.until_room([&] { return cache_.append(appends_, layer, after); });
    calls_.until_room([&] {
      const Attended attended =
          cache_.attend(attends_, layer, after, {&layers_done_, layers_begun_ + 1});
      last = attended.step;
      return attended.status;
    });
    ++layers_begun_;
  }
  if (const Status status = cache_.wait(last, kPatienceNanos); status != Status::ok)
    throw Error(fmt::format("a step ended in: {}", name(status)));
  const Nanos time_ns = host_device_.now() - begin;
  while (calls_.take_event(0)) {
  }
  return time_ns;
}

std::vector<RecordedGroup> DecodeEngine::record_step() {
  device_.record();
  step();
  std::vector<RecordedGroup> groups = device_.take();
  calls_.settle();
  return groups;
}

}  // namespace modalkv
