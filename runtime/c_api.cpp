// The C API: each entry checks what it is given, calls the C++ API and gives back what that says.
#include <algorithm>
#include <array>
#include <atomic>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "modalkv/content.hpp"
#include "modalkv/modalkv.h"
#include "modalkv/runtime.hpp"
#include "modalkv/version.hpp"
#include "runtime/c_boundary.hpp"
#include "runtime/c_config.hpp"

using modalkv::Status;

// A runtime, what its requests are measured by, and what is kept for its memory from call to call.
struct mkv_runtime {
  explicit mkv_runtime(const modalkv::RuntimeConfig& config)
      : runtime(config),
        query_bytes(modalkv::Bytes{config.query_heads} * config.head_dim * 2),
        kv_bytes(modalkv::Bytes{config.kv_heads} * config.head_dim * 2),
        sums_bytes(modalkv::Bytes{config.query_heads} * 4) {}

  modalkv::Runtime runtime;
  modalkv::Bytes query_bytes, kv_bytes, sums_bytes;  // of a token
  std::vector<modalkv::Segment> prompt{};
  std::vector<modalkv::AppendRequest> appends{};
  std::vector<modalkv::AttendRequest> attends{};
  std::vector<modalkv::EngineEvent> after{};
  std::vector<modalkv::SequenceId> sequences{};
  std::array<char, 256> error{};
};

