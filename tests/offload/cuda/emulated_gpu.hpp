// A GPU for machines without one: a thread for each stream, memory of this process. It does what a
// real one may do and mostly does not: copies are done as late as is legal and in any order within
// a batch, streams pause at random. Every call can be made to fail.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/effects.hpp"
#include "modalkv/error.hpp"
#include "offload/cuda/gpu_driver.hpp"

namespace modalkv {

enum class GpuCall : std::uint8_t {
  make_stream,
  make_event,
  make_pinned,
  make_device_memory,
  register_host,
  record,
  wait_event,
  write_word,
  raise_word,
  wait_word,
  copy,
  launch,
  capture,  ///< begin and end, each
  replay,
  check,
};

/// Runs operations on the calling thread; `status` as in GpuLaunch.
using EmulatedLaunch =
    std::function<void(std::span<const Op> ops, SpaceMemory memory, std::uint32_t* status)>;

/// By perform().
inline void launch_on_host(std::span<const Op> ops, SpaceMemory memory, std::uint32_t* status) {
  const std::atomic_ref word(*status);
  for (const Op& op : ops) {
    if (word.load(std::memory_order_acquire) != 0) return;
    if (std::holds_alternative<EngineWork>(op)) continue;
    const Status done = perform(op, memory);
    std::uint32_t ok = 0;
    if (done != Status::ok) word.compare_exchange_strong(ok, static_cast<std::uint32_t>(done));
  }
}

class EmulatedGpu final : public GpuDriver {
 public:
  explicit EmulatedGpu(std::uint64_t seed = 1, EmulatedLaunch launches = launch_on_host)
      : seed_(seed), launches_(std::move(launches)) {}
  ~EmulatedGpu() override {
    for (const auto& stream : streams_) stream->worker.request_stop();
    streams_.clear();
  }

  /// The call with this number (the next is 0) of a kind has another result than ok.
  void fail(GpuCall call, GpuResult result = GpuResult::failed, int number = 0) {
    const std::lock_guard lock(mutex_);
    planned_[call].push_back({made_[call] + number, result});
  }
  /// All such calls until further notice.
  void fail_all(GpuCall call, GpuResult result) {
    const std::lock_guard lock(mutex_);
    always_[call] = result;
  }
  /// Streams do nothing any more; calls succeed.
  void hang() { halted_ = true; }
  /// Streams do nothing any more; all calls say so.
  void lose() {
    halted_ = true;
    lost_ = true;
  }
  /// Memory that stands for the GPU's own: the host does not reach it.
  void own(std::span<std::byte> memory) {
    const std::lock_guard lock(mutex_);
    owned_.push_back(memory);
  }
  /// As CUDA: copies between what is not the GPU's own are refused, as they would make us wait.
  void forbid_copies_within_host() { copies_within_host_ = false; }
  bool copies_within_host() const override { return copies_within_host_; }
  bool abandoned() const { return abandoned_; }
  std::size_t registered_ranges() const {
    const std::lock_guard lock(mutex_);
    return registered_.size();
  }
  int calls(GpuCall call) const {
    const std::lock_guard lock(mutex_);
    const auto found = made_.find(call);
    return found == made_.end() ? 0 : found->second;
  }

  GpuStream make_stream(bool /*high_priority*/) override {
    set_up(GpuCall::make_stream, "no stream");
    streams_.push_back(std::make_unique<Stream>(*this, seed_ * 131 + streams_.size()));
    return streams_.back().get();
  }
  GpuEvent make_event() override {
    set_up(GpuCall::make_event, "no event");
    return events_.emplace_back(std::make_unique<Event>()).get();
  }
  std::span<std::byte> make_pinned(Bytes bytes) override {
    set_up(GpuCall::make_pinned, "no pinned memory");
    return make_memory(bytes);
  }
  std::span<std::byte> make_device_memory(Bytes bytes) override {
    set_up(GpuCall::make_device_memory, "no memory of the GPU");
    return make_memory(bytes);
  }

  std::string register_host(std::span<std::byte> memory) override {
    if (outcome(GpuCall::register_host) != GpuResult::ok) return "registering was refused";
    const std::lock_guard lock(mutex_);
    registered_.push_back(memory);
    return {};
  }
  void unregister_host(std::span<std::byte> memory) override {
    const std::lock_guard lock(mutex_);
    std::erase_if(registered_, [&](const auto& known) {
      return known.data() == memory.data() && known.size() == memory.size();
    });
  }
  GpuReach reach(const std::byte* memory) override {
    const std::lock_guard lock(mutex_);
    const auto in = [&](const std::span<std::byte> range) {
      return memory >= range.data() && memory < range.data() + range.size();
    };
    const bool own = std::any_of(owned_.begin(), owned_.end(), in);
    return {own || std::any_of(registered_.begin(), registered_.end(), in) ||
                std::any_of(made_memory_.begin(), made_memory_.end(), in),
            !own};
  }

