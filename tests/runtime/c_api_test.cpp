// The C API: the same answers as the C++ API, and no way to break it by what a caller gives.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/number.hpp"
#include "modalkv/content.hpp"
#include "modalkv/modalkv.h"
#include "modalkv/runtime.hpp"
#include "runtime/c_boundary.hpp"
#include "runtime/c_config.hpp"
#include "tests/runtime/c_api_c11.h"
#include "tests/runtime/test_device.hpp"

namespace modalkv {
namespace {

// What a caller was compiled with stays true: a change here is one of the ABI.
static_assert(MKV_API_VERSION == 1);
static_assert(MKV_OK == 0 && MKV_BUSY == 1 && MKV_REJECTED == 2 && MKV_UNSUPPORTED == 3 &&
              MKV_IO_ERROR == 4 && MKV_CHECKSUM == 5 && MKV_TIMEOUT == 6 && MKV_CANCELLED == 7 &&
              MKV_NO_SPACE == 8 && MKV_ERROR == 100 && MKV_INTERNAL == 101);
static_assert(MKV_FP16 == 0 && MKV_BF16 == 1 && MKV_RESIDENT == 1 && MKV_STREAMED == 2 &&
              MKV_ON_CPU == 4 && MKV_TEXT == 0 && MKV_IMAGE == 1 && MKV_VIDEO == 2 &&
              MKV_AUDIO == 3 && MKV_FLOOR_POLICY == 0 && MKV_FLOOR_HIGH == 1 &&
              MKV_EVENT_ATTENDED == 0 && MKV_EVENT_LOST == 1);
static_assert(sizeof(mkv_status) == 4 && sizeof(mkv_sequence) == 8);

#define AT(type, field, offset) static_assert(offsetof(type, field) == (offset))
AT(mkv_config, size, 0);
AT(mkv_config, version, 8);
AT(mkv_config, layers, 12);
AT(mkv_config, query_heads, 16);
AT(mkv_config, kv_heads, 20);
AT(mkv_config, head_dim, 24);
AT(mkv_config, input, 28);
AT(mkv_config, logit_scale, 32);
AT(mkv_config, window, 36);
AT(mkv_config, policy, 40);
AT(mkv_config, keep, 48);
AT(mkv_config, high, 56);
AT(mkv_config, text_low, 64);
AT(mkv_config, visual_low, 72);
AT(mkv_config, places, 80);
AT(mkv_config, high_first_layers, 84);
AT(mkv_config, high_last_layers, 88);
AT(mkv_config, tensor_parallel_ranks, 92);
AT(mkv_config, pinned_tokens, 96);
AT(mkv_config, window_tokens, 104);
AT(mkv_config, device_bytes, 112);
AT(mkv_config, device_memory, 120);
AT(mkv_config, host_bytes, 128);
AT(mkv_config, tables_bytes, 136);
AT(mkv_config, own_page_tokens, 144);
AT(mkv_config, visual_page_tokens, 152);
AT(mkv_config, staging_slots, 160);
AT(mkv_config, attention_threads, 164);
AT(mkv_config, staging_slot_bytes, 168);
AT(mkv_config, partials_bytes, 176);
AT(mkv_config, verify_every, 184);
AT(mkv_config, overdue_ns, 192);
AT(mkv_config, content_eviction, 200);
AT(mkv_config, recompute_token_ns, 208);
AT(mkv_config, disk_directory, 216);
AT(mkv_config, kv_tag, 224);
AT(mkv_config, disk_bytes, 232);
AT(mkv_config, gpu, 240);
static_assert(sizeof(mkv_config) == 248);
AT(mkv_segment, token_class, 8);
AT(mkv_segment, floor, 12);
AT(mkv_segment, tokens, 16);
AT(mkv_segment, content, 24);
static_assert(sizeof(mkv_segment) == 56);
AT(mkv_engine_event, word, 8);
AT(mkv_engine_event, value, 16);
static_assert(sizeof(mkv_engine_event) == 24);
AT(mkv_append_request, sequence, 8);
AT(mkv_append_request, tokens, 16);
AT(mkv_append_request, keys, 24);
AT(mkv_append_request, values, 32);
static_assert(sizeof(mkv_append_request) == 40);
AT(mkv_attend_request, sequence, 8);
AT(mkv_attend_request, tokens, 16);
AT(mkv_attend_request, queries, 24);
AT(mkv_attend_request, outputs, 32);
AT(mkv_attend_request, log_sum_exp, 40);
static_assert(sizeof(mkv_attend_request) == 48);
AT(mkv_event, kind, 8);
AT(mkv_event, status, 12);
AT(mkv_event, step, 16);
AT(mkv_event, sequence, 24);
AT(mkv_event, first_token, 32);
AT(mkv_event, layer, 40);
AT(mkv_event, reserved, 44);
static_assert(sizeof(mkv_event) == 48);
AT(mkv_counters, appended_tokens, 8);
AT(mkv_counters, timeouts, 120);
AT(mkv_counters, evicted_segments, 144);
AT(mkv_counters, loaded_segments, 160);
static_assert(sizeof(mkv_counters) == 168);
#undef AT

constexpr int kLayers = 2, kQueryHeads = 4, kKvHeads = 2, kHeadDim = 64;
constexpr std::size_t kKvRow = kKvHeads * kHeadDim, kQueryRow = kQueryHeads * kHeadDim;
constexpr Tokens kTokens = 200;
constexpr std::int64_t kPatience = 10 * kSecond;

// On which these tokens do not fit in 16 bits.
mkv_config small_config() {
  mkv_config config{};
  config.size = sizeof(config);
  config.version = MKV_API_VERSION;
  config.layers = kLayers;
  config.query_heads = kQueryHeads;
  config.kv_heads = kKvHeads;
  config.head_dim = kHeadDim;
  config.policy = "text-centric";
  config.visual_low = "int4";
  config.places = MKV_RESIDENT | MKV_STREAMED;
  config.partials_bytes = kMiB;
  config.device_bytes = kMiB + (2 * 64 + 32 + 198) * kKiB;
  config.staging_slot_bytes = 64 * kKiB;
  config.host_bytes = 16 * kMiB;
  config.tables_bytes = kMiB;
  config.attention_threads = 1;
  config.gpu = gpu_of_tests() ? *gpu_of_tests() + 1 : 0;
  return config;
}

mkv_segment segment(std::int32_t token_class, Tokens tokens) {
  mkv_segment segment{};
  segment.size = sizeof(segment);
  segment.token_class = token_class;
  segment.tokens = tokens;
  return segment;
}

const std::array kPrompt{segment(MKV_TEXT, 8), segment(MKV_IMAGE, 180), segment(MKV_TEXT, 12)};

using Opened = std::unique_ptr<mkv_runtime, decltype(&mkv_close)>;

Opened open(const mkv_config& config = small_config()) {
  std::array<char, 256> text{};
  mkv_runtime* runtime = nullptr;
  EXPECT_EQ(mkv_open(&config, &runtime, text.data(), text.size()), MKV_OK) << text.data();
  return {runtime, mkv_close};
}

std::string error_of(const mkv_runtime* runtime) {
  std::array<char, 256> text{};
  mkv_error_text(runtime, text.data(), text.size());
  return text.data();
}

// Memory of an engine, its runtime, which ends before it, and its calls.
class Engine {
 public:
  explicit Engine(Opened opened) : opened_(std::move(opened)), runtime_(opened_.get()) {
    for (std::size_t i = 0; i < rows.size(); ++i)
      rows[i] = to_fp16(i % kHeadDim == 0   ? -2.0f
                        : i % kHeadDim == 1 ? 1.75f
                                            : static_cast<float>(i * i / 7 % 16) / 4 - 2);
    EXPECT_EQ(mkv_register_memory(runtime_, rows.data(), rows.size() * 2), MKV_OK);
    EXPECT_EQ(mkv_register_memory(runtime_, outputs.data(), outputs.size() * 2), MKV_OK);
    EXPECT_EQ(mkv_register_memory(runtime_, sums.data(), sums.size() * 4), MKV_OK);
  }
  mkv_runtime* runtime() { return runtime_; }
  mkv_sequence begin() {
    mkv_sequence sequence = 0;
    std::int64_t reused = -1;
    EXPECT_EQ(mkv_begin(runtime_, kPrompt.data(), kPrompt.size(), INT64_MAX, &sequence, &reused),
              MKV_OK);
    EXPECT_EQ(reused, 0);
    return sequence;
  }
  mkv_append_request rows_of(mkv_sequence sequence, Tokens tokens, Tokens first = 0) {
    const auto at = static_cast<std::size_t>(first) * kKvRow;
    return {sizeof(mkv_append_request), sequence, tokens, rows.data() + at, rows.data() + at};
  }
  mkv_attend_request query_of(mkv_sequence sequence) {
    return {sizeof(mkv_attend_request), sequence,       1,
            rows.data() + 640,          outputs.data(), sums.data()};
  }
  mkv_status append(mkv_sequence sequence, Tokens tokens, Tokens first) {
    const mkv_append_request request = rows_of(sequence, tokens, first);
    mkv_status status = MKV_BUSY;
    for (int layer = 0; layer < kLayers; ++layer) {
      status = MKV_BUSY;
      for (int i = 0; i < 1000 && status == MKV_BUSY; ++i) {
        status = mkv_append(runtime_, &request, 1, layer, nullptr, 0);
        mkv_event event{};
        event.size = sizeof(event);
        if (status == MKV_BUSY) {
          EXPECT_EQ(mkv_poll(runtime_, kMillisecond, &event), MKV_TIMEOUT);
        }
      }
      if (status != MKV_OK) return status;
    }
    return status;
  }
  mkv_status attend(mkv_sequence sequence, int layer, bool partial = false) {
    const mkv_attend_request request = query_of(sequence);
    std::uint64_t step = 0;
    const auto call = partial ? mkv_attend_partial : mkv_attend;
    const mkv_status status = call(runtime_, &request, 1, layer, nullptr, 0, nullptr, &step);
    return status == MKV_OK ? mkv_wait(runtime_, step, kPatience) : status;
  }
  // The next event. A poll also returns without one when something has ended.
  mkv_event event() {
    mkv_event event{};
    event.size = sizeof(event);
    mkv_status status = MKV_TIMEOUT;
    for (int i = 0; i < 1000 && status == MKV_TIMEOUT; ++i)
      status = mkv_poll(runtime_, 10 * kMillisecond, &event);
    EXPECT_EQ(status, MKV_OK) << "no event";
    return event;
  }