namespace modalkv {
namespace {

constexpr mkv_status to_c(Status status) {
  return static_cast<mkv_status>(status);
}
static_assert(to_c(Status::ok) == MKV_OK && to_c(Status::busy) == MKV_BUSY &&
              to_c(Status::rejected) == MKV_REJECTED &&
              to_c(Status::unsupported) == MKV_UNSUPPORTED &&
              to_c(Status::io_error) == MKV_IO_ERROR && to_c(Status::checksum) == MKV_CHECKSUM &&
              to_c(Status::timeout) == MKV_TIMEOUT && to_c(Status::cancelled) == MKV_CANCELLED &&
              to_c(Status::no_space) == MKV_NO_SPACE);
static_assert(static_cast<int>(TokenClass::text) == MKV_TEXT &&
              static_cast<int>(TokenClass::image) == MKV_IMAGE &&
              static_cast<int>(TokenClass::video) == MKV_VIDEO &&
              static_cast<int>(TokenClass::audio) == MKV_AUDIO && kTokenClasses == 4);
static_assert(static_cast<int>(PrecisionFloor::policy) == MKV_FLOOR_POLICY &&
              static_cast<int>(PrecisionFloor::high) == MKV_FLOOR_HIGH);
static_assert(static_cast<int>(RuntimeEvent::Kind::attended) == MKV_EVENT_ATTENDED &&
              static_cast<int>(RuntimeEvent::Kind::lost) == MKV_EVENT_LOST);

// A word of C is an atomic word of C++.
using Word = std::atomic<std::uint64_t>;
static_assert(sizeof(Word) == sizeof(std::uint64_t) && alignof(Word) == 8 &&
              Word::is_always_lock_free);

constexpr Tokens kMostTokens = 0x7fffffff;  // of a sequence: positions have 32 bits

constexpr mkv_sequence to_c(SequenceId id) {
  return std::uint64_t{id.generation} << 32 | id.index;
}
constexpr SequenceId to_cpp(mkv_sequence sequence) {
  return {static_cast<std::uint32_t>(sequence), static_cast<std::uint32_t>(sequence >> 32)};
}

mkv_status to_cpp(const mkv_engine_event& from, EngineEvent& to) {
  if (from.word == nullptr || reinterpret_cast<std::uintptr_t>(from.word) % alignof(Word) != 0)
    return MKV_REJECTED;
  to = {reinterpret_cast<Word*>(from.word), from.value};
  return MKV_OK;
}

mkv_status read_event(const mkv_engine_event* from, EngineEvent& to) {
  mkv_engine_event event;
  if (const mkv_status status = read_struct(from, event); status != MKV_OK) return status;
  return to_cpp(event, to);
}

mkv_status read_events(const mkv_engine_event* from, std::size_t events,
                       std::vector<EngineEvent>& to) {
  to.clear();
  return read_array(from, events,
                    [&](const mkv_engine_event& one) { return to_cpp(one, to.emplace_back()); });
}

mkv_status read_prompt(const mkv_segment* from, std::size_t segments, std::vector<Segment>& to) {
  to.clear();
  Tokens left = kMostTokens;
  return read_array(from, segments, [&](const mkv_segment& one) -> mkv_status {
    if (one.token_class < 0 || one.token_class >= kTokenClasses || one.floor > MKV_FLOOR_HIGH ||
        one.tokens < 1 || one.tokens > left)
      return MKV_REJECTED;
    left -= one.tokens;
    Segment& segment = to.emplace_back();
    segment.token_class = static_cast<TokenClass>(one.token_class);
    segment.tokens = one.tokens;
    std::copy_n(one.content, segment.content.words.size(), segment.content.words.begin());
    segment.floor = static_cast<PrecisionFloor>(one.floor);
    return MKV_OK;
  });
}

mkv_status read_appends(mkv_runtime& in, const mkv_append_request* from, std::size_t requests) {
  in.appends.clear();
  return read_array(from, requests, [&](const mkv_append_request& one) -> mkv_status {
    if (one.tokens < 1 || one.tokens > kMostTokens) return MKV_REJECTED;
    const Bytes bytes = one.tokens * in.kv_bytes;
    in.appends.push_back({to_cpp(one.sequence), one.tokens, in.runtime.address(one.keys, bytes),
                          in.runtime.address(one.values, bytes)});
    return MKV_OK;
  });
}

mkv_status read_attends(mkv_runtime& in, const mkv_attend_request* from, std::size_t requests) {
  in.attends.clear();
  return read_array(from, requests, [&](const mkv_attend_request& one) -> mkv_status {
    if (one.tokens < 1 || one.tokens > kMostTokens) return MKV_REJECTED;
    const Bytes bytes = one.tokens * in.query_bytes;
    AttendRequest request{to_cpp(one.sequence), one.tokens, in.runtime.address(one.queries, bytes),
                          in.runtime.address(one.outputs, bytes)};
    if (one.log_sum_exp != nullptr)
      request.log_sum_exp = in.runtime.address(one.log_sum_exp, one.tokens * in.sums_bytes);
    in.attends.push_back(request);
    return MKV_OK;
  });
}

// `call()` of a runtime that is there.
template <typename Call>
mkv_status with(mkv_runtime* runtime, Call&& call) noexcept {
  if (runtime == nullptr) return MKV_REJECTED;
  return guarded(runtime->error, std::forward<Call>(call));
}

template <typename Attend>
mkv_status attend(mkv_runtime* runtime, const mkv_attend_request* batch, std::size_t requests,
                  const mkv_engine_event* after, std::size_t events, const mkv_engine_event* done,
                  std::uint64_t* step, Attend&& attend) noexcept {
  return with(runtime, [&] {
    if (step == nullptr) return mkv_status{MKV_REJECTED};
    EngineEvent raised{};
    mkv_status status = read_attends(*runtime, batch, requests);
    if (status == MKV_OK) status = read_events(after, events, runtime->after);
    if (status == MKV_OK && done != nullptr) status = read_event(done, raised);
    if (status != MKV_OK) return status;
    const Attended attended = attend(runtime->attends, runtime->after, raised);
    *step = attended.step;
    return to_c(attended.status);
  });
}

mkv_event to_c(const RuntimeEvent& from) {
  mkv_event event{};
  event.kind = static_cast<std::int32_t>(from.kind);
  event.status = to_c(from.status);
  event.step = from.step;
  event.layer = from.layer;
  if (from.kind == RuntimeEvent::Kind::lost) {
    event.sequence = to_c(from.sequence);
    event.first_token = from.first_token;
  }
  return event;
}

mkv_counters to_c(const RuntimeCounters& from) {
  mkv_counters counters{};
  counters.appended_tokens = from.appended_tokens;
  counters.attends = from.attends;
  counters.busy = from.busy;
  counters.no_space = from.no_space;
  counters.streamed_bytes = from.streamed_bytes;
  counters.prefetched_bytes = from.prefetched_bytes;
  counters.wasted_prefetch_bytes = from.wasted_prefetch_bytes;
  counters.left_bytes = from.left_bytes;
  counters.arrived_bytes = from.arrived_bytes;
  counters.compressed_pages = from.compressed_pages;
  counters.verified_pages = from.verified_pages;
  counters.corrupt_pages = from.corrupt_pages;
  counters.lost_tokens = from.lost_tokens;
  counters.failed_groups = from.failed_groups;
  counters.timeouts = from.timeouts;
  counters.known_tokens = from.known_tokens;
  counters.reused_tokens = from.reused_tokens;
  counters.evicted_segments = from.evicted_segments;
  counters.stored_segments = from.stored_segments;
  counters.loaded_segments = from.loaded_segments;
  return counters;
}

}  // namespace
}  // namespace modalkv

