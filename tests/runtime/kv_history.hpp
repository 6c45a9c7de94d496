// Histories of an engine over a KvCache, replayed from a list of actions: attention must come out
// as the content oracle says of what the model says the sequence holds, whatever was compressed,
// moved, streamed, shared or lost and appended again.
#pragma once

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/kv_cache.hpp"
#include "tests/runtime/content_oracle.hpp"
#include "tests/runtime/engine_actions.hpp"
#include "tests/runtime/reuse_oracle.hpp"

namespace modalkv {

struct HistoryOptions {
  std::uint64_t seed = 1;
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
  config.policy.keep = options.seed % 4 == 0 ? 1 : 0.6;  // of images what the text attends to most
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

/// Outlives the device of a history. The host's may be replaced.
struct HistoryMemory {
  explicit HistoryMemory(Bytes device_bytes = 3 * kMiB + 300 * kKiB, Bytes host_bytes = 4 * kMiB)
      : device(static_cast<std::size_t>(device_bytes)),
        own_host(static_cast<std::size_t>(host_bytes)) {}

  std::vector<std::byte> device, own_host, tables = std::vector<std::byte>(2 * kMiB),
                                           engine = std::vector<std::byte>(24 * kMiB);
  std::span<std::byte> host{own_host};
};

/// What came of a history.
struct HistoryResult {
  std::string problem;  ///< the first; empty: all was as it must be
  RuntimeCounters counters{};
  int good_outputs = 0, failed_steps = 0, cuts = 0, exact_cuts = 0;
};

class History {
 public:
  History(Device& device, HistoryMemory& memory, const HistoryOptions& options,
          DiskTier* disk = nullptr)
      : options_(options),
        config_(history_config(options)),
        engine_(memory.engine),
        cache_(device, config_,
               {.device = memory.device, .hosts = {{memory.host}}, .tables = memory.tables}),
        has_disk_(disk != nullptr) {
    if (disk != nullptr) cache_.use_disk(*disk);
    cache_.grow_host(0, static_cast<Bytes>(memory.host.size()));
    engine_space_ = device
                        .register_space({SpaceInfo::Kind::device,
                                         static_cast<Bytes>(engine_.size()), engine_.data()})
                        .space;
  }

  /// Once. Stops at the first problem; then groups may still be in flight.
  HistoryResult run(std::span<const EngineAction> actions) {
    return run(actions, [](const KvCache&) {});
  }
  /// `look(cache)` after each action and at the end.
  template <typename Look>
  HistoryResult run(std::span<const EngineAction> actions, Look&& look) {
    try {
      for (const EngineAction& action : actions) {
        act(action);
        check_idle();
        look(std::as_const(cache_));
      }
      finish();
      look(std::as_const(cache_));
    } catch (const Problem& problem) {
      result_.problem = problem.what + '\n' + cache_.describe();
    }
    result_.counters = cache_.counters();
    return result_;
  }

 private:
  struct Problem {
    std::string what;
  };
  struct Modelled {
    SequenceId id{};
    std::vector<std::uint64_t> tokens;  // who they are
    std::vector<std::uint64_t> known;   // who the first ones are, whenever they are appended
    Tokens prompt_tokens = 0;
    bool paused = false;
  };
  struct Output {
    std::uint64_t key = 0;
    int layer = 0;
    Tokens queries = 0;
    std::uint64_t query_seed = 0;
    std::vector<std::uint64_t> history;
    Address outputs{}, log_sum_exp{};
  };

  static void require(bool holds, std::string what) {
    if (!holds) throw Problem{std::move(what)};
  }
  void require_ok(Status status, const char* call, bool or_no_space = false) {
    require(status == Status::ok || options_.faults ||
                (or_no_space && status == Status::no_space) ||
                (status == Status::rejected && has_lost()),
            std::string(call) + " answers " + std::string(name(status)));
  }

