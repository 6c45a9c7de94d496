// Boost.Asio's random-access file on io_uring. Whoever waits in next_completion runs the ring.
//
// BOOST_ASIO_DISABLE_EPOLL stays undefined: files need io_uring all the same, an admin socket then
// works where io_uring is forbidden, and Asio's types are laid out as in an engine that links us.
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/buffer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/random_access_file.hpp>
#include <boost/asio/read_at.hpp>
#include <boost/asio/write_at.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <vector>

#include "offload/block_file_backends.hpp"
#include "offload/ring.hpp"

namespace modalkv {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr Nanos kMaxRunNanos = 3600 * kSecond;

Status status_of(const error_code& error) {
  if (!error || error == asio::error::eof) return Status::ok;  // the end shows in `bytes`
  return error.category() == boost::system::system_category() ? status_of_errno(error.value())
                                                              : Status::io_error;
}

class UringFile final : public BlockFile {
 public:
  UringFile(FileDescriptor file, std::size_t max_in_flight)
      : BlockFile(max_in_flight), done_(max_in_flight), file_(std::move(file)) {
    for (std::size_t i = 0; i < max_in_flight; ++i) {
      FileDescriptor lane(::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0));
      if (!lane.is_open()) throw Error(std::string("no file descriptor: ") + std::strerror(errno));
      lanes_.emplace_back(io_, lane.get());
      lane.release();
      idle_.push_back(i);
    }
  }
  // Buffers of what is in flight are the kernel's until it ends.
  ~UringFile() override {
    while (in_flight() > done_.size()) run_one(kMaxRunNanos);
  }

  std::optional<BlockCompletion> next_completion(Nanos timeout_ns) override {
    const auto deadline = std::chrono::steady_clock::now() +
                          std::chrono::nanoseconds(std::clamp(timeout_ns, Nanos{0}, kMaxRunNanos));
    io_.poll();
    while (done_.empty() && !woken_.exchange(false))
      if (io_.run_one_until(deadline) == 0) return std::nullopt;
    if (done_.empty()) return std::nullopt;
    const BlockCompletion completion = done_.front();
    done_.pop_front();
    ended();
    return completion;
  }

  void wake() override {
    if (!woken_.exchange(true)) asio::post(io_, [] {});
  }

  Status sync() override {
    return ::fdatasync(file_.get()) == 0 ? Status::ok : status_of_errno(errno);
  }

 private:
  void start(const BlockTransfer& transfer) override {
    const std::size_t lane = idle_.back();
    idle_.pop_back();
    const auto offset = static_cast<std::uint64_t>(transfer.offset);
    const auto bytes = static_cast<std::size_t>(transfer.bytes);
    const auto rest = [bytes](const error_code& error, std::size_t so_far) {
      return error ? 0 : bytes - so_far;
    };
    const auto finish = [this, lane, tag = transfer.tag](const error_code& error,
                                                         std::size_t moved) {
      idle_.push_back(lane);
      done_.push_back({tag, status_of(error), static_cast<Bytes>(moved)});
    };
    if (transfer.kind == BlockTransfer::Kind::read) {
      asio::async_read_at(lanes_[lane], offset, asio::buffer(transfer.memory, bytes), rest, finish);
    } else {
      asio::async_write_at(lanes_[lane], offset, asio::buffer(transfer.memory, bytes), rest,
                           finish);
    }
  }
  void run_one(Nanos timeout_ns) { io_.run_one_for(std::chrono::nanoseconds(timeout_ns)); }

  Ring<BlockCompletion> done_;
  std::atomic<bool> woken_ = false;
  const FileDescriptor file_;  // for sync(), on another thread
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> stay_ = asio::make_work_guard(io_);
  // Asio starts a file's next read once the one before has ended, and writes likewise: a file
  // object for each transfer, then.
  std::vector<asio::random_access_file> lanes_;
  std::vector<std::size_t> idle_;
};

}  // namespace

std::unique_ptr<BlockFile> make_uring_file(FileDescriptor file, std::size_t max_in_flight) {
  try {
    return std::make_unique<UringFile>(std::move(file), max_in_flight);
  } catch (const boost::system::system_error& error) {
    throw Error(std::string("no io_uring here: ") + error.what());
  }
}

}  // namespace modalkv
