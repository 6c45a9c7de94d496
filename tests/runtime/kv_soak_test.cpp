// Sixty-four sequences that come and go at full pools, for long: nothing grows, nothing stays, and
// the answers stay right.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "modalkv/runtime.hpp"
#include "tests/runtime/content_oracle.hpp"
#include "tests/runtime/test_device.hpp"
#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // what they keep grows
#else
constexpr bool kSanitized = false;
#endif

constexpr std::size_t kChats = 64, kBatch = 8;
constexpr Tokens kMostNew = 48;  // tokens behind a prompt, then the chat is over
constexpr Bytes kMostGrowthBytes = 4 * kMiB;
constexpr double kFull = 0.7;           // of a pool, as it must be at some time
constexpr double kMostFragmented = 60;  // per cent of the slabs held, while a pool is half full

RuntimeConfig soak_config() {
  RuntimeConfig config;
  config.layers = 2;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.policy.selection = Selection::text_centric;
  config.policy.visual_low = both(int4_token_head());
  config.policy.text_low = both(int8_token_head());
  config.policy.window_tokens = 8;
  config.policy.places = {true, true, true};
  config.staging_slot_bytes = 256 * kKiB;
  config.partials_bytes = 2 * kMiB;
  config.device_bytes = config.partials_bytes + 2 * config.staging_slot_bytes + 2 * kMiB;
  config.host_bytes = 3 * kMiB;
  config.tables_bytes = 4 * kMiB;
  config.attention_threads = 1;
  config.gpu = gpu_of_tests();
  config.verify_every = 8;
  config.overdue_ns = 60 * kSecond;
  return config;
}

struct Usage {
  Bytes resident_bytes = 0;
  std::ptrdiff_t handles = 0, threads = 0;
};

Usage usage() {
  const auto entries = [](const char* folder) {
    return std::distance(std::filesystem::directory_iterator(folder),
                         std::filesystem::directory_iterator());
  };
  std::ifstream statm("/proc/self/statm");
  Bytes pages = 0, resident_pages = 0;
  statm >> pages >> resident_pages;
  return {resident_pages * 4 * kKiB, entries("/proc/self/fd"), entries("/proc/self/task")};
}

/// Of the lines of `describe` about a pool: "device pages: U of C bytes, R retired, F %
/// fragmented".
struct PoolUse {
  double used_share = 0, fragmented = 0;
};

PoolUse pool_use(const std::string& description, const std::string& pool) {
  const std::size_t at = description.find(pool + " pages: ");
  std::istringstream line(description.substr(at + pool.size() + 8));
  double used = 0, capacity = 0, fragmented = 0;
  std::string word;
  line >> used >> word >> capacity >> word >> word >> word >> fragmented;
  return {used / capacity, fragmented};
}

class Soak {
 public:
  explicit Soak(std::chrono::seconds time) : time_(time) { runtime_.register_memory(memory_); }

  void run() {
    const auto begin = std::chrono::steady_clock::now();
    const auto warm_up = begin + time_ / 5;
    Usage warm{};
    // A slow machine takes longer to fill the pools.
    const auto goes_on = [&] {
      const auto now = std::chrono::steady_clock::now();
      return now < begin + time_ ||
             (!has_seen_all() && now < begin + time_ + std::chrono::minutes(5));
    };
    for (std::uint64_t round = 0; goes_on(); ++round) {
      turn();
      if (testing::Test::HasFailure()) return;
      if (round % 64 != 0) continue;
      watch_pools();
      if (std::chrono::steady_clock::now() < warm_up) {
        warm = usage();
        continue;
      }
      const Usage now = usage();
      most_growth_bytes_ = std::max(most_growth_bytes_, now.resident_bytes - warm.resident_bytes);
      ASSERT_EQ(now.handles, warm.handles);
      ASSERT_EQ(now.threads, warm.threads);
    }
    end();
    check();
  }

 private:
  struct Chat {
    SequenceId id{};
    std::vector<std::uint64_t> tokens{};  // who they are
    std::vector<std::uint64_t>
        known{};  // who the first ones are, of a content that others have too
    Tokens prompt_tokens = 0;
    bool paused = false;
  };
  struct Turn {
    std::size_t chat = 0;
    std::size_t before = 0;  // tokens
    AppendRequest rows{};
    AttendRequest request{};
    std::uint64_t query_seed = 0;
  };

  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  Tokens between(Tokens least, Tokens most) {
    return least + static_cast<Tokens>(below(static_cast<std::uint64_t>(most - least + 1)));
  }