  // What is counted as it changes is what one finds by looking at every page.
  void check_idle() const {
    std::array<Bytes, 2> idle{};
    for (const PoolUsage& pool : cache_.usage().pools)
      idle[static_cast<std::size_t>(pool.tier)] += pool.idle_bytes;
    for (const Tier tier : {Tier::device, Tier::host})
      require(idle[static_cast<std::size_t>(tier)] == cache_.idle_bytes(tier),
              "idle bytes are counted wrong");
  }

  void act(const EngineAction& action) {
    if (action.call == EngineCall::begin) return begin(action);
    if (action.call == EngineCall::share) return share(action);
    if (action.call == EngineCall::forget) return forget();
    if (action.call == EngineCall::drain) return drain();
    if (action.call == EngineCall::place) return cache_.set_placement(placement_of(action));
    if (action.call == EngineCall::poll) {
      for (Tokens polls = action[0]; polls > 0; --polls) take_event(0);
      return;
    }
    if (sequences_.empty()) return;
    if (action.call == EngineCall::step) return step(action);
    auto which = sequences_.begin();
    std::advance(which, action[0] % static_cast<Tokens>(sequences_.size()));
    switch (action.call) {
      case EngineCall::pause:
        return pause(which->second);
      case EngineCall::resume:
        return resume(which->second);
      case EngineCall::fork:
        return fork(which->second);
      case EngineCall::truncate:
        return truncate(which->second, action[1]);
      default:
        return release(which->first);
    }
  }

  // Every sequence is still whole: attended to once more, then gone, and nothing stays.
  void finish() {
    for (auto& [key, sequence] : sequences_)
      if (sequence.paused) resume(sequence);
    std::vector<std::uint64_t> all;
    for (const auto& [key, sequence] : sequences_) all.push_back(key);
    for (const std::uint64_t key : all) step(std::map<std::uint64_t, Tokens>{{key, 1}});
    drain();
    while (!sequences_.empty()) release(sequences_.begin()->first);
    drain();
    cache_.forget_content();
    drain();
    const std::string end = cache_.describe();
    for (const char* nothing : {"device pages: 0 of", "host pages: 0 of", "blocks: 0,"})
      require(end.find(nothing) != std::string::npos, "something stays at the end");
  }

  void begin(const EngineAction& action) {
    if (sequences_.size() >= ActionSource::kMostSequences) return;
    Modelled sequence;
    std::vector<Segment> prompt;
    for (std::size_t i = 0; i < action.numbers.size(); ++i) {
      if (action[i] == 0) continue;
      prompt.push_back({i % 2 == 0 ? TokenClass::text : TokenClass::image, action[i]});
      sequence.prompt_tokens += action[i];
    }
    begin(std::move(sequence), prompt);
  }
  // A prompt of contents that other sequences have too. Who a token is depends on all before it.
  void share(const EngineAction& action) {
    if (sequences_.size() >= ActionSource::kMostSequences) return;
    Modelled sequence;
    std::vector<Segment> prompt;
    std::uint64_t before = std::uint64_t{1} << 40;
    for (std::size_t i = 0; i < ActionSource::kSharedSegments; ++i) {
      const auto content = static_cast<std::uint64_t>(action[i]);
      if (content == 0) continue;
      const bool image = i % 2 == 1;
      const Tokens tokens = 1 + static_cast<Tokens>(content * (image ? 67 : 13) + i * 5) % 150;
      prompt.push_back(
          {image ? TokenClass::image : TokenClass::text, tokens, {{content, 0, 0, i}}});
      before = before * 131 + content * 8 + i;
      for (Tokens t = 0; t < tokens; ++t)
        sequence.known.push_back(before * 1000 + static_cast<std::uint64_t>(t));
    }
    sequence.prompt_tokens = static_cast<Tokens>(sequence.known.size());
    if (const Tokens own = action[ActionSource::kSharedSegments]; own > 0 || prompt.empty()) {
      prompt.push_back({TokenClass::text, std::max<Tokens>(own, 1)});
      sequence.prompt_tokens += std::max<Tokens>(own, 1);
    }
    const Tokens bound = action[ActionSource::kSharedSegments + 1];
    begin(std::move(sequence), prompt, bound == 0 ? kAllTokens : bound - 1);
  }
  void begin(Modelled sequence, const std::vector<Segment>& prompt,
             Tokens max_reused_tokens = kAllTokens) {
    const Tokens reusable = cache_.lookup(prompt),
                 expected = last_reuse_end(prompt, config_.own_page_tokens,
                                           std::min(reusable, max_reused_tokens));
    require(reusable == cache_.lookup(prompt), "a lookup changes something");
    require(max_reused_tokens < reusable || expected == reusable, "reuse cannot end there");
    const auto begun = cache_.begin(prompt, max_reused_tokens);
    require(begun.has_value(), "begin answers nothing");
    // What is on disk may find no room on the host.
    require((has_disk_ ? begun->reused <= expected : begun->reused == expected) &&
                reusable < std::max<Tokens>(sequence.prompt_tokens, 1) &&
                reusable <= static_cast<Tokens>(sequence.known.size()),
            "begin reuses " + std::to_string(begun->reused) + " tokens");
    sequence.id = begun->sequence;
    sequence.tokens.assign(sequence.known.begin(), sequence.known.begin() + begun->reused);
    for (int layer = 0; layer < config_.layers; ++layer)
      require(cache_.tokens(sequence.id, layer) == begun->reused, "reused in some layers only");
    sequences_[next_number_++] = std::move(sequence);
  }

