// An engine whose content goes to a disk is killed at random moments. The next one on the same
// directory reuses what is there, and whatever it attends to comes out right.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>

#include "tests/offload/temporary_folder.hpp"
#include "tests/offload/victim.hpp"
#include "tests/runtime/content_oracle.hpp"
#include "tests/runtime/http_client.hpp"
#include "tests/runtime/prometheus_reader.hpp"
#include "tests/runtime/small_runtime.hpp"

namespace modalkv {
namespace {

constexpr const char* kOrders = "MODALKV_RUNTIME_VICTIM";
constexpr std::uint64_t kReused = 'u', kStored = 's', kLoaded = 'l';
constexpr Tokens kWords = 20, kPixels = 192, kQuestion = 5, kPrompt = kWords + kPixels + kQuestion;

RuntimeConfig disk_config(const std::string& directory) {
  RuntimeConfig config = small_runtime_config(2);
  config.device_bytes = 4 * kMiB;
  config.host_bytes = kMiB;
  config.disk_directory = directory;
  config.disk_bytes = 4 * kMiB;
  config.kv_tag = "oracle";
  return config;
}

// An engine that chats about contents, whose tokens follow from the content.
class Chats {
 public:
  explicit Chats(const RuntimeConfig& config) : config_(config), runtime_(config) {
    runtime_.register_memory(std::as_writable_bytes(std::span(rows_)));
    runtime_.register_memory(std::as_writable_bytes(std::span(sums_)));
  }
  Runtime& runtime() { return runtime_; }

  /// How many tokens were reused. A wrong output is a failure of the test.
  Tokens chat(std::uint64_t content, std::uint64_t query) {
    const Segment prompt[] = {{TokenClass::text, kWords, {{content, 7, 0, 0}}},
                              {TokenClass::image, kPixels, {{content, 8, 0, 0}}},
                              {TokenClass::text, kQuestion}};
    const Begun begun = runtime_.begin(prompt).value();
    Tokens from = begun.reused;
    for (int tries = 0; !ask(begun.sequence, content, query, from); ++tries) {
      if (tries == 3) {
        ADD_FAILURE() << "lost again and again\n" << runtime_.describe();
        break;
      }
      from = runtime_.truncate(begun.sequence, lost_from_).kept;
    }
    EXPECT_EQ(runtime_.release(begun.sequence), Status::ok);
    return begun.reused;
  }

 private:
  static std::uint64_t token(std::uint64_t content, Tokens nth) {
    return content * 10'000 + static_cast<std::uint64_t>(nth);
  }
  void hear(Nanos timeout_ns) {
    const auto event = runtime_.poll(timeout_ns);
    if (!event) return;
    EXPECT_EQ(event->kind, RuntimeEvent::Kind::lost);
    lost_from_ = std::min(lost_from_, event->first_token);
  }
  template <typename Call>
  Status patiently(Call call) {
    Status status = call();
    for (int i = 0; status == Status::busy && i < 20'000; ++i) {
      hear(kMillisecond);
      status = call();
    }
    if (status != Status::ok) hear(0);  // why not
    return status;
  }
  // The rest of the prompt, and attention over all of it. False: it was lost from `lost_from_` on.
  bool ask(SequenceId sequence, std::uint64_t content, std::uint64_t query, Tokens from) {
    lost_from_ = kPrompt;
    const Bytes row = Bytes{config_.kv_heads} * config_.head_dim;
    const auto elements = static_cast<std::size_t>(row * kPrompt);
    for (int layer = 0; layer < config_.layers; ++layer) {
      // Each layer's apart: after a loss they may still be read.
      const std::size_t of_layer = static_cast<std::size_t>(layer) * 2 * elements;
      for (const bool in_values : {false, true})
        for (std::size_t i = 0; i < elements; ++i) {
          const auto in_row = static_cast<int>(static_cast<Bytes>(i) % row);
          rows_[of_layer + i + (in_values ? elements : 0)] =
              to_fp16(kv_element(token(content, static_cast<Tokens>(i) / row), layer, in_values,
                                 in_row / config_.head_dim, in_row % config_.head_dim));
        }
      const auto rows = [&](std::size_t begin) {
        return runtime_.address(&rows_[begin + static_cast<std::size_t>(from * row)],
                                (kPrompt - from) * row * 2);
      };
      const AppendRequest append{sequence, kPrompt - from, rows(of_layer),
                                 rows(of_layer + elements)};
      const Status appended = patiently([&] { return runtime_.append({&append, 1}, layer); });
      if (lost_from_ < kPrompt) return false;
      EXPECT_EQ(appended, Status::ok) << runtime_.describe();
      if (!is_attended(sequence, content, query, layer)) return false;
    }
    return true;
  }
  bool is_attended(SequenceId sequence, std::uint64_t content, std::uint64_t query, int layer) {
    const auto width = static_cast<std::size_t>(config_.query_heads * config_.head_dim);
    std::uint16_t* queries = rows_.data() + rows_.size() - 2 * width;
    for (std::size_t i = 0; i < width; ++i)
      queries[i] = to_fp16(query_element(query, static_cast<std::int64_t>(i)));
    const auto bytes = static_cast<Bytes>(width * 2);
    const AttendRequest attend{sequence, 1, runtime_.address(queries, bytes),
                               runtime_.address(queries + width, bytes),
                               runtime_.address(sums_.data(), config_.query_heads * 4)};
    Attended step;
    const Status attended = patiently([&] {
      return (step = runtime_.attend({&attend, 1}, layer)).status;
    });
    if (lost_from_ < kPrompt) return false;
    EXPECT_EQ(attended, Status::ok);
    const Status status = runtime_.wait(step.step, 30 * kSecond);
    EXPECT_EQ(status, Status::ok);
    std::vector<std::uint64_t> tokens;
    for (Tokens nth = 0; nth < kPrompt; ++nth) tokens.push_back(token(content, nth));
    for (int head = 0; head < config_.query_heads; ++head)
      EXPECT_TRUE(
          is_right(error_of(config_, tokens, layer, query, head, queries + width, sums_.data())))
          << "content " << content << ", layer " << layer << ", head " << head;
    return true;
  }

