// Random histories of an engine over a KvCache, with a content oracle: every token's K and V say
// who they are, in numbers that every format of the policy holds exactly, so attention must come
// out as plain double-precision attention over what the model says the sequence holds, whatever was
// compressed, moved, streamed, shared or lost and appended again.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "kernels/number.hpp"
#include "runtime/kv_cache.hpp"

namespace modalkv {

struct HistoryOptions {
  std::uint64_t seed = 1;
  int actions = 60;
  Bytes device_bytes = 3 * kMiB + 300 * kKiB;
  Bytes host_bytes = 4 * kMiB;
  std::int32_t window = 0;
  bool faults = false;  ///< the device fails on purpose: outcomes may be bad, outputs may not
};

inline RuntimeConfig history_config(const HistoryOptions& options) {
  RuntimeConfig config;
  config.layers = 3;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.window = options.window;
  config.policy.name = "history";
  config.policy.selection = Selection::text_centric;
  config.policy.visual_low = both(int4_token_head());
  config.policy.text_low = both(int8_token_head());
  config.policy.window_tokens = 8;
  config.policy.high_first_layers = 1;
  config.policy.places = {true, true, true};
  config.staging_slots = 2 + static_cast<int>(options.seed % 2);
  config.staging_slot_bytes = 40 * kKiB;
  config.partials_bytes = 3 * kMiB;
  config.verify_every = 1;
  config.overdue_ns = options.faults ? 200 * kMillisecond : 20 * kSecond;
  return config;
}

class History {
 public:
  History(Device& device, const HistoryOptions& options)
      : options_(options),
        device_(device),
        random_(options.seed),
        config_(history_config(options)),
        device_memory_(static_cast<std::size_t>(options.device_bytes)),
        host_memory_(static_cast<std::size_t>(options.host_bytes)),
        tables_(2 * kMiB),
        engine_(24 * kMiB),
        cache_(device, config_,
               {.device = device_memory_, .hosts = {{host_memory_}}, .tables = tables_}) {
    cache_.grow_host(0, options.host_bytes);
    const auto registered = device.register_space(
        {SpaceInfo::Kind::device, static_cast<Bytes>(engine_.size()), engine_.data()});
    EXPECT_EQ(registered.status, Status::ok);
    engine_space_ = registered.space;
  }

  void run() {
    for (int i = 0; i < options_.actions && !testing::Test::HasFailure(); ++i) act();
    // Every sequence is still whole: attended to once more, then gone.
    for (auto& [key, sequence] : sequences_)
      if (sequence.paused) resume(sequence);
    std::vector<std::uint64_t> all;
    for (const auto& [key, sequence] : sequences_) all.push_back(key);
    for (const std::uint64_t key : all)
      if (!testing::Test::HasFailure()) step({key});
    while (!sequences_.empty()) release(sequences_.begin()->first);
    EXPECT_TRUE(drain()) << cache_.describe();
    const std::string end = cache_.describe();
    EXPECT_NE(end.find("device pages: 0 of"), std::string::npos) << end;
    EXPECT_NE(end.find("host pages: 0 of"), std::string::npos) << end;
    EXPECT_NE(end.find("blocks: 0,"), std::string::npos) << end;
  }

  const KvCache& cache() const { return cache_; }
  int good_outputs() const { return good_outputs_; }
  int failed_steps() const { return failed_steps_; }
  int cuts() const { return cuts_; }
  int exact_cuts() const { return exact_cuts_; }

 private:
  struct Modelled {
    SequenceId id{};
    std::vector<std::uint64_t> tokens;  // who they are
    std::vector<Segment> prompt;
    Tokens prompt_tokens = 0;
    bool paused = false;
  };
  struct Output {
    std::uint64_t key = 0;
    int layer = 0;
    Tokens tokens = 0, queries = 0;
    std::uint64_t query_seed = 0;
    std::vector<std::uint64_t> history;
    Address outputs{}, log_sum_exp{};
  };

  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  Tokens between(Tokens least, Tokens most) {
    return least + static_cast<Tokens>(below(static_cast<std::uint64_t>(most - least + 1)));
  }