  GpuResult record(GpuEvent event, GpuStream stream) override {
    return give(GpuCall::record, stream, [&] {
      auto point = std::make_shared<std::atomic<bool>>(false);
      static_cast<Event*>(event)->latest = point;
      return Command{[point](const Halt&) { *point = true; }, true};
    });
  }
  GpuResult wait_event(GpuStream stream, GpuEvent event) override {
    return give(GpuCall::wait_event, stream, [&] {
      auto point = static_cast<Event*>(event)->latest;
      if (point == nullptr) throw Error("a wait for an event that was never recorded");
      return Command{[point](const Halt& halt) { halt.until([&] { return point->load(); }); }};
    });
  }
  GpuResult write_word(GpuStream stream, GpuWord& word, std::uint64_t value) override {
    return give(GpuCall::write_word, stream, [&] {
      return Command{[&word, value](const Halt&) { word.store(value, std::memory_order_release); },
                     true};
    });
  }
  GpuResult raise_word(GpuStream stream, GpuWord& word, std::uint64_t value) override {
    return give(GpuCall::raise_word, stream, [&] {
      return Command{[&word, value](const Halt&) { let_happen({&word, value}); }, true};
    });
  }
  GpuResult wait_word(GpuStream stream, GpuWord& word, std::uint64_t value) override {
    return give(GpuCall::wait_word, stream, [&] {
      return Command{[&word, value](const Halt& halt) {
        halt.until([&] { return word.load(std::memory_order_acquire) >= value; });
      }};
    });
  }
  GpuResult copy(GpuStream stream, std::span<const GpuCopy> copies) override {
    for (const GpuCopy& one : copies)
      if (!copies_within_host_ && reach(one.from).host && reach(one.to).host)
        throw Error("a copy that makes its caller wait");
    return give(GpuCall::copy, stream, [&] {
      return Command{.batch = std::vector<GpuCopy>(copies.begin(), copies.end())};
    });
  }
  GpuResult launch(GpuStream stream, std::span<const Op> ops, SpaceMemory memory,
                   std::uint32_t* status) override {
    return give(GpuCall::launch, stream, [&] {
      return Command{[this, status, list = std::vector<Op>(ops.begin(), ops.end()),
                      spaces = std::vector<std::byte*>(memory.begin(), memory.end())](const Halt&) {
                       launches_(list, spaces, status);
                     },
                     true};
    });
  }

  GpuResult begin_capture(GpuStream stream) override {
    auto* of = static_cast<Stream*>(stream);
    if (of->captured != nullptr) throw Error("a capture that was never ended");
    if (const GpuResult result = outcome(GpuCall::capture); result != GpuResult::ok) return result;
    of->captured = graphs_.emplace_back(std::make_unique<Graph>()).get();
    return GpuResult::ok;
  }
  GpuResult end_capture(GpuStream stream, GpuGraph& graph) override {
    graph = std::exchange(static_cast<Stream*>(stream)->captured, nullptr);
    return outcome(GpuCall::capture);
  }
  GpuResult replay(GpuGraph graph, GpuStream stream) override {
    if (const GpuResult result = outcome(GpuCall::replay); result != GpuResult::ok) return result;
    auto* on = static_cast<Stream*>(stream);
    if (on->captured != nullptr) throw Error("a graph in a graph");
    for (const Command& command : *static_cast<Graph*>(graph)) on->push(command);
    return GpuResult::ok;
  }

  GpuResult check() override { return outcome(GpuCall::check); }
  std::string last_error() const override {
    const std::lock_guard lock(mutex_);
    return last_error_;
  }
  void abandon() override { abandoned_ = true; }