  std::vector<std::uint16_t> rows = std::vector<std::uint16_t>(kTokens * kKvRow);
  std::array<std::uint16_t, kQueryRow> outputs{};
  std::array<float, kQueryHeads> sums{};

 private:
  Opened opened_;
  mkv_runtime* runtime_;
};

// The same calls of the C++ API.
class Reference {
 public:
  Reference(const mkv_config& config, Engine& engine) : runtime_(runtime_config(config)) {
    runtime_.register_memory(std::as_writable_bytes(std::span(engine.rows)));
    runtime_.register_memory(std::as_writable_bytes(std::span(outputs)));
    runtime_.register_memory(std::as_writable_bytes(std::span(sums)));
    const Segment prompt[] = {
        {TokenClass::text, 8}, {TokenClass::image, 180}, {TokenClass::text, 12}};
    sequence_ = runtime_.begin(prompt).value().sequence;
    query_ = runtime_.address(engine.rows.data() + 640, kQueryRow * 2);
  }
  void append(Engine& engine, Tokens tokens, Tokens first) {
    const Address rows =
        runtime_.address(engine.rows.data() + static_cast<std::size_t>(first) * kKvRow,
                         tokens * static_cast<Bytes>(kKvRow) * 2);
    const AppendRequest request{sequence_, tokens, rows, rows};
    for (int layer = 0; layer < kLayers; ++layer) {
      Status status = Status::busy;
      for (int i = 0; i < 1000 && status == Status::busy; ++i) {
        status = runtime_.append({&request, 1}, layer);
        if (status == Status::busy) {
          EXPECT_FALSE(runtime_.poll(kMillisecond).has_value());
        }
      }
      ASSERT_EQ(status, Status::ok);
    }
  }
  void attend(int layer, bool partial) {
    const AttendRequest request{sequence_, 1, query_,
                                runtime_.address(outputs.data(), kQueryRow * 2),
                                runtime_.address(sums.data(), kQueryHeads * 4)};
    const Attended attended = partial ? runtime_.attend_partial({&request, 1}, layer)
                                      : runtime_.attend({&request, 1}, layer);
    ASSERT_EQ(attended.status, Status::ok);
    ASSERT_EQ(runtime_.wait(attended.step, kPatience), Status::ok);
  }
  Runtime& runtime() { return runtime_; }
  SequenceId sequence() const { return sequence_; }