using namespace modalkv;

const char* mkv_status_name(mkv_status status) {
  if (status >= MKV_OK && status <= MKV_NO_SPACE) return name(static_cast<Status>(status)).data();
  return status == MKV_ERROR ? "error" : status == MKV_INTERNAL ? "internal error" : "unknown";
}

uint32_t mkv_api_version(void) {
  return MKV_API_VERSION;
}

const char* mkv_version(void) {
  static const std::string text = [] {
    const Version version = library_version();
    return std::to_string(version.major_number) + "." + std::to_string(version.minor_number) + "." +
           std::to_string(version.patch_number);
  }();
  return text.c_str();
}

mkv_status mkv_content_of_tokens(const int32_t* token_ids, size_t tokens, uint64_t content[4]) {
  return guarded({}, [&]() -> mkv_status {
    if ((token_ids == nullptr && tokens > 0) || tokens > kMostTokens || content == nullptr)
      return MKV_REJECTED;
    std::ranges::copy(content_of_tokens({token_ids, tokens}).words, content);
    return MKV_OK;
  });
}

mkv_status mkv_let_happen(const mkv_engine_event* event) {
  EngineEvent known{};
  const mkv_status status = read_event(event, known);
  if (status == MKV_OK) let_happen(known);
  return status;
}

int32_t mkv_has_happened(const mkv_engine_event* event) {
  EngineEvent known{};
  return read_event(event, known) == MKV_OK && has_happened(known) ? 1 : 0;
}

mkv_status mkv_open(const mkv_config* config, mkv_runtime** runtime, char* error_text,
                    size_t error_bytes) {
  const std::span<char> text(error_text, error_text == nullptr ? 0 : error_bytes);
  return guarded(text, [&]() -> mkv_status {
    if (runtime == nullptr) throw Error("mkv_open: there is no place for the runtime");
    *runtime = nullptr;
    mkv_config known;
    const mkv_status status = read_struct(config, known);
    if (status == MKV_REJECTED) throw Error("mkv_open: the configuration has no size");
    if (status != MKV_OK || known.version != MKV_API_VERSION) return MKV_UNSUPPORTED;
    *runtime = new mkv_runtime(runtime_config(known));
    return MKV_OK;
  });
}

void mkv_close(mkv_runtime* runtime) {
  delete runtime;
}

size_t mkv_error_text(const mkv_runtime* runtime, char* text, size_t bytes) {
  const char* error = runtime == nullptr ? "" : runtime->error.data();
  return put_text(error, text, bytes);
}

