// The C API on a tiny runtime: the input is a list of calls with arbitrary arguments, structs of
// arbitrary sizes among them. What points somewhere points to memory of that size, as the API asks;
// whatever else is given, no call may crash, hang or say something that it must not.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "modalkv/modalkv.h"

namespace {

constexpr int kLayers = 2;
constexpr std::size_t kRoom = 8192;  // behind every struct: more than the largest

void check(bool holds) {
  if (!holds) std::abort();
}

bool is_status(mkv_status status) {
  return (status >= MKV_OK && status <= MKV_NO_SPACE) || status == MKV_ERROR;
}

// The input, zeros behind its end.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}

  bool is_empty() const { return left_ == 0; }
  template <typename T>
  T take() {
    T value{};
    const std::size_t bytes = std::min(left_, sizeof(T));
    if (bytes > 0) std::memcpy(&value, data_, bytes);
    data_ += bytes, left_ -= bytes;
    return value;
  }
  /// Mostly small, sometimes anything.
  std::int64_t number() {
    const auto small = take<std::int8_t>();
    return small == -128 ? take<std::int64_t>() : small;
  }
  bool chance() { return take<std::uint8_t>() > 240; }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

class Caller {
 public:
  explicit Caller(Input input) : input_(input) {
    for (std::size_t i = 0; i < rows_.size(); ++i)
      rows_[i] = static_cast<std::uint16_t>(0x3800 + i * 7 % 1024);
    open();
  }
  ~Caller() {
    // What the runtime waits for must happen before it goes, and the words outlive it.
    for (std::uint64_t& word : words_) {
      const mkv_engine_event event{sizeof(event), &word, UINT64_MAX};
      check(mkv_let_happen(&event) == MKV_OK);
    }
    mkv_close(runtime_);
  }
  Caller(Caller&&) = delete;

  void run() {
    for (int call = 0; call < 64 && !input_.is_empty(); ++call) check(is_status(one_call()));
    if (runtime_ == nullptr) return;
    mkv_counters counters{};
    counters.size = sizeof(counters);
    check(mkv_read_counters(runtime_, &counters) == MKV_OK);
    check(counters.corrupt_pages == 0);
    std::array<char, 64> text{};
    const std::size_t length = mkv_describe(runtime_, text.data(), text.size());
    check(std::strlen(text.data()) == std::min(length, text.size() - 1));
  }

 private:
  const char* name() {
    static constexpr std::array names{"text-centric", "uniform-int4", "fp16-offload",
                                      "fp16-stream",  "int4",         "int8-int4-g32",
                                      "none",         "bf16",         "",
                                      "int4-channel"};
    const auto which = input_.take<std::uint8_t>();
    return which < names.size() ? names[which] : nullptr;
  }

  // A configuration of a small runtime, some of it overwritten.
  void open() {
    mkv_config config{};
    config.size = sizeof(config);
    config.version = MKV_API_VERSION;
    config.layers = kLayers;
    config.query_heads = 2;
    config.kv_heads = 1;
    config.head_dim = 32;
    config.device_bytes = 1 << 20;
    config.host_bytes = 2 << 20;
    config.tables_bytes = 1 << 18;
    config.staging_slot_bytes = 64 << 10;
    config.partials_bytes = 128 << 10;
    config.attention_threads = 1;
    config.policy = name();
    config.text_low = name();
    config.visual_low = name();
    config.high = input_.chance() ? name() : nullptr;
    config.keep = input_.chance() ? input_.take<double>() : 0;
    config.places = input_.take<std::uint8_t>() % 9;
    config.verify_every = input_.number();
    std::vector<std::byte> bytes(kRoom);
    while (input_.chance()) {  // any field but those that lead somewhere or take a machine's memory
      mkv_config changed = config;
      const auto at = input_.take<std::uint8_t>() % sizeof(config);
      const auto value = input_.take<std::uint8_t>();
      std::memcpy(reinterpret_cast<std::byte*>(&changed) + at, &value, 1);
      if (changed.policy == config.policy && changed.high == config.high &&
          changed.text_low == config.text_low && changed.visual_low == config.visual_low &&
          changed.device_memory == nullptr && changed.device_bytes <= 64 << 20 &&
          changed.host_bytes <= 64 << 20 && changed.tables_bytes <= 64 << 20 &&
          changed.attention_threads <= 4 && changed.layers <= 64)
        config = changed;
    }
    std::memcpy(bytes.data(), &config, sizeof(config));
    std::array<char, 256> text{};
    const mkv_status status = mkv_open(reinterpret_cast<const mkv_config*>(bytes.data()), &runtime_,
                                       text.data(), text.size());
    check(is_status(status));
    check((status == MKV_OK) == (runtime_ != nullptr));
    check(status != MKV_ERROR || std::strlen(text.data()) > 0);
    check(std::strchr(text.data(), '\n') == nullptr);
    if (runtime_ == nullptr) return;
    check(mkv_register_memory(runtime_, rows_.data(), rows_.size() * 2) == MKV_OK);
    check(mkv_register_memory(runtime_, sums_.data(), sums_.size() * 4) == MKV_OK);
  }