  std::array<std::uint16_t, kQueryRow> outputs{};
  std::array<float, kQueryHeads> sums{};

 private:
  Runtime runtime_;
  SequenceId sequence_{};
  Address query_{};
};

void expect_same(const Engine& engine, const Reference& reference) {
  for (std::size_t i = 0; i < kQueryRow; ++i)
    ASSERT_NEAR(from_fp16(engine.outputs[i]), from_fp16(reference.outputs[i]), 1e-2f) << i;
  for (std::size_t i = 0; i < kQueryHeads; ++i)
    ASSERT_NEAR(engine.sums[i], reference.sums[i], 1e-3f) << i;
}

// On a device too small for 16 bits. When a block leaves is a matter of time, so merging may round
// otherwise; INT4 holds these rows exactly.
TEST(CApi, AnswersAsTheCppApiDoes) {
  Engine engine(open());
  mkv_runtime* runtime = engine.runtime();
  Reference reference(small_config(), engine);
  const mkv_sequence sequence = engine.begin();
  for (Tokens first = 0; first < kTokens; first += 50) {
    ASSERT_EQ(engine.append(sequence, 50, first), MKV_OK);
    reference.append(engine, 50, first);
  }
  for (const bool partial : {false, true})
    for (int layer = 0; layer < kLayers; ++layer) {
      ASSERT_EQ(engine.attend(sequence, layer, partial), MKV_OK) << error_of(runtime);
      reference.attend(layer, partial);
      EXPECT_NE(engine.sums[0], 0.0f);
      expect_same(engine, reference);
    }
  mkv_counters counters{};
  counters.size = sizeof(counters);
  ASSERT_EQ(mkv_read_counters(runtime, &counters), MKV_OK);
  EXPECT_EQ(counters.appended_tokens, reference.runtime().counters().appended_tokens);
  EXPECT_EQ(counters.attends, 4);
  EXPECT_GT(counters.compressed_pages + counters.left_bytes, 0);

  std::int64_t kept = -1;
  ASSERT_EQ(mkv_truncate(runtime, sequence, 195, &kept), MKV_OK);
  EXPECT_EQ(kept, reference.runtime().truncate(reference.sequence(), 195).kept);
  EXPECT_EQ(mkv_tokens(runtime, sequence, 1), kept);
  ASSERT_EQ(engine.attend(sequence, 1), MKV_OK);
  reference.attend(1, false);
  expect_same(engine, reference);
}

TEST(CApi, AllThatHappensToASequence) {
  mkv_config config = small_config();
  config.device_bytes = 8 * kMiB;
  Engine engine(open(config));
  mkv_runtime* runtime = engine.runtime();
  EXPECT_EQ(mkv_can_admit(runtime, kPrompt.data(), kPrompt.size(), 100), MKV_OK);
  EXPECT_EQ(mkv_can_admit(runtime, kPrompt.data(), kPrompt.size(), 1'000'000), MKV_NO_SPACE);
  const mkv_sequence sequence = engine.begin();
  EXPECT_NE(sequence, 0u);
  EXPECT_EQ(mkv_reserve(runtime, sequence, 200), MKV_OK);
  EXPECT_EQ(mkv_reserve(runtime, sequence, 1'000'000), MKV_NO_SPACE);
  ASSERT_EQ(engine.append(sequence, kTokens, 0), MKV_OK);
  ASSERT_EQ(engine.attend(sequence, 0), MKV_OK);
  const auto outputs = engine.outputs;
  mkv_sequence copy = 0;
  ASSERT_EQ(mkv_fork(runtime, sequence, &copy), MKV_OK);
  EXPECT_NE(copy, sequence);
  ASSERT_EQ(mkv_release(runtime, sequence), MKV_OK);
  engine.outputs = {};
  ASSERT_EQ(engine.attend(copy, 0), MKV_OK);
  EXPECT_EQ(engine.outputs, outputs);
  EXPECT_EQ(mkv_pause(runtime, copy), MKV_OK);
  EXPECT_EQ(engine.attend(copy, 0), MKV_REJECTED);
  EXPECT_EQ(mkv_pause(runtime, copy), MKV_REJECTED);
  EXPECT_EQ(mkv_resume(runtime, copy), MKV_OK);
  EXPECT_EQ(mkv_prefetch(runtime, &copy, 1), MKV_OK);
  engine.outputs = {};
  ASSERT_EQ(engine.attend(copy, 0), MKV_OK);
  for (std::size_t i = 0; i < kQueryRow; ++i)
    ASSERT_NEAR(from_fp16(engine.outputs[i]), from_fp16(outputs[i]), 1e-2f) << i;

  std::string text(mkv_describe(runtime, nullptr, 0), '?');
  EXPECT_EQ(mkv_describe(runtime, text.data(), text.size() + 1), text.size());
  EXPECT_NE(text.find("200 tokens"), std::string::npos) << text;
  std::array<char, 4> cut{'x', 'x', 'x', 'x'};
  EXPECT_GT(mkv_describe(runtime, cut.data(), 3), 3u);
  EXPECT_EQ(cut, (std::array<char, 4>{text[0], text[1], '\0', 'x'}));
}

TEST(CApi, AStepWaitsForItsEventsAndRaisesItsOwnOrIsCancelled) {
  alignas(8) std::uint64_t written = 0, done = 0;
  Engine engine(open());
  mkv_runtime* runtime = engine.runtime();
  const mkv_sequence sequence = engine.begin();
  const mkv_engine_event when_written{sizeof(mkv_engine_event), &written, 1};
  const mkv_engine_event when_done{sizeof(mkv_engine_event), &done, 9};
  const mkv_append_request append = engine.rows_of(sequence, 8);
  const mkv_attend_request attend = engine.query_of(sequence);
  ASSERT_EQ(mkv_append(runtime, &append, 1, 0, &when_written, 1), MKV_OK);
  std::uint64_t step = 0;
  ASSERT_EQ(mkv_attend(runtime, &attend, 1, 0, &when_written, 1, &when_done, &step), MKV_OK);
  EXPECT_EQ(mkv_wait(runtime, step, 10 * kMillisecond), MKV_TIMEOUT);
  EXPECT_EQ(mkv_has_happened(&when_done), 0);
  ASSERT_EQ(mkv_cancel(runtime, step), MKV_OK);
  ASSERT_EQ(mkv_let_happen(&when_written), MKV_OK);
  const mkv_event event = engine.event();
  EXPECT_EQ(event.kind, MKV_EVENT_ATTENDED);
  EXPECT_EQ(event.status, MKV_CANCELLED);
  EXPECT_EQ(event.step, step);
  EXPECT_EQ(mkv_has_happened(&when_done), 1);
  EXPECT_EQ(mkv_cancel(runtime, step), MKV_REJECTED) << "it has ended";
  EXPECT_EQ(mkv_wait(runtime, step, kMillisecond), MKV_TIMEOUT) << "told already";
}

// Rows that are no numbers are refused when they are written.
TEST(CApi, SaysWhatIsLost) {
  Engine engine(open());
  mkv_runtime* runtime = engine.runtime();
  engine.rows[5] = 0x7e00;
  const mkv_sequence sequence = engine.begin();
  const mkv_append_request append = engine.rows_of(sequence, 64);
  ASSERT_EQ(mkv_append(runtime, &append, 1, 0, nullptr, 0), MKV_OK);
  const mkv_event event = engine.event();
  EXPECT_EQ(event.kind, MKV_EVENT_LOST);
  EXPECT_EQ(event.status, MKV_REJECTED);
  EXPECT_EQ(event.sequence, sequence);
  EXPECT_EQ(event.first_token, 0);
  EXPECT_EQ(engine.attend(sequence, 0), MKV_REJECTED);
  EXPECT_EQ(mkv_append(runtime, &append, 1, 1, nullptr, 0), MKV_REJECTED);
  std::int64_t kept = -1;
  EXPECT_EQ(mkv_truncate(runtime, sequence, event.first_token, &kept), MKV_OK);
  EXPECT_EQ(kept, 0);
  engine.rows[5] = 0;
  ASSERT_EQ(engine.append(sequence, 64, 0), MKV_OK);
  EXPECT_EQ(engine.attend(sequence, 0), MKV_OK);
}

TEST(CApi, NamesTextAsTheCppApiDoes) {
  std::mt19937 random(3);
  for (const std::size_t tokens : {0, 1, 2, 1000}) {
    std::vector<std::int32_t> ids(tokens);
    for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random());
    ContentId content{{1, 2, 3, 4}};
    ASSERT_EQ(mkv_content_of_tokens(ids.data(), tokens, content.words.data()), MKV_OK);
    EXPECT_EQ(content, content_of_tokens(ids));
  }
  ContentId content{{1, 2, 3, 4}};
  const std::int32_t id = 7;
  EXPECT_EQ(mkv_content_of_tokens(nullptr, 1, content.words.data()), MKV_REJECTED);
  EXPECT_EQ(mkv_content_of_tokens(&id, SIZE_MAX, content.words.data()), MKV_REJECTED);
  EXPECT_EQ(mkv_content_of_tokens(&id, 1, nullptr), MKV_REJECTED);
  EXPECT_EQ(content, (ContentId{{1, 2, 3, 4}}));
  EXPECT_EQ(mkv_content_of_tokens(nullptr, 0, content.words.data()), MKV_OK);
  EXPECT_EQ(content, content_of_tokens({}));
}

TEST(CApi, ReusesNoMoreThanTheBoundSays) {
  mkv_config config = small_config();
  config.device_bytes = 8 * kMiB;
  Engine engine(open(config));
  mkv_runtime* runtime = engine.runtime();
  std::array prompt = kPrompt;
  for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i].content[0] = i + 1;
  const auto begin = [&](std::int64_t bound, mkv_sequence& sequence) {
    std::int64_t reused = -1;
    EXPECT_EQ(mkv_begin(runtime, prompt.data(), prompt.size(), bound, &sequence, &reused), MKV_OK);
    return reused;
  };
  mkv_sequence sequence = 0;
  EXPECT_EQ(begin(INT64_MAX, sequence), 0);
  ASSERT_EQ(engine.append(sequence, kTokens, 0), MKV_OK);
  ASSERT_EQ(engine.attend(sequence, 0), MKV_OK);
  std::int64_t reusable = 0;
  for (int i = 0; i < 1000 && reusable == 0; ++i) {
    mkv_event event{};
    event.size = sizeof(event);
    EXPECT_EQ(mkv_poll(runtime, kMillisecond, &event), MKV_TIMEOUT);
    ASSERT_EQ(mkv_lookup(runtime, prompt.data(), prompt.size(), &reusable), MKV_OK);
  }
  // Behind the image; the text before it is no page, nor is that behind it.
  EXPECT_EQ(reusable, 195);
  for (const auto& [bound, reused] : {std::pair<std::int64_t, std::int64_t>{INT64_MAX, 195},
                                      {195, 195},
                                      {194, 188},
                                      {188, 188},
                                      {187, 0},
                                      {0, 0}})
    EXPECT_EQ(begin(bound, sequence), reused) << bound;
  mkv_sequence none = 0;
  EXPECT_EQ(mkv_begin(runtime, prompt.data(), prompt.size(), -1, &none, nullptr), MKV_REJECTED);
  EXPECT_EQ(none, 0u);
}