  void act() {
    const std::uint64_t what = below(100);
    if (sequences_.empty() || (what < 10 && sequences_.size() < 6)) return begin();
    const std::uint64_t key = any();
    if (what < 60) {
      std::vector<std::uint64_t> batch;
      for (const auto& [each, sequence] : sequences_)
        if (!sequence.paused && below(2) == 0) batch.push_back(each);
      if (batch.empty() && !sequences_[key].paused) batch.push_back(key);
      return step(batch);
    }
    if (what < 68) return place();
    if (what < 76) return pause(sequences_[key]);
    if (what < 84) return resume(sequences_[key]);
    if (what < 89) return fork(key);
    if (what < 95) return truncate(sequences_[key], below(2) == 0);
    if (what < 97) return release(key);
    // Time passes.
    for (std::uint64_t polls = below(20); polls > 0; --polls) take_event(0);
  }

  std::uint64_t any() {
    auto chosen = sequences_.begin();
    std::advance(chosen, static_cast<std::ptrdiff_t>(below(sequences_.size())));
    return chosen->first;
  }

  void begin() {
    Modelled sequence;
    for (std::uint64_t segments = 1 + below(4); segments > 0; --segments) {
      const bool image = below(2) == 0;
      const Tokens tokens = image ? between(1, 150) : between(1, 40);
      sequence.prompt.push_back({image ? TokenClass::image : TokenClass::text, tokens});
      sequence.prompt_tokens += tokens;
    }
    const auto id = cache_.begin(sequence.prompt);
    ASSERT_TRUE(id.has_value());
    sequence.id = *id;
    sequences_[++last_key_] = sequence;
  }

  void place() {
    Placement placement;
    for (Shares& shares : placement.shares) {
      double sum = 0;
      for (double& share : shares)
        sum += share = below(2) == 0 ? 0 : static_cast<double>(below(100));
      if (sum == 0) sum = shares[0] = 1;
      for (double& share : shares) share /= sum;
    }
    cache_.set_placement(placement);
  }

  void pause(Modelled& sequence) {
    const Status status = cache_.pause(sequence.id);
    EXPECT_EQ(status, sequence.paused ? Status::rejected : Status::ok);
    sequence.paused = true;
  }
  void resume(Modelled& sequence) {
    const Status status = cache_.resume(sequence.id);
    EXPECT_EQ(status, sequence.paused ? Status::ok : Status::rejected);
    sequence.paused = false;
  }
  void fork(std::uint64_t key) {
    Modelled copy = sequences_[key];
    if (sequences_.size() >= 8) return;
    const Status status = retry([&] {
      const Forked forked = cache_.fork(sequences_[key].id);
      copy.id = forked.sequence;
      return forked.status;
    });
    if (status == Status::ok) sequences_[++last_key_] = copy;
    EXPECT_TRUE(status == Status::ok || status == Status::no_space || options_.faults ||
                (copy.paused && status == Status::rejected))
        << name(status);
  }
  void truncate(Modelled& sequence, bool little) {
    if (sequence.paused) return;
    const auto length = static_cast<Tokens>(sequence.tokens.size());
    cut(sequence, little ? std::max<Tokens>(0, length - between(0, 5)) : between(0, length));
  }
  void cut(Modelled& sequence, Tokens tokens) {
    const auto [status, kept] = cache_.truncate(sequence.id, tokens);
    ASSERT_EQ(status, Status::ok);
    ASSERT_LE(kept, tokens);
    ASSERT_GE(kept, 0);
    ++cuts_;
    if (kept == tokens) ++exact_cuts_;
    sequence.tokens.resize(std::min(sequence.tokens.size(), static_cast<std::size_t>(kept)));
  }
  void release(std::uint64_t key) {
    ASSERT_EQ(cache_.release(sequences_[key].id), Status::ok);
    EXPECT_EQ(cache_.release(sequences_[key].id), Status::rejected) << "a stale id";
    sequences_.erase(key);
  }

