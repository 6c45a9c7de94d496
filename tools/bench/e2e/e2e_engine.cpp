#include "tools/bench/e2e/e2e_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <thread>
#include <utility>

#include "modalkv/error.hpp"
#include "modalkv/page.hpp"
#include "tools/profile/profile.hpp"

namespace modalkv {
namespace {

constexpr Nanos kPatienceNanos = 120 * kSecond;
constexpr Tokens kVisualPageTokens = 64;
constexpr int kStagingSlots = 2;
constexpr int kPartialsInFlight = 8;  // of each row of a step
constexpr double kRounding = 1.1;     // of staged pages, which come whole

Tokens most_rows(const E2eLoad& load) {
  return std::max<Tokens>(load.chunk_tokens, load.batch);
}

ContentId content_of(int nth) {
  return {{static_cast<std::uint64_t>(nth) + 1, 0, 0, 0}};
}

std::optional<Replanner::Planned> find_plan(const E2eLoad& load, const PrecisionPolicy& policy,
                                            const HardwareProfile& profile) {
  const RunningBatch batch{.text = load.batch * (load.text_tokens + load.decode_steps),
                           .visual = load.batch * load.image_tokens,
                           .sequences = load.batch,
                           .device_budget_bytes = load.device_budget_bytes,
                           .host_budget_bytes = load.host_bytes};
  return Replanner(policy).plan(load.model, profile, batch);
}

Replanner::Planned planned(const E2eLoad& load, const PrecisionPolicy& policy,
                           const HardwareProfile& profile) {
  if (auto planned = find_plan(load, policy, profile)) return std::move(*planned);
  throw Error(policy.name + ": no plan fits its memory");
}

// As it comes, and as it is inflated to.
PageShape largest_page(const E2eLoad& load) {
  return {kVisualPageTokens, load.model.kv_heads, load.model.head_dim, both(fp16())};
}

Bytes staging_slot_bytes(const E2eLoad& load, const Plan& plan) {
  Bytes streamed = 0;
  for (const LayerPlan& layer : plan.layers)
    streamed =
        std::max(streamed, layer[Action::streamed_high].bytes + layer[Action::streamed_low].bytes);
  return round_up(static_cast<Bytes>(static_cast<double>(streamed) * kRounding) +
                      page_bytes(largest_page(load)),
                  64 * kKiB);
}

// A chunk of a prompt, in all layers, before it becomes what the policy says.
Bytes chunk_bytes(const E2eLoad& load) {
  return load.model.layers * (divide_up(load.chunk_tokens, kVisualPageTokens) + 1) *
         page_bytes(largest_page(load));
}

double mib(Bytes bytes) {
  return static_cast<double>(bytes) / kMiB;
}

}  // namespace

Bytes workspace_bytes(const E2eLoad& load) {
  const Bytes rows = partial_bytes(most_rows(load) * load.model.q_heads, load.model.head_dim);
  return round_up(kPartialsInFlight * rows, kMiB) + 4 * kMiB;
}

void require_room(const E2eLoad& load, const E2ePolicy& policy) {
  // Whether anything fits does not depend on how fast it is.
  const HardwareProfile profile = load_hardware("rtx-4090");
  const auto fits = [&](Bytes device_bytes, Bytes host_bytes) {
    E2eLoad other = load;
    other.device_budget_bytes = device_bytes;
    other.host_bytes = host_bytes;
    const auto planned = find_plan(other, policy.policy, profile);
    return planned && device_bytes >= kStagingSlots * staging_slot_bytes(load, planned->plan) +
                                          chunk_bytes(load);
  };
  if (fits(load.device_budget_bytes, load.host_bytes)) return;
  const Bytes plenty = 2 * load.kv_bytes() + kGiB;
  const auto least = [&](const auto& enough) {
    Bytes too_few = 0, bytes = plenty;
    while (bytes - too_few > kMiB) {
      const Bytes middle = too_few + (bytes - too_few) / 2;
      (enough(middle) ? bytes : too_few) = middle;
    }
    return bytes;
  };
  const auto on_device = [&](Bytes bytes) { return fits(bytes, load.host_bytes); };
  const auto on_host = [&](Bytes bytes) { return fits(load.device_budget_bytes, bytes); };
  std::string advice = "give both more";
  if (on_device(plenty)) {
    const double share = mib(least(on_device)) / mib(load.kv_bytes());
    advice = fmt::format("a --device-kv-share of {:.2f} is enough", std::ceil(share * 100) / 100);
  } else if (on_host(plenty)) {
    advice = fmt::format("--host-kv-bytes {} is enough", least(on_host));
  }
  throw Error(fmt::format(
      "{}: no plan fits {:.1f} MiB of device memory and {:.1f} MiB of the host's; the device holds "
      "a chunk of a prompt ({:.1f} MiB) and, to stream, two of {} layers; {}",
      policy.name, mib(load.device_budget_bytes), mib(load.host_bytes), mib(chunk_bytes(load)),
      load.model.layers, advice));
}

namespace {

// Of a layer, each list of a sequence rounded up.
Tokens inflated_pages_at_once(const E2eLoad& load) {
  return load.batch * (divide_up(load.image_tokens, kVisualPageTokens) +
                       divide_up(load.text_tokens + load.decode_steps, kPageTokens) + 2);
}

}  // namespace

Bytes inflation_bytes(const E2eLoad& load) {
  return InflatingDevice::scratch_bytes(largest_page(load), inflated_pages_at_once(load));
}

Bytes tables_bytes(const E2eLoad& load) {
  const Tokens pages = load.model.layers * load.batch *
                       divide_up(load.prompt_tokens() + load.decode_steps, kPageTokens);
  return round_up(64 * pages, kMiB) + 2 * workspace_bytes(load) + 4 * kMiB +
         InflatingDevice::tables_bytes(inflated_pages_at_once(load));
}

RuntimeConfig E2eEngine::config(const PrecisionPolicy& policy) const {
  RuntimeConfig config;
  config.layers = load_.model.layers;
  config.query_heads = load_.model.q_heads;
  config.kv_heads = load_.model.kv_heads;
  config.head_dim = load_.model.head_dim;
  config.policy = policy;
  config.visual_page_tokens = kVisualPageTokens;
  config.staging_slots = kStagingSlots;
  config.staging_slot_bytes = staging_slot_bytes(load_, planned_.plan);
  config.partials_bytes = workspace_bytes(load_) - 4 * kMiB;
  config.overdue_ns = kPatienceNanos;
  config.device_bytes = load_.device_budget_bytes + workspace_bytes(load_);
  return config;
}

E2eEngine::E2eEngine(E2eMachine& machine, const E2eLoad& load, const E2ePolicy& policy,
                     const HardwareProfile& profile)
    : machine_(machine),
      load_(load),
      planned_(planned(load, policy.policy, profile)),
      config_(config(policy.policy)),
      device_(machine.open_device()),
      layers_(machine.words().projected.load()),
      samples_(machine.words().sampled.load()) {
  const auto size = static_cast<std::size_t>(config_.device_bytes);
  const auto inflation_tables =
      static_cast<std::size_t>(InflatingDevice::tables_bytes(inflated_pages_at_once(load)));
  if (policy.inflates) set_up_inflation();
  cache_ = std::make_unique<KvCache>(
      outer(), config_,
      KvCacheMemory{.device = machine.device_memory().first(size),
                    .hosts = {{machine.host_memory()}},
                    .tables = machine.tables().first(machine.tables().size() - inflation_tables)});
  calls_.emplace(*cache_, outer(), kPatienceNanos);
  cache_->grow_host(0, static_cast<Bytes>(machine.host_memory().size()));
  cache_->set_placement(planned_.placement);
  const std::span rows = machine.decoder().memory();
  const auto bytes = static_cast<Bytes>(rows.size());
  const RegisteredSpace space =
      outer().register_space({SpaceInfo::Kind::device, bytes, rows.data()});
  if (space.status != Status::ok) throw Error("the decoder's rows cannot be registered");
  rows_ = {space.space, 0, bytes};
}

// Behind what the cache takes of the device's memory and of the tables.
void E2eEngine::set_up_inflation() {
  inflating_.emplace(*device_);
  const auto registered = [&](SpaceInfo::Kind kind, std::span<std::byte> memory) -> Address {
    const auto bytes = static_cast<Bytes>(memory.size());
    const RegisteredSpace space = inflating_->register_space({kind, bytes, memory.data()});
    if (space.status != Status::ok) throw Error("memory to inflate in cannot be registered");
    return {space.space, 0, bytes};
  };
  const auto tables =
      static_cast<std::size_t>(InflatingDevice::tables_bytes(inflated_pages_at_once(load_)));
  const std::span all = machine_.tables();
  inflating_->use(
      registered(SpaceInfo::Kind::device, machine_.device_memory().subspan(static_cast<std::size_t>(
                                              round_up(config_.device_bytes, 4096)))),
      registered(SpaceInfo::Kind::host, all.last(tables)));
}

void E2eEngine::wait_for(const std::atomic<std::uint64_t>& word, std::uint64_t value) {
  const Nanos begin = outer().now();
  while (word.load(std::memory_order_acquire) < value) {
    if (outer().now() - begin > kPatienceNanos) throw Error("the decoder does not come to an end");
    if (!calls_->take_event(0)) std::this_thread::yield();
  }
}

// The decoder's work and the runtime's wait for each other; this thread for nothing but room.
void E2eEngine::run_layers(std::span<const SequenceId> sequences, Tokens rows_each) {
  Decoder& decoder = machine_.decoder();
  E2eWords& words = machine_.words();
  const DecoderRows at = decoder_rows(load_.model, decoder.max_rows());
  const Bytes query = Bytes{load_.model.q_heads} * load_.model.head_dim * 2;
  const Bytes key = Bytes{load_.model.kv_heads} * load_.model.head_dim * 2;
  const Tokens rows = rows_each * static_cast<Tokens>(sequences.size());
  std::vector<AppendRequest> appends;
  std::vector<AttendRequest> attends;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Tokens first = static_cast<Tokens>(i) * rows_each;
    const auto part = [&](Bytes offset, Bytes row) {
      return Address{rows_.space, offset + first * row, rows_each * row};
    };
    appends.push_back({sequences[i], rows_each, part(at.keys, key), part(at.values, key)});
    attends.push_back(
        {sequences[i], rows_each, part(at.queries, query), part(at.outputs, query), {}});
  }
  for (int layer = 0; layer < load_.model.layers; ++layer) {
    ++layers_;
    decoder.project(layer, rows, {&words.projected, layers_});
    Submitted before;
    calls_->until_room([&] {
      before = outer().import_event({&words.projected, layers_});
      return before.status;
    });
    const std::array after{before.ticket};
    calls_->until_room([&] { return cache_->append(appends, layer, after); });
    calls_->until_room([&] {
      return cache_->attend(attends, layer, after, {&words.attended, layers_}).status;
    });
    decoder.feed_forward(layer, rows, {&words.attended, layers_});
  }
  ++samples_;
  decoder.sample(static_cast<Tokens>(sequences.size()), {&words.sampled, samples_});
  wait_for(words.sampled, samples_);
}