mkv_status mkv_register_memory(mkv_runtime* runtime, void* memory, size_t bytes) {
  return with(runtime, [&]() -> mkv_status {
    if (memory == nullptr || bytes == 0 || bytes > PTRDIFF_MAX) return MKV_REJECTED;
    runtime->runtime.register_memory({static_cast<std::byte*>(memory), bytes});
    return MKV_OK;
  });
}

mkv_status mkv_begin(mkv_runtime* runtime, const mkv_segment* prompt, size_t segments,
                     int64_t max_reused_tokens, mkv_sequence* sequence, int64_t* reused) {
  return with(runtime, [&]() -> mkv_status {
    if (sequence == nullptr || max_reused_tokens < 0) return MKV_REJECTED;
    if (const mkv_status status = read_prompt(prompt, segments, runtime->prompt); status != MKV_OK)
      return status;
    const auto begun = runtime->runtime.begin(runtime->prompt, max_reused_tokens);
    if (!begun) return MKV_REJECTED;
    *sequence = to_c(begun->sequence);
    if (reused != nullptr) *reused = begun->reused;
    return MKV_OK;
  });
}

mkv_status mkv_lookup(mkv_runtime* runtime, const mkv_segment* prompt, size_t segments,
                      int64_t* reusable) {
  return with(runtime, [&]() -> mkv_status {
    if (reusable == nullptr) return MKV_REJECTED;
    if (const mkv_status status = read_prompt(prompt, segments, runtime->prompt); status != MKV_OK)
      return status;
    *reusable = runtime->runtime.lookup(runtime->prompt);
    return MKV_OK;
  });
}

mkv_status mkv_forget_content(mkv_runtime* runtime) {
  return with(runtime, [&]() -> mkv_status {
    runtime->runtime.forget_content();
    return MKV_OK;
  });
}

mkv_status mkv_can_admit(mkv_runtime* runtime, const mkv_segment* prompt, size_t segments,
                         int64_t new_tokens) {
  return with(runtime, [&]() -> mkv_status {
    if (new_tokens < 0 || new_tokens > kMostTokens) return MKV_REJECTED;
    if (const mkv_status status = read_prompt(prompt, segments, runtime->prompt); status != MKV_OK)
      return status;
    return runtime->runtime.can_admit(runtime->prompt, new_tokens) ? MKV_OK : MKV_NO_SPACE;
  });
}

mkv_status mkv_reserve(mkv_runtime* runtime, mkv_sequence sequence, int64_t tokens) {
  return with(runtime, [&]() -> mkv_status {
    if (tokens < 0 || tokens > kMostTokens) return MKV_REJECTED;
    return to_c(runtime->runtime.reserve(to_cpp(sequence), tokens));
  });
}

mkv_status mkv_append(mkv_runtime* runtime, const mkv_append_request* batch, size_t requests,
                      int32_t layer, const mkv_engine_event* after, size_t events) {
  return with(runtime, [&] {
    mkv_status status = read_appends(*runtime, batch, requests);
    if (status == MKV_OK) status = read_events(after, events, runtime->after);
    if (status != MKV_OK) return status;
    return to_c(runtime->runtime.append(runtime->appends, layer, runtime->after));
  });
}

mkv_status mkv_attend(mkv_runtime* runtime, const mkv_attend_request* batch, size_t requests,
                      int32_t layer, const mkv_engine_event* after, size_t events,
                      const mkv_engine_event* done, uint64_t* step) {
  return attend(runtime, batch, requests, after, events, done, step,
                [&](const auto& attends, const auto& events_before, EngineEvent raised) {
                  return runtime->runtime.attend(attends, layer, events_before, raised);
                });
}

mkv_status mkv_attend_partial(mkv_runtime* runtime, const mkv_attend_request* batch,
                              size_t requests, int32_t layer, const mkv_engine_event* after,
                              size_t events, const mkv_engine_event* done, uint64_t* step) {
  return attend(runtime, batch, requests, after, events, done, step,
                [&](const auto& attends, const auto& events_before, EngineEvent raised) {
                  return runtime->runtime.attend_partial(attends, layer, events_before, raised);
                });
}