 private:
  struct Event {
    std::shared_ptr<std::atomic<bool>> latest;
  };
  /// Waits of a stream end where nothing goes on any more.
  struct Halt {
    const EmulatedGpu& gpu;
    const std::stop_token& stop;
    bool over() const { return stop.stop_requested() || gpu.halted_; }
    template <typename Done>
    void until(Done&& done) const {
      while (!over() && !done()) std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  };
  struct Command {
    std::function<void(const Halt&)> run{};
    bool shows = false;  ///< what was copied before must be there
    std::vector<GpuCopy> batch{};
  };
  using Graph = std::vector<Command>;
  struct Stream {
    Stream(EmulatedGpu& gpu, std::uint64_t stream_seed) : random(stream_seed) {
      worker = std::jthread([this, &gpu](std::stop_token stop) { work(gpu, stop); });
    }
    void push(Command command) {
      const std::lock_guard lock(mutex);
      commands.push_back(std::move(command));
      changed.notify_all();
    }
    void work(const EmulatedGpu& gpu, const std::stop_token& stop) {
      const Halt halt{gpu, stop};
      std::vector<std::vector<GpuCopy>> late;
      std::unique_lock lock(mutex);
      while (changed.wait(lock, stop, [&] { return !commands.empty(); })) {
        Command command = std::move(commands.front());
        commands.pop_front();
        lock.unlock();
        if (random() % 16 == 0)
          std::this_thread::sleep_for(std::chrono::microseconds(random() % 100));
        if (command.shows) {
          for (auto& batch : late) {
            std::shuffle(batch.begin(), batch.end(), random);
            for (const GpuCopy& copy : batch)
              if (!halt.over()) std::copy_n(copy.from, copy.bytes, copy.to);
          }
          late.clear();
        }
        if (!command.batch.empty()) late.push_back(std::move(command.batch));
        if (command.run && !halt.over()) command.run(halt);
        lock.lock();
        if (gpu.halted_) commands.clear();
      }
    }
    std::mt19937_64 random;
    std::mutex mutex;
    std::condition_variable_any changed;
    std::deque<Command> commands;
    Graph* captured = nullptr;
    std::jthread worker;  // last
  };

  GpuResult outcome(GpuCall call) {
    const std::lock_guard lock(mutex_);
    const int number = made_[call]++;
    if (lost_) {
      last_error_ = "the emulated GPU was lost";
      return GpuResult::lost;
    }
    GpuResult result = GpuResult::ok;
    if (const auto always = always_.find(call); always != always_.end()) result = always->second;
    for (const auto& [at, planned] : planned_[call])
      if (at == number) result = planned;
    if (result != GpuResult::ok) last_error_ = "a call failed on purpose";
    if (result == GpuResult::lost) halted_ = lost_ = true;
    return result;
  }
  void set_up(GpuCall call, const char* what) {
    if (outcome(call) != GpuResult::ok) throw Error(std::string(what) + ": refused on purpose");
  }
  template <typename Make>
  GpuResult give(GpuCall call, GpuStream stream, Make&& make) {
    if (const GpuResult result = outcome(call); result != GpuResult::ok) return result;
    auto* to = static_cast<Stream*>(stream);
    if (to->captured != nullptr) {
      if (call != GpuCall::copy && call != GpuCall::launch) throw Error("a graph that waits");
      to->captured->push_back(make());
    } else {
      to->push(make());
    }
    return GpuResult::ok;
  }
  std::span<std::byte> make_memory(Bytes bytes) {
    const std::size_t size = static_cast<std::size_t>(round_up(bytes, 4096));
    memory_.emplace_back(static_cast<std::byte*>(std::aligned_alloc(4096, size)), &std::free);
    std::fill_n(memory_.back().get(), size, std::byte{0});
    const std::lock_guard lock(mutex_);
    return made_memory_.emplace_back(memory_.back().get(), static_cast<std::size_t>(bytes));
  }

  const std::uint64_t seed_;
  const EmulatedLaunch launches_;
  bool copies_within_host_ = true;
  std::atomic<bool> halted_{false}, lost_{false}, abandoned_{false};
  mutable std::mutex mutex_;  // of what follows, up to the streams
  std::map<GpuCall, int> made_;
  std::map<GpuCall, std::vector<std::pair<int, GpuResult>>> planned_;
  std::map<GpuCall, GpuResult> always_;
  std::string last_error_;
  std::vector<std::span<std::byte>> registered_, made_memory_, owned_;
  std::vector<std::unique_ptr<std::byte, decltype(&std::free)>> memory_;
  std::vector<std::unique_ptr<Event>> events_;
  std::vector<std::unique_ptr<Graph>> graphs_;
  std::vector<std::unique_ptr<Stream>> streams_;  // last: they end before what they use
};

}  // namespace modalkv