  RuntimeConfig config_;
  std::vector<std::uint16_t> rows_ = std::vector<std::uint16_t>(128 * 1024);
  std::vector<float> sums_ = std::vector<float>(64);
  Runtime runtime_;
  Tokens lost_from_ = kPrompt;
};

constexpr std::uint64_t kContents = 48;

// Until it is killed.
void be_the_victim(const VictimOrders& orders) {
  Chats chats(disk_config(orders.directory));
  std::mt19937_64 random(orders.round);
  orders.tell({kVictimRuns, 0, 0});
  RuntimeCounters before;
  while (!::testing::Test::HasFailure()) {
    const Tokens reused = chats.chat(1 + random() % kContents, random());
    const RuntimeCounters& now = chats.runtime().counters();
    if (reused > 0) orders.tell({kReused, 0, 0});
    for (auto i = before.stored_segments; i < now.stored_segments; ++i)
      orders.tell({kStored, 0, 0});
    for (auto i = before.loaded_segments; i < now.loaded_segments; ++i)
      orders.tell({kLoaded, 0, 0});
    before = now;
  }
  orders.tell({kVictimIsWrong, 0, 0});
}

void survive(std::uint64_t rounds) {
  if (const char* orders = std::getenv(kOrders)) return be_the_victim(VictimOrders::read(orders));
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  TemporaryFolder folder;
  std::map<std::uint64_t, std::uint64_t> heard;
  std::uint64_t longest_us = 700'000;
  for (std::uint64_t round = 1; round <= rounds && !::testing::Test::HasFailure(); ++round) {
    Victim victim(kOrders, seed + round, folder.path());
    ASSERT_TRUE(victim.lives());
    victim.kill(std::chrono::microseconds(random() % longest_us),
                [&](const VictimEvent& event) { ++heard[event.event]; });
    EXPECT_EQ(heard[kVictimIsWrong], 0u);
    // On a slow machine it takes longer until there is anything to lose.
    if (heard[kStored] == 0 && longest_us < 30'000'000) longest_us *= 2;
  }
  EXPECT_EQ(heard[kVictimRuns], rounds);
  // And in the end by somebody who is let live.
  Chats chats(disk_config(folder.path()));
  Tokens reused = 0;
  for (std::uint64_t content = 1; content <= kContents; ++content)
    reused += chats.chat(content, content);
  EXPECT_GT(reused, 0);
  EXPECT_GT(chats.runtime().counters().loaded_segments, 0);
  std::printf("seed %llu: %llu rounds, %llu chats that reused, %llu segments stored, %llu loaded\n",
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(rounds),
              static_cast<unsigned long long>(heard[kReused]),
              static_cast<unsigned long long>(heard[kStored]),
              static_cast<unsigned long long>(heard[kLoaded]));
}

TEST(RuntimeKill, NothingWrongIsServedAfterwards) {
  survive(20);
}

TEST(RuntimeKillNightly, NothingWrongIsServedAfterwards) {
  survive(200);
}

TEST(RuntimeDisk, IsOneRuntimesAndOneModels) {
  TemporaryFolder folder;
  RuntimeConfig config = disk_config(folder.path());
  const auto complaint = [](const RuntimeConfig& wrong) -> std::string {
    try {
      Runtime runtime(wrong);
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  };
  {
    Chats chats(config);
    for (std::uint64_t content = 1; content <= kContents; ++content) chats.chat(content, content);
    EXPECT_GT(chats.runtime().counters().stored_segments, 0);
    EXPECT_NE(chats.runtime().metrics().find("modalkv_pool_used_bytes{tier=\"disk\""),
              std::string::npos);
    EXPECT_NE(chats.runtime().describe().find(folder.path()), std::string::npos);
    EXPECT_NE(complaint(config), "") << "it is in use";
  }
  RuntimeConfig untagged = config, other_tag = config, other_pages = config;
  untagged.kv_tag.clear();
  other_tag.kv_tag = "other weights";
  other_pages.visual_page_tokens = 128;
  EXPECT_NE(complaint(untagged).find("kv_tag"), std::string::npos);
  EXPECT_NE(complaint(other_tag), "");
  EXPECT_NE(complaint(other_pages), "");
  EXPECT_EQ(complaint(config), "");
}

// Nothing is made where there was nothing, and what was there keeps its bytes.
TEST(RuntimeDisk, IsNotTouchedByARuntimeThatCannotBe) {
  TemporaryFolder folder;
  const RuntimeConfig config = disk_config(folder / "kv");
  const auto bytes_of = [&] {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path()))
      if (entry.is_regular_file()) {
        std::ifstream file(entry.path(), std::ios::binary);
        files[entry.path()] = {std::istreambuf_iterator(file), {}};
      } else {
        files[entry.path()];
      }
    return files;
  };
  const auto expect_untouched = [&] {
    const auto before = bytes_of();
    const std::pair<const char*, void (*)(RuntimeConfig&)> wrongs[] = {
        {"memory", [](RuntimeConfig& wrong) { wrong.device_bytes = kMiB; }},
        {"heads", [](RuntimeConfig& wrong) { wrong.query_heads = 3; }},
        {"slots", [](RuntimeConfig& wrong) { wrong.staging_slots = 0; }},
        {"tag", [](RuntimeConfig& wrong) { wrong.kv_tag.clear(); }},
        {"address", [](RuntimeConfig& wrong) { wrong.admin = AdminConfig{"no address"}; }}};
    for (const auto& [what, change] : wrongs) {
      SCOPED_TRACE(what);
      RuntimeConfig wrong = config;
      wrong.disk_bytes /= 2;  // what lies behind that would be given up
      change(wrong);
      EXPECT_THROW(Runtime{wrong}, Error);
      EXPECT_TRUE(bytes_of() == before);
    }
  };
  expect_untouched();
  {
    Chats chats(config);
    for (std::uint64_t content = 1; content <= kContents; ++content) chats.chat(content, content);
    ASSERT_GT(chats.runtime().counters().stored_segments, 0);
  }
  ASSERT_FALSE(bytes_of().empty());
  expect_untouched();
}

TEST(RuntimeDisk, ItsServerShowsItFromTheBegin) {
  TemporaryFolder folder;
  RuntimeConfig config = disk_config(folder.path());
  config.admin.emplace();
  Runtime runtime(config);
  const HttpAnswer answer = http_get(runtime.admin_port(), "/metrics");
  const PrometheusPage page = PrometheusReader::read(answer.body);
  EXPECT_EQ(page.sum("modalkv_pool_capacity_bytes", {{"tier", "disk"}}), 4 * kMiB);
  EXPECT_EQ(page.value("modalkv_degraded", {{"mode", "disk_has_failed"}}), 0);
  EXPECT_EQ(page.value("modalkv_disk_jobs_total", {{"outcome", "no_space"}}), 0);
}

}  // namespace
}  // namespace modalkv
