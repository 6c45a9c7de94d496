// pread and pwrite on a few threads.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "offload/block_file_backends.hpp"
#include "offload/ring.hpp"

namespace modalkv {
namespace {

constexpr std::size_t kMaxThreads = 8;  // what a drive wants in flight, roughly
constexpr Nanos kMaxWait = 3600 * kSecond;

BlockCompletion transfer_all(int fd, const BlockTransfer& transfer) {
  BlockCompletion completion{transfer.tag, Status::ok, 0};
  while (completion.bytes < transfer.bytes) {
    std::byte* memory = transfer.memory + completion.bytes;
    const auto left = static_cast<std::size_t>(transfer.bytes - completion.bytes);
    const ::off_t offset = transfer.offset + completion.bytes;
    const ::ssize_t moved = transfer.kind == BlockTransfer::Kind::read
                                ? ::pread(fd, memory, left, offset)
                                : ::pwrite(fd, memory, left, offset);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) completion.status = status_of_errno(errno);
    if (moved <= 0) break;
    completion.bytes += moved;
  }
  return completion;
}

class ThreadsFile final : public BlockFile {
 public:
  ThreadsFile(FileDescriptor file, std::size_t max_in_flight)
      : BlockFile(max_in_flight),
        file_(std::move(file)),
        waiting_(max_in_flight),
        done_(max_in_flight) {
    for (std::size_t i = 0; i < std::min(max_in_flight, kMaxThreads); ++i)
      workers_.emplace_back([this](std::stop_token stop) { work(stop); });
  }

  std::optional<BlockCompletion> next_completion(Nanos timeout_ns) override {
    std::unique_lock lock(mutex_);
    ended_.wait_for(lock, std::chrono::nanoseconds(std::clamp(timeout_ns, Nanos{0}, kMaxWait)),
                    [&] { return woken_ || !done_.empty(); });
    woken_ = false;
    if (done_.empty()) return std::nullopt;
    const BlockCompletion completion = done_.front();
    done_.pop_front();
    ended();
    return completion;
  }

  void wake() override {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    ended_.notify_one();
  }

  Status sync() override {
    return ::fdatasync(file_.get()) == 0 ? Status::ok : status_of_errno(errno);
  }

 private:
  void start(const BlockTransfer& transfer) override {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(transfer);
    submitted_.notify_one();
  }

  void work(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    while (submitted_.wait(lock, stop, [&] { return !waiting_.empty(); })) {
      const BlockTransfer transfer = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      const BlockCompletion completion = transfer_all(file_.get(), transfer);
      lock.lock();
      done_.push_back(completion);
      ended_.notify_one();
    }
  }

  const FileDescriptor file_;
  std::mutex mutex_;  // of what follows
  std::condition_variable_any submitted_;
  std::condition_variable ended_;
  Ring<BlockTransfer> waiting_;
  Ring<BlockCompletion> done_;
  bool woken_ = false;
  std::vector<std::jthread> workers_;  // last: they end before what they use
};

}  // namespace

std::unique_ptr<BlockFile> make_threads_file(FileDescriptor file, std::size_t max_in_flight) {
  return std::make_unique<ThreadsFile>(std::move(file), max_in_flight);
}

}  // namespace modalkv