  void forget() {
    has_forgotten_ = true;
    cache_.forget_content();
  }

  void pause(Modelled& sequence) {
    const Status status = cache_.pause(sequence.id);
    require(status == (sequence.paused ? Status::rejected : Status::ok), "pause");
    sequence.paused = true;
  }
  void resume(Modelled& sequence) {
    const Status status = cache_.resume(sequence.id);
    require(status == (sequence.paused ? Status::ok : Status::rejected), "resume");
    sequence.paused = false;
  }
  void fork(const Modelled& source) {
    if (sequences_.size() >= ActionSource::kMostSequences) return;
    Modelled copy = source;
    const Status status = retry([&] {
      const Forked forked = cache_.fork(source.id);
      copy.id = forked.sequence;
      return forked.status;
    });
    if (!(copy.paused && status == Status::rejected)) require_ok(status, "fork", true);
    if (status == Status::ok) sequences_[next_number_++] = std::move(copy);
  }
  void truncate(Modelled& sequence, Tokens dropped) {
    if (sequence.paused) return;
    const auto length = static_cast<Tokens>(sequence.tokens.size());
    cut(sequence, length - dropped % (length + 1));
  }
  void cut(Modelled& sequence, Tokens tokens) {
    const auto [status, kept] = cache_.truncate(sequence.id, tokens);
    require(status == Status::ok && kept <= tokens && kept >= 0, "truncate");
    ++result_.cuts;
    if (kept == tokens) ++result_.exact_cuts;
    sequence.tokens.resize(std::min(sequence.tokens.size(), static_cast<std::size_t>(kept)));
  }
  void release(std::uint64_t key) {
    require(cache_.release(sequences_[key].id) == Status::ok, "release");
    require(cache_.release(sequences_[key].id) == Status::rejected, "a stale id is taken");
    sequences_.erase(key);
  }

  void step(const EngineAction& action) {
    std::map<std::uint64_t, Tokens> chunks;
    std::size_t i = 0;
    for (const auto& [key, sequence] : sequences_)
      if (const Tokens chunk = action[i++]; chunk > 0 && !sequence.paused) chunks[key] = chunk;
    step(chunks);
  }