  mkv_sequence sequence() {
    if (input_.chance()) return input_.take<std::uint64_t>();
    const auto which = input_.take<std::uint8_t>();
    return sequences_.empty() ? which : sequences_[which % sequences_.size()];
  }
  void* rows() {
    if (input_.chance()) return input_.chance() ? nullptr : &sums_;
    return rows_.data() + input_.take<std::uint16_t>() % rows_.size();
  }
  std::uint64_t* word() {
    if (!input_.chance()) return &words_[input_.take<std::uint8_t>() % words_.size()];
    return input_.chance()
               ? nullptr
               : reinterpret_cast<std::uint64_t*>(reinterpret_cast<std::byte*>(words_.data()) + 1);
  }
  std::size_t struct_size(std::size_t size) {
    return input_.chance() ? input_.take<std::uint16_t>() % kRoom : size;
  }
  // `count` structs, of the size that each says and room for all of them.
  template <typename Struct, typename Make>
  const Struct* array(std::vector<std::byte>& bytes, std::size_t count, Make&& make) {
    const std::size_t size = struct_size(sizeof(Struct));
    bytes.assign(count * size + kRoom, std::byte{0});
    if (input_.chance()) bytes.back() = std::byte{1};
    for (std::size_t i = 0; i < count; ++i) {
      Struct one = make();
      one.size = input_.chance() ? input_.take<std::size_t>() : size;
      std::memcpy(bytes.data() + i * size, &one, std::min(sizeof(one), kRoom));
    }
    return input_.chance() ? nullptr : reinterpret_cast<const Struct*>(bytes.data());
  }
  mkv_segment segment() {
    mkv_segment segment{};
    segment.token_class = static_cast<std::int32_t>(input_.take<std::uint8_t>() % 5);
    segment.floor = input_.take<std::uint8_t>() % 3;
    segment.tokens = input_.number();
    segment.content[0] = input_.take<std::uint8_t>() % 4;
    return segment;
  }
  mkv_engine_event event() {
    mkv_engine_event event{};
    event.word = word();
    event.value = input_.take<std::uint8_t>();
    return event;
  }
  std::size_t few() { return input_.take<std::uint8_t>() % 4; }