TEST(CApi, ACallerOfC11IsServed) {
  const char* failed = run_a_c11_engine();
  EXPECT_EQ(failed, nullptr) << failed;
}

// A config as older and newer headers have it.
TEST(CApi, TakesShorterAndLongerStructs) {
  mkv_config older = small_config();
  older.size = offsetof(mkv_config, verify_every);
  older.verify_every = -77;  // behind its end
  open(older);
  struct {
    mkv_config known = small_config();
    std::uint64_t unknown = 0;
  } newer;
  newer.known.size = sizeof(newer);
  open(newer.known);
  newer.unknown = std::uint64_t{1} << 56;
  mkv_runtime* runtime = nullptr;
  EXPECT_EQ(mkv_open(&newer.known, &runtime, nullptr, 0), MKV_UNSUPPORTED);
  mkv_config other_version = small_config();
  other_version.version = 2;
  EXPECT_EQ(mkv_open(&other_version, &runtime, nullptr, 0), MKV_UNSUPPORTED);
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{4097}, SIZE_MAX}) {
    mkv_config garbage = small_config();
    garbage.size = size;
    std::array<char, 64> text{};
    EXPECT_EQ(mkv_open(&garbage, &runtime, text.data(), text.size()), MKV_ERROR) << size;
    EXPECT_STRNE(text.data(), "");
  }
  EXPECT_EQ(runtime, nullptr);
}