  // A step of all layers: each sequence of the batch gets its next tokens.
  void step(std::vector<std::uint64_t> batch) {
    if (below(3) == 0 || engine_used_ > static_cast<Bytes>(engine_.size()) / 2) {
      ASSERT_TRUE(drain()) << cache_.describe();
      engine_used_ = 0;
    }
    std::map<std::uint64_t, std::size_t> before;
    for (const std::uint64_t key : batch) {
      Modelled& sequence = sequences_[key];
      before[key] = sequence.tokens.size();
      const auto left = sequence.prompt_tokens - static_cast<Tokens>(sequence.tokens.size());
      const Tokens chunk = left > 0 ? std::min(left, between(1, 90)) : between(1, 2);
      for (Tokens i = 0; i < chunk; ++i) sequence.tokens.push_back(random_());
    }
    for (int layer = 0; layer < config_.layers && !batch.empty(); ++layer) {
      std::map<std::uint64_t, AppendRequest> rows;
      std::vector<AppendRequest> all;
      for (const std::uint64_t key : batch)
        all.push_back(rows[key] = rows_of(sequences_[key], before[key], layer));
      if (!append(all, layer))
        std::erase_if(batch, [&](std::uint64_t key) {
          if (append({&rows[key], 1}, layer)) return false;
          undo(key, before[key]);
          return true;
        });
      if (!batch.empty() && !attend(batch, before, layer)) {
        for (const std::uint64_t key : batch) undo(key, before[key]);
        return;
      }
    }
    // Sometimes the engine runs ahead of the outcomes.
    if (below(2) == 0) {
      ASSERT_TRUE(drain()) << cache_.describe();
    }
    for (const std::uint64_t key : batch) recompute_lost(key);
  }

  // The engine found no room, or lost something, in the middle of a step.
  void undo(std::uint64_t key, std::size_t before) {
    ASSERT_TRUE(drain()) << cache_.describe();
    Modelled& sequence = sequences_[key];
    lost_.erase(key);
    const Tokens lost = cache_.tokens(sequence.id, 0);
    cut(sequence, std::min(static_cast<Tokens>(before), lost));
    // A page may have been lost in another layer only.
    for (int layer = 0; layer < config_.layers; ++layer)
      EXPECT_EQ(cache_.tokens(sequence.id, layer), static_cast<Tokens>(sequence.tokens.size()));
    if (!options_.faults && below(2) == 0) pause(sequence);
  }
  void recompute_lost(std::uint64_t key) {
    const auto lost = lost_.find(key);
    if (lost == lost_.end()) return;
    const Tokens from = lost->second;
    lost_.erase(lost);
    cut(sequences_[key], std::min(from, static_cast<Tokens>(sequences_[key].tokens.size())));
  }

  Address engine_room(Bytes bytes) {
    const Address room{engine_space_, engine_used_, bytes};
    engine_used_ = round_up(engine_used_ + bytes, 64);
    EXPECT_LE(engine_used_, static_cast<Bytes>(engine_.size()));
    return room;
  }
  template <typename T>
  T* engine(const Address& address) {
    return reinterpret_cast<T*>(engine_.data() + address.offset);
  }

  // Sixteen equidistant numbers, the least and the most in every vector: INT4 holds them exactly.
  static float element(std::uint64_t token, int layer, bool in_values, int head, int dim) {
    if (dim < 2) return dim == 0 ? -2.0f : 1.75f;
    std::uint64_t hash = token * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(layer) * 1000003 +
                         (in_values ? 777 : 0) + static_cast<std::uint64_t>(head * 131 + dim);
    hash ^= hash >> 29;
    hash *= 0xbf58476d1ce4e5b9u;
    hash ^= hash >> 32;
    return static_cast<float>(hash % 16) * 0.25f - 2.0f;
  }