  mkv_status append() {
    const std::size_t requests = few(), events = few() / 2;
    const auto* batch = array<mkv_append_request>(structs_, requests, [&] {
      return mkv_append_request{0, sequence(), input_.number(), rows(), rows()};
    });
    const auto* after = array<mkv_engine_event>(events_, events, [&] { return event(); });
    return mkv_append(runtime_, batch, requests, input_.take<std::int8_t>() % 3, after, events);
  }
  mkv_status attend() {
    const std::size_t requests = few(), events = few() / 2;
    const auto* batch = array<mkv_attend_request>(structs_, requests, [&] {
      return mkv_attend_request{0,      sequence(), input_.number(),
                                rows(), rows(),     input_.chance() ? sums_.data() : nullptr};
    });
    const auto* after = array<mkv_engine_event>(events_, events, [&] { return event(); });
    const mkv_engine_event done{sizeof(done), &done_, ++done_value_};
    const auto call = input_.chance() ? mkv_attend_partial : mkv_attend;
    return call(runtime_, batch, requests, input_.take<std::int8_t>() % 3, after, events,
                input_.chance() ? &done : nullptr, &step_);
  }
  mkv_status begin() {
    const std::size_t segments = few();
    const auto* prompt = array<mkv_segment>(structs_, segments, [&] { return segment(); });
    mkv_sequence sequence = 0;
    std::int64_t reused = 0, reusable = 0;
    const mkv_status found = mkv_lookup(runtime_, prompt, segments, &reusable);
    const std::int64_t bound = input_.chance() ? INT64_MAX : input_.take<std::int16_t>();
    const mkv_status status = mkv_begin(runtime_, prompt, segments, bound, &sequence, &reused);
    check((status == MKV_OK) == (sequence != 0));
    check(status != MKV_OK ||
          (found == MKV_OK && reused <= bound && (bound < reusable || reused == reusable)));
    if (status == MKV_OK && sequences_.size() < 16) sequences_.push_back(sequence);
    return status;
  }
  // All layers of some tokens of good rows: what most histories begin with.
  mkv_status give_tokens() {
    const mkv_append_request request{sizeof(request), sequence(), input_.take<std::uint8_t>() % 96,
                                     rows_.data(), rows_.data() + 96 * 32};
    mkv_status status = MKV_OK;
    for (int layer = 0; layer < kLayers && status == MKV_OK; ++layer)
      status = mkv_append(runtime_, &request, 1, layer, nullptr, 0);
    return status;
  }
  mkv_status poll() {
    structs_.assign(kRoom, std::byte{0});
    mkv_event event{};
    event.size = struct_size(sizeof(event));
    std::memcpy(structs_.data(), &event, sizeof(event));
    const mkv_status status = mkv_poll(runtime_, input_.take<std::uint8_t>() * 1000,
                                       reinterpret_cast<mkv_event*>(structs_.data()));
    std::memcpy(&event, structs_.data(), sizeof(event));
    check(status != MKV_OK || event.kind == MKV_EVENT_ATTENDED || event.kind == MKV_EVENT_LOST);
    return status;
  }
  mkv_status let_happen() {
    const mkv_engine_event event{sizeof(event), word(), input_.take<std::uint8_t>()};
    return mkv_let_happen(&event);
  }
  mkv_status fork() {
    mkv_sequence copy = 0;
    const mkv_status status = mkv_fork(runtime_, sequence(), &copy);
    check((status == MKV_OK) == (copy != 0));
    if (status == MKV_OK && sequences_.size() < 16) sequences_.push_back(copy);
    return status;
  }
  mkv_status truncate() {
    std::int64_t kept = -1;
    const mkv_sequence of = sequence();
    const std::int64_t tokens = input_.number();
    const mkv_status status = mkv_truncate(runtime_, of, tokens, &kept);
    check((status == MKV_OK) == (kept >= 0) && kept <= std::max(tokens, std::int64_t{-1}));
    return status;
  }
  mkv_status admission() {
    const std::size_t segments = few();
    const auto* prompt = array<mkv_segment>(structs_, segments, [&] { return segment(); });
    return mkv_can_admit(runtime_, prompt, segments, input_.number());
  }

  mkv_status one_call() {
    switch (input_.take<std::uint8_t>() % 20) {
      case 0:
        return begin();
      case 1:
        return append();
      case 2:
        return attend();
      case 3:
      case 4:
        return give_tokens();
      case 5:
        return poll();
      case 6:
        return mkv_wait(runtime_, input_.chance() ? input_.take<std::uint64_t>() : step_,
                        input_.take<std::uint8_t>() * 1000);
      case 7:
        return mkv_cancel(runtime_, input_.chance() ? input_.take<std::uint64_t>() : step_);
      case 8:
        return mkv_pause(runtime_, sequence());
      case 9:
        return mkv_resume(runtime_, sequence());
      case 10:
        return fork();
      case 11:
        return truncate();
      case 12:
        return mkv_release(runtime_, sequence());
      case 13:
        return mkv_reserve(runtime_, sequence(), input_.number());
      case 14:
        return admission();
      case 15:
        return let_happen();
      case 18:
        return mkv_forget_content(runtime_);
      case 16: {
        const std::array batch{sequence(), sequence()};
        return mkv_prefetch(runtime_, batch.data(), few() % 3);
      }
      default: {
        const std::int64_t tokens =
            mkv_tokens(runtime_, sequence(), static_cast<std::int32_t>(input_.number()));
        check(tokens >= 0);
        return MKV_OK;
      }
    }
  }

  Input input_;
  mkv_runtime* runtime_ = nullptr;
  std::vector<std::uint16_t> rows_ = std::vector<std::uint16_t>(1 << 15);
  std::array<float, 256> sums_{};
  alignas(8) std::array<std::uint64_t, 4> words_{};
  alignas(8) std::uint64_t done_ = 0;
  std::uint64_t done_value_ = 0, step_ = 0;
  std::vector<mkv_sequence> sequences_;
  std::vector<std::byte> structs_, events_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Caller(Input(data, size)).run();
  return 0;
}