TEST(CApi, TakesArraysOfShorterAndLongerStructs) {
  const Opened opened = open();
  mkv_runtime* runtime = opened.get();
  struct Newer {
    mkv_segment known;
    std::uint64_t unknown;
  };
  std::array<Newer, 3> newer{};
  for (std::size_t i = 0; i < 3; ++i) {
    newer[i].known = kPrompt[i];
    newer[i].known.size = sizeof(Newer);
  }
  mkv_sequence sequence = 0;
  const auto begin = [&] {
    return mkv_begin(runtime, &newer[0].known, 3, INT64_MAX, &sequence, nullptr);
  };
  EXPECT_EQ(begin(), MKV_OK);
  newer[2].unknown = 1;
  EXPECT_EQ(begin(), MKV_UNSUPPORTED);
  newer[2].unknown = 0;
  newer[1].known.size = sizeof(mkv_segment);
  EXPECT_EQ(begin(), MKV_REJECTED) << "not all of one size";
  // Without the content.
  struct Older {
    std::size_t size = offsetof(mkv_segment, content);
    std::int32_t token_class = MKV_TEXT;
    std::uint32_t floor = 0;
    std::int64_t tokens = 3;
  };
  const std::array<Older, 2> older{};
  EXPECT_EQ(mkv_begin(runtime, reinterpret_cast<const mkv_segment*>(older.data()), 2, INT64_MAX,
                      &sequence, nullptr),
            MKV_OK);
  EXPECT_EQ(mkv_begin(runtime, kPrompt.data(), SIZE_MAX, INT64_MAX, &sequence, nullptr),
            MKV_REJECTED);
}

TEST(CApi, FillsShorterAndLongerStructs) {
  const Opened opened = open();
  struct {
    mkv_counters known{};
    std::int64_t unknown = 7;
  } newer;
  newer.known.size = sizeof(newer);
  ASSERT_EQ(mkv_read_counters(opened.get(), &newer.known), MKV_OK);
  EXPECT_EQ(newer.unknown, 0);
  EXPECT_EQ(newer.known.size, sizeof(newer));
  mkv_counters older{};
  older.size = offsetof(mkv_counters, busy);
  older.busy = 7;
  ASSERT_EQ(mkv_read_counters(opened.get(), &older), MKV_OK);
  EXPECT_EQ(older.busy, 7) << "beyond its end";
  older.size = 0;
  EXPECT_EQ(mkv_read_counters(opened.get(), &older), MKV_REJECTED);
}