  // All at once or, where that finds no room, one by one: those that do not fit leave the batch.
  AppendRequest rows_of(const Modelled& sequence, std::size_t from, int layer) {
    const auto tokens = static_cast<Tokens>(sequence.tokens.size() - from);
    const Bytes bytes = tokens * config_.kv_heads * config_.head_dim * 2;
    const AppendRequest request{sequence.id, tokens, engine_room(bytes), engine_room(bytes)};
    for (const bool in_values : {false, true}) {
      auto* row = engine<std::uint16_t>(in_values ? request.values : request.keys);
      for (std::size_t t = from; t < sequence.tokens.size(); ++t)
        for (int head = 0; head < config_.kv_heads; ++head)
          for (int dim = 0; dim < config_.head_dim; ++dim)
            *row++ = to_fp16(element(sequence.tokens[t], layer, in_values, head, dim));
    }
    return request;
  }

  bool append(std::span<const AppendRequest> batch, int layer) {
    const Status status = retry([&] { return cache_.append(batch, layer); });
    // What was lost meanwhile is rejected.
    EXPECT_TRUE(status == Status::ok || status == Status::no_space || options_.faults)
        << name(status) << '\n'
        << cache_.describe();
    return status == Status::ok;
  }

  bool attend(const std::vector<std::uint64_t>& batch, std::map<std::uint64_t, std::size_t>& before,
              int layer) {
    std::vector<AttendRequest> requests;
    std::vector<Output> outputs;
    for (const std::uint64_t key : batch) {
      const Modelled& sequence = sequences_[key];
      const auto length = static_cast<Tokens>(sequence.tokens.size());
      const Tokens queries = length - static_cast<Tokens>(before[key]);
      const Bytes rows = queries * config_.query_heads, bytes = rows * config_.head_dim * 2;
      AttendRequest request{sequence.id, queries, engine_room(bytes), engine_room(bytes),
                            engine_room(rows * 4)};
      const std::uint64_t query_seed = random_();
      auto* query = engine<std::uint16_t>(request.queries);
      for (std::int64_t i = 0; i < rows * config_.head_dim; ++i)
        query[i] = to_fp16(query_element(query_seed, i));
      requests.push_back(request);
      outputs.push_back({key, layer, length, queries, query_seed, sequence.tokens, request.outputs,
                         request.log_sum_exp});
    }
    std::uint64_t step = 0;
    const Status status = retry([&] {
      const Attended attended = cache_.attend(requests, layer);
      step = attended.step;
      return attended.status;
    });
    EXPECT_TRUE(status == Status::ok || options_.faults || status == Status::no_space)
        << name(status) << '\n'
        << cache_.describe();
    if (status == Status::ok) expected_[step] = std::move(outputs);
    return status == Status::ok;
  }

  static float query_element(std::uint64_t seed, std::int64_t i) {
    std::uint64_t hash = seed + static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 31;
    hash *= 0x94d049bb133111ebu;
    hash ^= hash >> 30;
    return (static_cast<float>(hash % 2001) - 1000.0f) * 0.001f;
  }

  // Until it is not busy any more.
  template <typename Call>
  Status retry(Call call) {
    Status status = Status::busy;
    for (int tries = 0; tries < 3000; ++tries) {
      status = call();
      if (status != Status::busy) return status;
      take_event(5 * kMillisecond);
    }
    ADD_FAILURE() << "seed " << options_.seed << ": busy for ever\n" << cache_.describe();
    return status;
  }