E2eEngine::Prefill E2eEngine::prefill(int nth) {
  const Nanos begin = outer().now();
  const Segment prompt[] = {
      {.token_class = TokenClass::image, .tokens = load_.image_tokens, .content = content_of(nth)},
      {.token_class = TokenClass::text, .tokens = load_.text_tokens}};
  const auto begun = cache_->begin(prompt);
  if (!begun) throw Error("the prompt is refused");
  sequences_.push_back(begun->sequence);
  for (Tokens at = begun->reused, rows; at < load_.prompt_tokens(); at += rows) {
    rows = std::min(load_.prompt_tokens() - at, load_.chunk_tokens);
    machine_.decoder().embed(rows, nth * load_.prompt_tokens() + at);
    run_layers({&begun->sequence, 1}, rows);
  }
  return {outer().now() - begin, begun->reused};
}

Nanos E2eEngine::decode_step() {
  const Nanos begin = outer().now();
  machine_.decoder().embed(load_.batch, load_.batch * (load_.prompt_tokens() + decoded_++));
  run_layers(sequences_, 1);
  const Nanos time_ns = outer().now() - begin;
  while (calls_->take_event(0)) {
  }
  return time_ns;
}

void E2eEngine::release_all() {
  for (const SequenceId sequence : sequences_)
    if (cache_->release(sequence) != Status::ok) throw Error("a sequence is not released");
  sequences_.clear();
  calls_->settle();
}

}  // namespace modalkv