TEST(CApi, OpenSaysInALineWhatCannotBe) {
  const auto complaint = [](auto change) -> std::string {
    mkv_config config = small_config();
    change(config);
    std::array<char, 256> text{};
    auto* runtime = reinterpret_cast<mkv_runtime*>(&config);
    EXPECT_EQ(mkv_open(&config, &runtime, text.data(), text.size()), MKV_ERROR);
    EXPECT_EQ(runtime, nullptr);
    const std::string found = text.data();
    EXPECT_EQ(found.find('\n'), std::string::npos) << found;
    return found;
  };
  const auto expect = [](const std::string& found, const char* part) {
    EXPECT_NE(found.find(part), std::string::npos) << found;
  };
  expect(complaint([](auto& config) { config.policy = "fp17"; }), "fp16-resident, fp16-stream");
  expect(complaint([](auto& config) { config.visual_low = "int3"; }), "'int3'");
  expect(complaint([](auto& config) { config.high = "int8"; }), "16 bits");
  expect(complaint([](auto& config) { config.keep = 2; }), "keep");
  expect(complaint([](auto& config) { config.keep = NAN; }), "keep");
  expect(complaint([](auto& config) { config.places = 8; }), "places");
  expect(complaint([](auto& config) { config.input = 2; }), "MKV_BF16");
  expect(complaint([](auto& config) { config.verify_every = -2; }), "verify_every");
  expect(complaint([](auto& config) { config.device_memory = &config, config.device_bytes = 0; }),
         "device_bytes");
  expect(complaint([](auto& config) { config.layers = 0; }), "layers");
  expect(complaint([](auto& config) { config.query_heads = 0; }), "query heads");
  expect(complaint([](auto& config) { config.layers = INT32_MAX; }), "4096 at most");
  expect(complaint([](auto& config) { config.attention_threads = INT32_MAX; }), "threads");
  for (std::int64_t mkv_config::*bytes :
       {&mkv_config::device_bytes, &mkv_config::host_bytes, &mkv_config::tables_bytes,
        &mkv_config::staging_slot_bytes, &mkv_config::partials_bytes})
    for (const std::int64_t value : {INT64_MAX, INT64_MIN, std::int64_t{-2}})
      expect(complaint([&](auto& config) { config.*bytes = value; }), "");
  std::array<char, 5> cut{'x', 'x', 'x', 'x', 'x'};
  mkv_config config = small_config();
  config.policy = "fp17";
  mkv_runtime* runtime = nullptr;
  EXPECT_EQ(mkv_open(&config, &runtime, cut.data(), 4), MKV_ERROR);
  EXPECT_STREQ(cut.data(), "pol");
  EXPECT_EQ(cut[4], 'x');
  EXPECT_EQ(mkv_open(&config, nullptr, nullptr, 0), MKV_ERROR);
  EXPECT_EQ(mkv_open(nullptr, &runtime, nullptr, 100), MKV_ERROR);
}

TEST(CApi, PoliciesAreThoseOfTheirNamesUnlessToldOtherwise) {
  mkv_config given = small_config();
  given.policy = "uniform-int4";
  given.visual_low = given.text_low = nullptr;
  given.places = 0;
  RuntimeConfig config = runtime_config(given);
  EXPECT_EQ(config.policy.selection, Selection::none);
  EXPECT_EQ(config.policy.text_low, both(int4_grouped(128)));
  EXPECT_TRUE(config.policy.places.cpu);
  EXPECT_EQ(config.policy.window_tokens, 0);
  given.text_low = "none";
  given.visual_low = "int8-int4-g32";
  given.window_tokens = 7, given.input = MKV_BF16, given.keep = 0.5;
  config = runtime_config(given);
  EXPECT_FALSE(config.policy.text_low.has_value());
  EXPECT_EQ(config.policy.visual_low, (KvFormat{int8_token_head(), int4_grouped(32)}));
  EXPECT_EQ(config.policy.window_tokens, 7);
  EXPECT_EQ(config.policy.high, both(bf16()));
  EXPECT_EQ(config.policy.keep, 0.5);
  given.policy = "text-centric", given.window_tokens = given.pinned_tokens = -1;
  given.verify_every = -1, given.keep = 0;
  config = runtime_config(given);
  EXPECT_EQ(config.policy.window_tokens, 0);
  EXPECT_EQ(config.policy.pinned_tokens, 0);
  EXPECT_EQ(config.verify_every, 0);
  EXPECT_EQ(config.policy.keep, 0.10);
  mkv_config least{};
  least.size = sizeof(least);
  const RuntimeConfig defaults;
  config = runtime_config(least);
  EXPECT_EQ(config.policy.name, "fp16-resident");
  EXPECT_EQ(config.device_bytes, defaults.device_bytes);
  EXPECT_EQ(config.host_bytes, defaults.host_bytes);
  EXPECT_EQ(config.tables_bytes, defaults.tables_bytes);
  EXPECT_EQ(config.staging_slots, defaults.staging_slots);
  EXPECT_EQ(config.verify_every, defaults.verify_every);
  EXPECT_EQ(config.overdue_ns, defaults.overdue_ns);
  EXPECT_EQ(config.tensor_parallel_ranks, 1);
}