  // What an engine does between two steps, then a step.
  void turn() {
    while (chats_.size() < kChats) begin();
    most_chats_ = std::max(most_chats_, chats_.size());
    const std::size_t any = below(chats_.size());
    const std::uint64_t what = below(100);
    if (what < 4) pause(any);
    if (what >= 4 && what < 8) resume(any);
    if (what == 8) fork(any);
    if (what == 9) truncate(any);
    if (what == 10 && below(8) == 0) static_cast<void>(runtime_.replan(model_, sample_hardware()));
    step();
    for (std::size_t i = chats_.size(); i-- > 0;)
      if (static_cast<Tokens>(chats_[i].tokens.size()) >= chats_[i].prompt_tokens + kMostNew)
        release(i);
  }

  void begin() {
    Chat chat;
    Segment prompt[] = {{TokenClass::text, between(4, 16)},
                        {TokenClass::image, between(64, 192)},
                        {TokenClass::text, between(4, 12)}};
    // Every other one is about one of some hundred images.
    if (begun_ % 2 == 0) {
      const std::uint64_t content = 1 + below(10) * below(10) * below(10) / 8;
      for (std::size_t i = 0; i < 2; ++i) {
        prompt[i].content = {{content, i, 0, 0}};
        prompt[i].tokens =
            4 + static_cast<Tokens>(content * (i == 0 ? 5 : 37)) % (i == 0 ? 12 : 188);
      }
      for (Tokens t = 0; t < prompt[0].tokens + prompt[1].tokens; ++t)
        chat.known.push_back((content << 40) + static_cast<std::uint64_t>(t));
    }
    for (const Segment& segment : prompt) chat.prompt_tokens += segment.tokens;
    const Begun begun = runtime_.begin(prompt).value();
    chat.id = begun.sequence;
    chat.tokens.assign(chat.known.begin(), chat.known.begin() + begun.reused);
    chats_.push_back(std::move(chat));
    ++begun_;
  }
  void pause(std::size_t i) {
    if (!chats_[i].paused && runtime_.pause(chats_[i].id) == Status::ok) chats_[i].paused = true;
  }
  void resume(std::size_t i) {
    if (chats_[i].paused && runtime_.resume(chats_[i].id) == Status::ok) chats_[i].paused = false;
  }
  void fork(std::size_t i) {
    if (chats_[i].paused || chats_.size() >= kChats + kBatch) return;
    const Forked forked = runtime_.fork(chats_[i].id);
    if (forked.status != Status::ok) return;
    Chat copy = chats_[i];
    copy.id = forked.sequence;
    chats_.push_back(std::move(copy));
  }
  void truncate(std::size_t i) {
    if (!chats_[i].paused)
      cut(chats_[i], chats_[i].tokens.size() - below(chats_[i].tokens.size() + 1) / 4);
  }
  void cut(Chat& chat, std::size_t tokens) {
    const auto [status, kept] = runtime_.truncate(chat.id, static_cast<Tokens>(tokens));
    ASSERT_EQ(status, Status::ok);
    chat.tokens.resize(static_cast<std::size_t>(kept));
  }
  void release(std::size_t i) {
    ASSERT_EQ(runtime_.release(chats_[i].id), Status::ok);
    chats_.erase(chats_.begin() + static_cast<std::ptrdiff_t>(i));
  }

  // Each of a few chats gets the next tokens of its prompt, or a new one.
  void step() {
    std::vector<Turn> turns;
    const std::size_t first = below(chats_.size());
    for (std::size_t i = 0; i < chats_.size() && turns.size() < kBatch; ++i) {
      const std::size_t at = (first + i) % chats_.size();
      Chat& chat = chats_[at];
      if (chat.paused) continue;
      const Tokens left = chat.prompt_tokens - static_cast<Tokens>(chat.tokens.size());
      turns.push_back({.chat = at, .before = chat.tokens.size()});
      for (Tokens t = left > 0 ? std::min(left, between(1, 64)) : 1; t > 0; --t)
        chat.tokens.push_back(chat.tokens.size() < chat.known.size()
                                  ? chat.known[chat.tokens.size()]
                                  : next_token_++);
    }
    if (turns.empty()) return resume(first);
    for (int layer = 0; layer < config_.layers; ++layer)
      if (!step(turns, layer)) return make_room(turns);
    ++steps_;
  }

