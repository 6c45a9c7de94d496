#include "tools/bench/thread_cost.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <time.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>

#include "modalkv/error.hpp"
#include "runtime/kv_cache.hpp"
#include "tools/bench/null_device.hpp"

namespace modalkv {
namespace {

constexpr int kLayers = ThreadCost::kLayers, kKvHeads = ThreadCost::kKvHeads;
constexpr Tokens kTextTokens = 16;
constexpr int kMostPolls = 100'000;  // until nothing moves any more

// Addresses without memory: nothing touches them.
class Nowhere {
 public:
  explicit Nowhere(Bytes bytes)
      : begin_(mmap(nullptr, static_cast<std::size_t>(bytes), PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)),
        bytes_(static_cast<std::size_t>(bytes)) {
    if (begin_ == MAP_FAILED)
      throw Error(
          fmt::format("no {} GiB of addresses for memory that nothing touches", bytes / kGiB));
  }
  ~Nowhere() { munmap(begin_, bytes_); }
  Nowhere(const Nowhere&) = delete;
  Nowhere& operator=(const Nowhere&) = delete;

  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(begin_), bytes_}; }

 private:
  void* begin_;
  std::size_t bytes_;
};

Nanos thread_cpu_ns() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * kSecond + time.tv_nsec;
}

Nanos elapsed_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

RuntimeConfig null_config(Bytes layer_bytes) {
  RuntimeConfig config;
  config.layers = kLayers;
  config.query_heads = config.kv_heads = kKvHeads;
  config.policy.selection = Selection::text_centric;
  config.policy.visual_low = both(int4_token_head());
  config.policy.places.streamed = true;
  config.staging_slots = 4;
  config.staging_slot_bytes = round_up(layer_bytes, kGiB);
  config.partials_bytes = 256 * kMiB;
  return config;
}

// A batch of sequences that are all resident, or all streamed.
class NullBatch {
 public:
  NullBatch(const ThreadCostCase& options, int batch, bool streamed)
      : layer_bytes_(batch * (options.pages + 1) *
                     page_bytes({64, kKvHeads, 128, both(int4_token_head())})),
        memory_(2 * kLayers * layer_bytes_ + 64 * kGiB),
        host_(2 * kLayers * layer_bytes_ + kGiB),
        cache_(device_, null_config(layer_bytes_),
               {.device = memory_.bytes(), .hosts = {{host_.bytes()}}, .tables = tables_}) {
    cost_.batch = batch;
    cost_.streamed = streamed;
    cost_.goal_us = batch == 1 ? 5 : 20;
    cache_.grow_host(0, static_cast<Bytes>(host_.bytes().size()));
    Placement placement;
    for (Shares& shares : placement.shares)
      shares[static_cast<std::size_t>(streamed ? Action::streamed_low : Action::resident_low)] = 1;
    cache_.set_placement(placement);
    const Tokens image = options.pages * 64;
    const Segment prompt[] = {{TokenClass::image, image}, {TokenClass::text, kTextTokens}};
    for (int i = 0; i < batch; ++i) fill(cache_.begin(prompt)->sequence, image + kTextTokens);
    settle();
    measure();
    forget();
    if ((cache_.counters().streamed_bytes > 0) != streamed)
      throw Error("a step on a device that does nothing reads KV from elsewhere than it should");
  }

  // A decode step.
  void measure() {
    std::array<Nanos, 4> at{};
    std::array<Nanos, 3> spent{};
    const Nanos begin = thread_cpu_ns();
    for (int layer = 0; layer < kLayers; ++layer) {
      at[0] = elapsed_ns();
      require(cache_.append(appends_, layer));
      at[1] = elapsed_ns();
      const Attended attended = cache_.attend(attends_, layer);
      require(attended.status);
      at[2] = elapsed_ns();
      require(cache_.wait(attended.step, 0));
      at[3] = elapsed_ns();
      for (std::size_t i = 0; i < spent.size(); ++i) spent[i] += at[i + 1] - at[i];
    }
    cpu_us_.push_back(a_layer(thread_cpu_ns() - begin));
    for (std::size_t i = 0; i < spent.size(); ++i) parts_us_[i].push_back(a_layer(spent[i]));
  }

  ThreadCost cost() const {
    ThreadCost cost = cost_;
    cost.cpu = time_spread(cpu_us_);
    cost.append_us = median_of(parts_us_[0]);
    cost.attend_us = median_of(parts_us_[1]);
    cost.poll_us = median_of(parts_us_[2]);
    return cost;
  }

 private:
  static double a_layer(Nanos step_ns) { return static_cast<double>(step_ns) / 1e3 / kLayers; }
  static void require(Status status) {
    if (status != Status::ok)
      throw Error(
          fmt::format("a step on a device that does nothing: {}; fewer --pages fit", name(status)));
  }
  static Address rows(Tokens tokens) { return {{0}, 0, tokens * kKvHeads * 128 * 2}; }

  void fill(SequenceId sequence, Tokens tokens) {
    const AppendRequest prompt{sequence, tokens, rows(tokens), rows(tokens)};
    for (int layer = 0; layer < kLayers; ++layer) require(cache_.append({&prompt, 1}, layer));
    settle();
    appends_.push_back({sequence, 1, rows(1), rows(1)});
    attends_.push_back({sequence, 1, rows(1), rows(1)});
  }
  void settle() {
    for (int polls = 0; !cache_.settled(); ++polls) {
      if (polls == kMostPolls) require(Status::timeout);
      cache_.poll(0);
    }
  }
  void forget() {
    cpu_us_.clear();
    for (auto& part : parts_us_) part.clear();
  }

  Bytes layer_bytes_;
  NullDevice device_;
  Nowhere memory_, host_;
  std::vector<std::byte> tables_ = std::vector<std::byte>(static_cast<std::size_t>(64 * kMiB));
  KvCache cache_;
  std::vector<AppendRequest> appends_;
  std::vector<AttendRequest> attends_;
  ThreadCost cost_;
  std::vector<double> cpu_us_;
  std::array<std::vector<double>, 3> parts_us_;
};

}  // namespace

std::vector<ThreadCost> measure_thread_cost(const ThreadCostCase& options) {
  std::vector<std::unique_ptr<NullBatch>> batches;
  for (const int batch : {1, 32})
    for (const bool streamed : {false, true})
      batches.push_back(std::make_unique<NullBatch>(options, batch, streamed));
  for (int round = 0; round < options.rounds; ++round)
    for (const auto& batch : batches)
      for (int step = 0; step < ThreadCost::kStepsARound; ++step) batch->measure();
  std::vector<ThreadCost> costs;
  for (const auto& batch : batches) costs.push_back(batch->cost());
  return costs;
}

}  // namespace modalkv