TEST(CApi, RejectsNullEverywhere) {
  Engine engine(open());
  mkv_runtime* runtime = engine.runtime();
  const mkv_sequence sequence = engine.begin();
  ASSERT_EQ(engine.append(sequence, 8, 0), MKV_OK);
  const mkv_append_request append = engine.rows_of(sequence, 8);
  const mkv_attend_request attend = engine.query_of(sequence);
  mkv_sequence other = 0;
  std::uint64_t step = 0;
  mkv_event event{};
  mkv_counters counters{};
  event.size = sizeof(event), counters.size = sizeof(counters);

  mkv_close(nullptr);
  EXPECT_EQ(mkv_error_text(nullptr, nullptr, 0), 0u);
  EXPECT_EQ(mkv_describe(nullptr, nullptr, 10), 0u);
  EXPECT_EQ(mkv_tokens(nullptr, sequence, 0), 0);
  EXPECT_EQ(mkv_let_happen(nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_has_happened(nullptr), 0);
  EXPECT_EQ(mkv_register_memory(nullptr, &event, 8), MKV_REJECTED);
  EXPECT_EQ(mkv_begin(nullptr, nullptr, 0, INT64_MAX, &other, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_can_admit(nullptr, nullptr, 0, 1), MKV_REJECTED);
  EXPECT_EQ(mkv_reserve(nullptr, sequence, 1), MKV_REJECTED);
  EXPECT_EQ(mkv_append(nullptr, &append, 1, 0, nullptr, 0), MKV_REJECTED);
  EXPECT_EQ(mkv_attend(nullptr, &attend, 1, 0, nullptr, 0, nullptr, &step), MKV_REJECTED);
  EXPECT_EQ(mkv_attend_partial(nullptr, &attend, 1, 0, nullptr, 0, nullptr, &step), MKV_REJECTED);
  EXPECT_EQ(mkv_cancel(nullptr, 1), MKV_REJECTED);
  EXPECT_EQ(mkv_prefetch(nullptr, &sequence, 1), MKV_REJECTED);
  EXPECT_EQ(mkv_pause(nullptr, sequence), MKV_REJECTED);
  EXPECT_EQ(mkv_resume(nullptr, sequence), MKV_REJECTED);
  EXPECT_EQ(mkv_fork(nullptr, sequence, &other), MKV_REJECTED);
  EXPECT_EQ(mkv_truncate(nullptr, sequence, 0, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_release(nullptr, sequence), MKV_REJECTED);
  EXPECT_EQ(mkv_poll(nullptr, 0, &event), MKV_REJECTED);
  EXPECT_EQ(mkv_wait(nullptr, 1, 0), MKV_REJECTED);
  EXPECT_EQ(mkv_read_counters(nullptr, &counters), MKV_REJECTED);

  EXPECT_EQ(mkv_register_memory(runtime, nullptr, 8), MKV_REJECTED);
  EXPECT_EQ(mkv_begin(runtime, nullptr, 1, INT64_MAX, &other, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_begin(runtime, kPrompt.data(), 1, INT64_MAX, nullptr, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_can_admit(runtime, nullptr, 1, 1), MKV_REJECTED);
  EXPECT_EQ(mkv_append(runtime, nullptr, 1, 0, nullptr, 0), MKV_REJECTED);
  EXPECT_EQ(mkv_append(runtime, &append, 1, 0, nullptr, 1), MKV_REJECTED);
  EXPECT_EQ(mkv_attend(runtime, nullptr, 1, 0, nullptr, 0, nullptr, &step), MKV_REJECTED);
  EXPECT_EQ(mkv_attend(runtime, &attend, 1, 0, nullptr, 1, nullptr, &step), MKV_REJECTED);
  EXPECT_EQ(mkv_attend(runtime, &attend, 1, 0, nullptr, 0, nullptr, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_prefetch(runtime, nullptr, 1), MKV_REJECTED);
  EXPECT_EQ(mkv_fork(runtime, sequence, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_poll(runtime, 0, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_read_counters(runtime, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_tokens(runtime, sequence, 0), 8) << "all that changed nothing";
}

TEST(CApi, RejectsWhatCannotBe) {
  Engine engine(open());
  mkv_runtime* runtime = engine.runtime();
  const mkv_sequence sequence = engine.begin();
  ASSERT_EQ(engine.append(sequence, 8, 0), MKV_OK);
  const auto append = [&](auto change, int layer = 0) {
    mkv_append_request request = engine.rows_of(sequence, 8);
    change(request);
    return mkv_append(runtime, &request, 1, layer, nullptr, 0);
  };
  const auto attend = [&](auto change, int layer = 0) {
    mkv_attend_request request = engine.query_of(sequence);
    change(request);
    std::uint64_t step = 0;
    return mkv_attend(runtime, &request, 1, layer, nullptr, 0, nullptr, &step);
  };
  const auto nothing = [](auto&) {};
  for (const Tokens tokens : {Tokens{0}, Tokens{-1}, INT64_MAX, INT64_MIN}) {
    EXPECT_EQ(append([&](auto& request) { request.tokens = tokens; }), MKV_REJECTED);
    EXPECT_EQ(attend([&](auto& request) { request.tokens = tokens; }), MKV_REJECTED);
    mkv_segment bad = segment(MKV_TEXT, tokens);
    mkv_sequence other = 0;
    EXPECT_EQ(mkv_begin(runtime, &bad, 1, INT64_MAX, &other, nullptr), MKV_REJECTED);
    EXPECT_EQ(mkv_can_admit(runtime, &bad, 1, 0), MKV_REJECTED);
  }
  for (const int layer : {-1, kLayers, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(append(nothing, layer), MKV_REJECTED);
    EXPECT_EQ(attend(nothing, layer), MKV_REJECTED);
    EXPECT_EQ(mkv_tokens(runtime, sequence, layer), 0);
  }
  // Not the engine's registered memory.
  EXPECT_EQ(append([&](auto& request) { request.keys = &request; }), MKV_ERROR);
  EXPECT_NE(error_of(runtime).find("no registered memory"), std::string::npos);
  EXPECT_EQ(append([&](auto& request) { request.values = nullptr; }), MKV_ERROR);
  EXPECT_EQ(append([&](auto& request) { request.tokens = INT32_MAX; }), MKV_ERROR);
  EXPECT_EQ(attend([&](auto& request) { request.queries = &request; }), MKV_ERROR);
  EXPECT_EQ(attend([&](auto& request) { request.outputs = nullptr; }), MKV_ERROR);
  EXPECT_EQ(attend([&](auto& request) { request.log_sum_exp = &engine.sums[1]; }), MKV_ERROR);
  EXPECT_EQ(attend(nothing), MKV_OK);
  EXPECT_EQ(error_of(runtime), "");
  EXPECT_EQ(mkv_register_memory(runtime, &engine, SIZE_MAX), MKV_REJECTED);
  EXPECT_EQ(mkv_register_memory(runtime, &engine, 0), MKV_REJECTED);

  const mkv_append_request request = engine.rows_of(sequence, 8);
  mkv_engine_event event{sizeof(event), nullptr, 1};
  EXPECT_EQ(mkv_append(runtime, &request, 1, 0, &event, 1), MKV_REJECTED);
  alignas(8) std::array<std::byte, 16> words{};
  event.word = reinterpret_cast<std::uint64_t*>(words.data() + 1);
  EXPECT_EQ(mkv_append(runtime, &request, 1, 0, &event, 1), MKV_REJECTED);
  EXPECT_EQ(mkv_let_happen(&event), MKV_REJECTED);
  EXPECT_EQ(mkv_append(runtime, &request, 0, 0, nullptr, 0), MKV_REJECTED) << "no batch at all";

  EXPECT_EQ(mkv_truncate(runtime, sequence, -1, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_truncate(runtime, sequence, INT64_MAX, nullptr), MKV_OK) << "nothing to drop";
  EXPECT_EQ(mkv_reserve(runtime, sequence, -1), MKV_REJECTED);
  EXPECT_EQ(mkv_reserve(runtime, sequence, INT64_MAX), MKV_REJECTED);
  EXPECT_EQ(mkv_can_admit(runtime, kPrompt.data(), 1, -1), MKV_REJECTED);
  const std::array many{segment(MKV_TEXT, INT32_MAX), segment(MKV_TEXT, 1)};
  EXPECT_EQ(mkv_can_admit(runtime, many.data(), 2, 0), MKV_REJECTED) << "no positions for them";
  mkv_segment bad = segment(4, 1);
  mkv_sequence other = 0;
  EXPECT_EQ(mkv_begin(runtime, &bad, 1, INT64_MAX, &other, nullptr), MKV_REJECTED);
  bad = segment(-1, 1);
  EXPECT_EQ(mkv_begin(runtime, &bad, 1, INT64_MAX, &other, nullptr), MKV_REJECTED);
  bad = segment(MKV_TEXT, 1), bad.floor = 2;
  EXPECT_EQ(mkv_begin(runtime, &bad, 1, INT64_MAX, &other, nullptr), MKV_REJECTED);
  EXPECT_EQ(mkv_begin(runtime, nullptr, 0, INT64_MAX, &other, nullptr), MKV_OK)
      << "it begins with nothing";

  mkv_event told{};
  told.size = 7;
  EXPECT_EQ(mkv_poll(runtime, 0, &told), MKV_REJECTED);
  for (const Nanos timeout_ns : {Nanos{0}, Nanos{-1}, INT64_MIN})
    EXPECT_EQ(mkv_wait(runtime, 12345, timeout_ns), MKV_TIMEOUT);
  EXPECT_EQ(mkv_cancel(runtime, 12345), MKV_REJECTED);
}

TEST(CApi, AReleasedSequenceIsNone) {
  Engine engine(open());
  mkv_runtime* runtime = engine.runtime();
  const mkv_sequence gone = engine.begin();
  ASSERT_EQ(mkv_release(runtime, gone), MKV_OK);
  const mkv_sequence next = engine.begin();
  ASSERT_EQ(engine.append(next, 8, 0), MKV_OK);
  for (const mkv_sequence sequence : {gone, mkv_sequence{0}, mkv_sequence{UINT64_MAX}, next + 1,
                                      next ^ (std::uint64_t{1} << 63)}) {
    EXPECT_EQ(engine.append(sequence, 8, 0), MKV_REJECTED);
    EXPECT_EQ(engine.attend(sequence, 0), MKV_REJECTED);
    EXPECT_EQ(mkv_release(runtime, sequence), MKV_REJECTED);
    EXPECT_EQ(mkv_pause(runtime, sequence), MKV_REJECTED);
    EXPECT_EQ(mkv_resume(runtime, sequence), MKV_REJECTED);
    EXPECT_EQ(mkv_reserve(runtime, sequence, 1), MKV_REJECTED);
    EXPECT_EQ(mkv_truncate(runtime, sequence, 0, nullptr), MKV_REJECTED);
    EXPECT_EQ(mkv_prefetch(runtime, &sequence, 1), MKV_REJECTED);
    mkv_sequence copy = 77;
    EXPECT_EQ(mkv_fork(runtime, sequence, &copy), MKV_REJECTED);
    EXPECT_EQ(copy, 77u);
    EXPECT_EQ(mkv_tokens(runtime, sequence, 0), 0);
  }
  EXPECT_EQ(mkv_tokens(runtime, next, 0), 8);
}

TEST(CApi, NoExceptionComesOut) {
  std::array<char, 16> text{};
  const auto outcome = [&](auto call) { return guarded(text, call); };
  EXPECT_EQ(outcome([]() -> mkv_status { throw Error("a long line of text"); }), MKV_ERROR);
  EXPECT_STREQ(text.data(), "a long line of ");
  EXPECT_EQ(outcome([]() -> mkv_status { throw std::bad_alloc(); }), MKV_NO_SPACE);
  EXPECT_STREQ(text.data(), "the process is ");
  EXPECT_EQ(outcome([]() -> mkv_status { throw std::length_error("length"); }), MKV_INTERNAL);
  EXPECT_STREQ(text.data(), "length");
  EXPECT_EQ(outcome([]() -> mkv_status { throw 1; }), MKV_INTERNAL);
  EXPECT_EQ(outcome([]() -> mkv_status { return MKV_BUSY; }), MKV_BUSY);
  EXPECT_STREQ(text.data(), "");
  EXPECT_EQ(guarded({}, []() -> mkv_status { throw 1; }), MKV_INTERNAL);
}

TEST(CApi, NamesItsStatusesAndItsVersion) {
  EXPECT_STREQ(mkv_status_name(MKV_OK), "ok");
  EXPECT_STREQ(mkv_status_name(MKV_NO_SPACE), "no space");
  EXPECT_STREQ(mkv_status_name(MKV_ERROR), "error");
  EXPECT_STREQ(mkv_status_name(MKV_INTERNAL), "internal error");
  for (const mkv_status none : {-1, 9, 99, 102, INT32_MAX, INT32_MIN})
    EXPECT_STREQ(mkv_status_name(none), "unknown");
  EXPECT_EQ(mkv_api_version(), MKV_API_VERSION);
  EXPECT_STREQ(mkv_version(), MODALKV_PROJECT_VERSION);
}

}  // namespace
}  // namespace modalkv