  bool step(std::vector<Turn>& turns, int layer) {
    used_ = 0;
    std::vector<AppendRequest> rows;
    std::vector<AttendRequest> requests;
    for (Turn& turn : turns) {
      rows.push_back(turn.rows = rows_of(turn, layer));
      requests.push_back(turn.request = request_of(turn));
    }
    if (!retried([&] { return runtime_.append(rows, layer); })) return false;
    std::uint64_t step = 0;
    const bool attended = retried([&] {
      const Attended result = runtime_.attend(requests, layer);
      step = result.step;
      return result.status;
    });
    if (!attended) return false;
    EXPECT_EQ(runtime_.wait(step, 60 * kSecond), Status::ok) << runtime_.describe();
    check(turns[below(turns.size())], layer);
    return true;
  }

  AppendRequest rows_of(const Turn& turn, int layer) {
    const Chat& chat = chats_[turn.chat];
    const auto tokens = static_cast<Tokens>(chat.tokens.size() - turn.before);
    const Bytes bytes = tokens * config_.kv_heads * config_.head_dim * 2;
    const AppendRequest rows{chat.id, tokens, take(bytes), take(bytes)};
    for (const bool in_values : {false, true}) {
      auto* to = at<std::uint16_t>(in_values ? rows.values : rows.keys);
      for (std::size_t t = turn.before; t < chat.tokens.size(); ++t)
        for (int head = 0; head < config_.kv_heads; ++head)
          for (int dim = 0; dim < config_.head_dim; ++dim)
            *to++ = to_fp16(kv_element(chat.tokens[t], layer, in_values, head, dim));
    }
    return rows;
  }

  AttendRequest request_of(Turn& turn) {
    const Bytes rows = turn.rows.tokens * config_.query_heads;
    const Bytes bytes = rows * config_.head_dim * 2;
    turn.query_seed = next_token_++;
    const AttendRequest request{turn.rows.sequence, turn.rows.tokens, take(bytes), take(bytes),
                                take(rows * 4)};
    auto* query = at<std::uint16_t>(request.queries);
    for (std::int64_t i = 0; i < rows * config_.head_dim; ++i)
      query[i] = to_fp16(query_element(turn.query_seed, i));
    return request;
  }

  void check(const Turn& turn, int layer) {
    const std::vector<std::uint64_t>& tokens = chats_[turn.chat].tokens;
    const auto query = static_cast<std::size_t>(below(tokens.size() - turn.before));
    const auto row =
        static_cast<std::int64_t>(query) * config_.query_heads +
        static_cast<std::int64_t>(below(static_cast<std::uint64_t>(config_.query_heads)));
    ++checked_;
    const double error =
        error_of(config_, {tokens.data(), turn.before + query + 1}, layer, turn.query_seed, row,
                 at<std::uint16_t>(turn.request.outputs), at<float>(turn.request.log_sum_exp));
    EXPECT_TRUE(is_right(error)) << "sequence " << turn.request.sequence.index << ", layer "
                                 << layer << ", token " << turn.before + query << " of "
                                 << tokens.size() << " wrong by " << error << '\n'
                                 << runtime_.describe();
  }

  // Nothing was kept of the step; somebody has to go: for a while, or the eldest for good.
  void make_room(const std::vector<Turn>& turns) {
    ++refused_;
    for (const Turn& turn : turns) cut(chats_[turn.chat], turn.before);
    if (refused_ % 2 == 0) return pause(turns[below(turns.size())].chat);
    release(0);
  }