  // A step of all layers: each sequence of the batch gets its next tokens.
  void step(const std::map<std::uint64_t, Tokens>& chunks) {
    if (engine_used_ > static_cast<Bytes>(engine_.size()) / 2) drain();
    if (cache_.settled() && expected_.empty()) engine_used_ = 0;
    std::map<std::uint64_t, std::size_t> before;
    std::vector<std::uint64_t> batch;
    for (const auto& [key, most] : chunks) {
      Modelled& sequence = sequences_[key];
      batch.push_back(key);
      before[key] = sequence.tokens.size();
      const auto left = sequence.prompt_tokens - static_cast<Tokens>(sequence.tokens.size());
      const Tokens chunk = left > 0 ? std::min(left, most) : 1 + most % 2;
      for (Tokens t = 0; t < chunk; ++t)
        sequence.tokens.push_back(sequence.tokens.size() < sequence.known.size()
                                      ? sequence.known[sequence.tokens.size()]
                                      : next_number_++);
    }
    for (int layer = 0; layer < config_.layers && !batch.empty(); ++layer) {
      std::map<std::uint64_t, AppendRequest> rows;
      std::vector<AppendRequest> all;
      for (const std::uint64_t key : batch)
        all.push_back(rows[key] = rows_of(sequences_[key], before[key], layer));
      // All at once or, where that finds no room, one by one: those that do not fit leave the
      // batch.
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
    for (const std::uint64_t key : batch) recompute_lost(key);
  }

  // The engine found no room, or lost something, in the middle of a step. Every other time it lets
  // the sequence wait.
  void undo(std::uint64_t key, std::size_t before) {
    drain();
    Modelled& sequence = sequences_[key];
    lost_.erase(key);
    const Tokens lost = cache_.tokens(sequence.id, 0);
    cut(sequence, std::min(static_cast<Tokens>(before), lost));
    // A page may have been lost in another layer only.
    for (int layer = 0; layer < config_.layers; ++layer)
      require(cache_.tokens(sequence.id, layer) == static_cast<Tokens>(sequence.tokens.size()),
              "layers differ after a truncation");
    if (!options_.faults && ++undone_ % 2 == 0 && !sequence.paused) pause(sequence);
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
    require(engine_used_ <= static_cast<Bytes>(engine_.size()), "the engine's memory is too small");
    return room;
  }
  template <typename T>
  T* engine(const Address& address) {
    return reinterpret_cast<T*>(engine_.data() + address.offset);
  }

  AppendRequest rows_of(const Modelled& sequence, std::size_t from, int layer) {
    const auto tokens = static_cast<Tokens>(sequence.tokens.size() - from);
    const Bytes bytes = tokens * config_.kv_heads * config_.head_dim * 2;
    const AppendRequest request{sequence.id, tokens, engine_room(bytes), engine_room(bytes)};
    for (const bool in_values : {false, true}) {
      auto* row = engine<std::uint16_t>(in_values ? request.values : request.keys);
      for (std::size_t t = from; t < sequence.tokens.size(); ++t)
        for (int head = 0; head < config_.kv_heads; ++head)
          for (int dim = 0; dim < config_.head_dim; ++dim)
            *row++ = to_fp16(kv_element(sequence.tokens[t], layer, in_values, head, dim));
    }
    return request;
  }

  bool append(std::span<const AppendRequest> batch, int layer) {
    const Status status = retry([&] { return cache_.append(batch, layer); });
    require_ok(status, "append", true);  // what was lost meanwhile is rejected
    return status == Status::ok;
  }

  bool attend(const std::vector<std::uint64_t>& batch, std::map<std::uint64_t, std::size_t>& before,
              int layer) {
    std::vector<AttendRequest> requests;
    std::vector<Output> outputs;
    for (const std::uint64_t key : batch) {
      const Modelled& sequence = sequences_[key];
      const auto queries = static_cast<Tokens>(sequence.tokens.size() - before[key]);
      const Bytes rows = queries * config_.query_heads, bytes = rows * config_.head_dim * 2;
      AttendRequest request{sequence.id, queries, engine_room(bytes), engine_room(bytes),
                            engine_room(rows * 4)};
      const std::uint64_t query_seed = next_number_++;
      auto* query = engine<std::uint16_t>(request.queries);
      for (std::int64_t i = 0; i < rows * config_.head_dim; ++i)
        query[i] = to_fp16(query_element(query_seed, i));
      requests.push_back(request);
      outputs.push_back(
          {key, layer, queries, query_seed, sequence.tokens, request.outputs, request.log_sum_exp});
    }
    std::uint64_t step = 0;
    const Status status = retry([&] {
      const Attended attended = cache_.attend(requests, layer);
      step = attended.step;
      return attended.status;
    });
    require_ok(status, "attend", true);
    if (status == Status::ok) expected_[step] = std::move(outputs);
    return status == Status::ok;
  }

  // Until it is not busy any more.
  template <typename Call>
  Status retry(Call call) {
    Status status = Status::busy;
    for (int tries = 0; tries < 3000 && status == Status::busy; ++tries) {
      if (tries > 0) take_event(5 * kMillisecond);
      status = call();
    }
    require(status != Status::busy, "busy for ever");
    return status;
  }

  bool take_event(Nanos timeout_ns) {
    const auto event = cache_.poll(timeout_ns);
    if (!event) return false;
    if (event->kind == RuntimeEvent::Kind::lost) {
      require(event->status != Status::rejected, "lost as if K or V were no numbers");
      // What was to come from the disk may find no room in the end, or be forgotten.
      require(options_.faults ||
                  (has_disk_ && (event->status == Status::no_space ||
                                 (has_forgotten_ && event->status == Status::cancelled))),
              "lost without a fault: " + std::string(name(event->status)));
      for (const auto& [key, sequence] : sequences_)
        if (sequence.id == event->sequence) {
          const auto [at, fresh] = lost_.emplace(key, event->first_token);
          at->second = std::min(at->second, event->first_token);
        }
      return true;
    }
    const auto found = expected_.find(event->step);
    require(found != expected_.end(), "an event twice, or of no step");
    if (event->status == Status::ok) {
      for (const Output& output : found->second) compare(output);
    } else {
      require_ok(event->status, "a step");
      ++result_.failed_steps;
    }
    expected_.erase(found);
    return true;
  }

  bool has_lost() {
    while (take_event(0)) {
    }
    return !lost_.empty();
  }

  void drain() {
    for (int polls = 0; polls < 20000; ++polls) {
      if (take_event(5 * kMillisecond)) continue;
      if (cache_.settled() && expected_.empty()) return;
    }
    require(false, "it never settles");
  }

  void compare(const Output& output) {
    ++result_.good_outputs;
    // Of long chunks the first and the last query, and one between.
    for (const Tokens query : {Tokens{0}, output.queries / 2, output.queries - 1}) {
      const Tokens end = static_cast<Tokens>(output.history.size()) - output.queries + query + 1;
      const Tokens first = config_.window > 0 ? std::max<Tokens>(0, end - config_.window) : 0;
      const std::span visible(output.history.data() + first, static_cast<std::size_t>(end - first));
      for (int head = 0; head < config_.query_heads; ++head)
        require(is_right(error_of(config_, visible, output.layer, output.query_seed,
                                  query * config_.query_heads + head,
                                  engine<std::uint16_t>(output.outputs),
                                  engine<float>(output.log_sum_exp))),
                "a wrong output: sequence " + std::to_string(output.key) + ", layer " +
                    std::to_string(output.layer) + ", token " + std::to_string(end - 1) +
                    ", head " + std::to_string(head));
    }
  }

  HistoryOptions options_;
  RuntimeConfig config_;
  std::span<std::byte> engine_;
  KvCache cache_;
  bool has_disk_, has_forgotten_ = false;
  SpaceId engine_space_{};
  Bytes engine_used_ = 0;
  std::map<std::uint64_t, Modelled> sequences_;
  std::uint64_t next_number_ = 1;  // of sequences, tokens and queries
  std::map<std::uint64_t, std::vector<Output>> expected_;
  std::map<std::uint64_t, Tokens> lost_;
  int undone_ = 0;
  HistoryResult result_;
};

}  // namespace modalkv