  bool take_event(Nanos timeout_ns) {
    const auto event = cache_.poll(timeout_ns);
    if (!event) return false;
    if (event->kind == RuntimeEvent::Kind::lost) {
      EXPECT_TRUE(options_.faults) << "lost without a fault: " << name(event->status);
      for (const auto& [key, sequence] : sequences_)
        if (sequence.id == event->sequence) {
          const auto [at, fresh] = lost_.emplace(key, event->first_token);
          at->second = std::min(at->second, event->first_token);
        }
      return true;
    }
    const auto found = expected_.find(event->step);
    EXPECT_NE(found, expected_.end()) << "an event twice, or of no step";
    if (found == expected_.end()) return true;
    if (event->status == Status::ok) {
      for (const Output& output : found->second) compare(output);
    } else {
      EXPECT_TRUE(options_.faults) << name(event->status);
      ++failed_steps_;
    }
    expected_.erase(found);
    return true;
  }

  bool drain() {
    for (int polls = 0; polls < 20000; ++polls) {
      if (take_event(5 * kMillisecond)) continue;
      if (cache_.settled() && expected_.empty()) return true;
    }
    return false;
  }

  void compare(const Output& output) {
    ++good_outputs_;
    const int group = config_.query_heads / config_.kv_heads;
    const auto dims = static_cast<std::size_t>(config_.head_dim);
    const auto* found = engine<std::uint16_t>(output.outputs);
    const auto* log_sum_exp = engine<float>(output.log_sum_exp);
    // Of long chunks the first and the last query, and one between.
    for (const Tokens query : {Tokens{0}, output.queries / 2, output.queries - 1})
      for (int head = 0; head < config_.query_heads; ++head) {
        const std::int64_t row = query * config_.query_heads + head;
        const Tokens now = output.tokens - output.queries + query;
        const Tokens first = config_.window > 0 ? std::max<Tokens>(0, now - config_.window + 1) : 0;
        std::vector<double> sum(dims);
        double weights = 0;
        for (Tokens t = first; t <= now; ++t) {
          double logit = 0;
          const std::uint64_t token = output.history[static_cast<std::size_t>(t)];
          for (std::size_t d = 0; d < dims; ++d)
            logit += double{from_fp16(to_fp16(query_element(
                         output.query_seed, row * config_.head_dim + static_cast<int>(d))))} *
                     double{element(token, output.layer, false, head / group, static_cast<int>(d))};
          const double weight = std::exp(logit / std::sqrt(config_.head_dim));
          weights += weight;
          for (std::size_t d = 0; d < dims; ++d)
            sum[d] += weight *
                      double{element(token, output.layer, true, head / group, static_cast<int>(d))};
        }
        double error = 0, size = 0;
        for (std::size_t d = 0; d < dims; ++d) {
          const double value = sum[d] / weights;
          const double difference =
              from_fp16(found[row * config_.head_dim + static_cast<int>(d)]) - value;
          error += difference * difference;
          size += value * value;
        }
        ASSERT_LE(std::sqrt(error), 0.01 * std::sqrt(size))
            << "seed " << options_.seed << ", sequence " << output.key << ", layer " << output.layer
            << ", token " << now << ", head " << head << '\n'
            << cache_.describe();
        ASSERT_NEAR(log_sum_exp[row], std::log(weights), 0.01 * (1 + std::abs(std::log(weights))));
      }
  }

  HistoryOptions options_;
  Device& device_;
  std::mt19937_64 random_;
  RuntimeConfig config_;
  std::vector<std::byte> device_memory_, host_memory_, tables_, engine_;
  KvCache cache_;
  SpaceId engine_space_{};
  Bytes engine_used_ = 0;
  std::map<std::uint64_t, Modelled> sequences_;
  std::uint64_t last_key_ = 0;
  std::map<std::uint64_t, std::vector<Output>> expected_;
  std::map<std::uint64_t, Tokens> lost_;
  int good_outputs_ = 0, failed_steps_ = 0, cuts_ = 0, exact_cuts_ = 0;
};

}  // namespace modalkv