mkv_status mkv_cancel(mkv_runtime* runtime, uint64_t step) {
  return with(runtime, [&]() -> mkv_status {
    return runtime->runtime.cancel(step) ? MKV_OK : MKV_REJECTED;
  });
}

mkv_status mkv_prefetch(mkv_runtime* runtime, const mkv_sequence* batch, size_t sequences) {
  return with(runtime, [&]() -> mkv_status {
    if ((batch == nullptr && sequences > 0) || sequences > kLargestArray) return MKV_REJECTED;
    runtime->sequences.clear();
    for (size_t i = 0; i < sequences; ++i) runtime->sequences.push_back(to_cpp(batch[i]));
    return to_c(runtime->runtime.prefetch(runtime->sequences));
  });
}

mkv_status mkv_pause(mkv_runtime* runtime, mkv_sequence sequence) {
  return with(runtime, [&] { return to_c(runtime->runtime.pause(to_cpp(sequence))); });
}

mkv_status mkv_resume(mkv_runtime* runtime, mkv_sequence sequence) {
  return with(runtime, [&] { return to_c(runtime->runtime.resume(to_cpp(sequence))); });
}

mkv_status mkv_fork(mkv_runtime* runtime, mkv_sequence sequence, mkv_sequence* copy) {
  return with(runtime, [&]() -> mkv_status {
    if (copy == nullptr) return MKV_REJECTED;
    const Forked forked = runtime->runtime.fork(to_cpp(sequence));
    if (forked.status == Status::ok) *copy = to_c(forked.sequence);
    return to_c(forked.status);
  });
}

mkv_status mkv_truncate(mkv_runtime* runtime, mkv_sequence sequence, int64_t tokens,
                        int64_t* kept) {
  return with(runtime, [&]() -> mkv_status {
    const Truncated truncated = runtime->runtime.truncate(to_cpp(sequence), tokens);
    if (truncated.status == Status::ok && kept != nullptr) *kept = truncated.kept;
    return to_c(truncated.status);
  });
}

mkv_status mkv_release(mkv_runtime* runtime, mkv_sequence sequence) {
  return with(runtime, [&] { return to_c(runtime->runtime.release(to_cpp(sequence))); });
}

mkv_status mkv_poll(mkv_runtime* runtime, int64_t timeout_ns, mkv_event* event) {
  return with(runtime, [&]() -> mkv_status {
    if (size_of(event) == 0) return MKV_REJECTED;
    const auto next = runtime->runtime.poll(timeout_ns);
    if (!next) return MKV_TIMEOUT;
    write_struct(to_c(*next), event);
    return MKV_OK;
  });
}

mkv_status mkv_wait(mkv_runtime* runtime, uint64_t step, int64_t timeout_ns) {
  return with(runtime, [&] { return to_c(runtime->runtime.wait(step, timeout_ns)); });
}

int64_t mkv_tokens(const mkv_runtime* runtime, mkv_sequence sequence, int32_t layer) {
  return runtime == nullptr ? 0 : runtime->runtime.tokens(to_cpp(sequence), layer);
}

mkv_status mkv_read_counters(const mkv_runtime* runtime, mkv_counters* counters) {
  if (runtime == nullptr || size_of(counters) == 0) return MKV_REJECTED;
  write_struct(to_c(runtime->runtime.counters()), counters);
  return MKV_OK;
}

size_t mkv_describe(const mkv_runtime* runtime, char* text, size_t bytes) {
  size_t length = 0;
  if (runtime != nullptr)
    guarded({}, [&]() -> mkv_status {
      const std::string lines = runtime->runtime.describe();
      length = put_text(lines, text, bytes);
      return MKV_OK;
    });
  return length;
}