  // False: there is no room, and none to come.
  template <typename Call>
  bool retried(Call call) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    Status status = call();
    while (status == Status::busy && std::chrono::steady_clock::now() < until) {
      EXPECT_FALSE(runtime_.poll(kMillisecond).has_value()) << "something was lost";
      status = call();
    }
    EXPECT_TRUE(status == Status::ok || status == Status::no_space) << name(status) << '\n'
                                                                    << runtime_.describe();
    return status == Status::ok;
  }

  Address take(Bytes bytes) {
    const Bytes begin = used_;
    used_ = round_up(used_ + bytes, 64);
    return runtime_.address(memory_.data() + begin, bytes);
  }
  template <typename T>
  T* at(const Address& address) {
    return reinterpret_cast<T*>(memory_.data() + address.offset);
  }

  void watch_pools() {
    const std::string description = runtime_.describe();
    for (const char* pool : {"device", "host"}) {
      const PoolUse use = pool_use(description, pool);
      fullest_[pool[0] == 'h'] = std::max(fullest_[pool[0] == 'h'], use.used_share);
      if (use.used_share > 0.5) most_fragmented_ = std::max(most_fragmented_, use.fragmented);
    }
  }

  void end() {
    while (!chats_.empty()) release(chats_.size() - 1);
    runtime_.forget_content();
    const auto is_empty = [&] {
      const std::string text = runtime_.describe();
      return text.find("device pages: 0 of") != std::string::npos &&
             text.find("host pages: 0 of") != std::string::npos &&
             text.find("blocks: 0, in flight: 0") != std::string::npos;
    };
    for (int polls = 0; polls < 10'000 && !is_empty(); ++polls)
      EXPECT_FALSE(runtime_.poll(kMillisecond).has_value());
    EXPECT_TRUE(is_empty()) << runtime_.describe();
  }

  bool has_seen_all() const {
    const RuntimeCounters& counters = runtime_.counters();
    return most_chats_ >= kChats && fullest_[0] > kFull && fullest_[1] > kFull &&
           counters.left_bytes > 0 && counters.arrived_bytes > 0 && counters.streamed_bytes > 0 &&
           counters.compressed_pages > 0 && counters.reused_tokens > 0 &&
           counters.evicted_segments > 0;
  }

  void check() {
    const RuntimeCounters& counters = runtime_.counters();
    EXPECT_GE(most_chats_, kChats);
    EXPECT_GT(fullest_[0], kFull) << "the device was never full";
    EXPECT_GT(fullest_[1], kFull) << "the host was never full";
    EXPECT_LE(most_fragmented_, kMostFragmented);
    if (!kSanitized) {
      EXPECT_LE(most_growth_bytes_, kMostGrowthBytes);
    }
    EXPECT_EQ(counters.lost_tokens, 0);
    EXPECT_EQ(counters.failed_groups, 0);
    EXPECT_GT(counters.left_bytes, 0);
    EXPECT_GT(counters.arrived_bytes, 0);
    EXPECT_GT(counters.streamed_bytes, 0);
    EXPECT_GT(counters.compressed_pages, 0);
    EXPECT_GT(counters.reused_tokens, 0);
    EXPECT_GT(counters.evicted_segments, 0);
    std::ostringstream line;
    line << time_.count() << " s: " << begun_ << " chats, " << steps_ << " steps, " << refused_
         << " found no room, " << checked_ << " outputs checked; resident memory grew by "
         << most_growth_bytes_ / kKiB << " KiB at most after the warm-up; pools up to "
         << static_cast<int>(100 * fullest_[0]) << " and " << static_cast<int>(100 * fullest_[1])
         << " % full, " << most_fragmented_ << " % fragmented; " << counters.left_bytes / kMiB
         << " MiB left, " << counters.arrived_bytes / kMiB << " MiB came back, "
         << counters.streamed_bytes / kMiB << " MiB streamed; " << counters.reused_tokens << " of "
         << counters.known_tokens << " known tokens reused, " << counters.evicted_segments
         << " segments evicted";
    testing::Test::RecordProperty("soak", line.str());
    std::fprintf(stderr, "soak of %s\n", line.str().c_str());
  }

  const std::chrono::seconds time_;
  const RuntimeConfig config_ = soak_config();
  const ModelGeometry model_ = [] {
    ModelGeometry model = sample_model();
    model.layers = 2, model.q_heads = 4, model.kv_heads = 2, model.head_dim = 64;
    return model;
  }();
  std::vector<std::byte> memory_ = std::vector<std::byte>(8 * kMiB);  // outlives the runtime
  Runtime runtime_{config_};
  std::mt19937_64 random_{4};
  std::deque<Chat> chats_;  // the eldest first
  std::uint64_t next_token_ = 1;
  Bytes used_ = 0, most_growth_bytes_ = 0;
  std::size_t most_chats_ = 0;
  std::int64_t begun_ = 0, steps_ = 0, refused_ = 0, checked_ = 0;
  double fullest_[2] = {0, 0}, most_fragmented_ = 0;
};

std::chrono::seconds soak_time(int seconds) {
  const char* asked = std::getenv("MODALKV_SOAK_SECONDS");
  return std::chrono::seconds(asked != nullptr ? std::atoi(asked) : seconds);
}

TEST(RuntimeSoak, SequencesComeAndGoAtFullPools) {
  Soak(soak_time(10)).run();
}

TEST(RuntimeSoakNightly, TenMinutesAtFullPools) {
  Soak(soak_time(600)).run();
}

}  // namespace
}  // namespace modalkv
