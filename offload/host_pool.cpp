#include "offload/host_pool.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

constexpr Bytes kPieceBytes = 16 * kMiB;  // touched by one call: milliseconds

Bytes system_page() {
  return sysconf(_SC_PAGESIZE);
}

Bytes reserved(const TopologyNode& node, const HostPoolConfig& config) {
  if (node.role != TopologyNode::Role::home)
    throw Error(fmt::format("node {} cannot hold a host pool: {}", node.index, name(node.role)));
  const Bytes bytes = config.bytes / system_page() * system_page();
  if (bytes <= 0)
    throw Error(fmt::format("host pool on node {}: at least {} B are expected, found {}",
                            node.index, system_page(), config.bytes));
  if (config.chunk_bytes <= 0 || config.chunk_bytes % system_page() != 0 ||
      config.headroom_bytes < 0 || config.touch_threads <= 0 || config.checked_pages < 0)
    throw Error(fmt::format(
        "host pool on node {}: chunks of a multiple of {} B, a headroom, a thread or more and a "
        "number of checked pages are expected, found {} B, {} B, {} and {}",
        node.index, system_page(), config.chunk_bytes, config.headroom_bytes, config.touch_threads,
        config.checked_pages));
  return bytes;
}

double gib(Bytes bytes) {
  return static_cast<double>(bytes) / kGiB;
}

}  // namespace

HostPool::HostPool(const TopologyNode& node, const HostPoolConfig& config, HostMemory& memory,
                   MemoryPinner& pinner)
    : node_(node),
      config_(config),
      memory_(memory),
      pinner_(pinner),
      range_(reserved(node, config)),
      pinned_(static_cast<std::size_t>(divide_up(reserved_bytes(), config.chunk_bytes))) {
  report_.node = node.index;
  report_.asked_bytes = reserved_bytes();
  report_.room_at_start = memory.room(node.index);
  report_.room_at_start.bytes =
      std::max<Bytes>(0, report_.room_at_start.bytes - config.headroom_bytes);
}

HostPool::~HostPool() {
  for (std::size_t i = 0; i < pinned_.size(); ++i) {
    if (pinned_[i] == 0) continue;
    const Bytes begin = static_cast<Bytes>(i) * config_.chunk_bytes;
    pinner_.unpin(range_.bytes().subspan(
        static_cast<std::size_t>(begin),
        static_cast<std::size_t>(std::min(config_.chunk_bytes, reserved_bytes() - begin))));
  }
}

bool HostPool::pinned(Bytes offset, Bytes bytes) const {
  const Bytes chunk = offset / config_.chunk_bytes;
  return (offset + bytes - 1) / config_.chunk_bytes == chunk &&
         pinned_[static_cast<std::size_t>(chunk)] != 0;
}

HostPoolReport HostPool::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

bool HostPool::grow(const std::stop_token& stop) {
  const Bytes begin = usable_bytes();
  const Bytes bytes = std::min(config_.chunk_bytes, reserved_bytes() - begin);
  if (!report().growing) return false;
  if (stop.stop_requested()) return end("stopped");
  const std::span chunk =
      range_.bytes().subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(bytes));
  const MemoryRoom room = memory_.room(node_.index);
  if (room.bytes < bytes + config_.headroom_bytes)
    return end(fmt::format("{} has {:.2f} GiB left, {:.2f} GiB and a headroom of {:.2f} GiB needed",
                           room.limited_by, gib(room.bytes), gib(bytes),
                           gib(config_.headroom_bytes)));
  if (const std::string failed = memory_.commit(chunk); !failed.empty()) return end(failed);
  if (const std::string failed = memory_.bind(chunk, node_.index); !failed.empty()) {
    const std::lock_guard lock(mutex_);
    if (report_.unbound_chunks++ == 0) report_.bind_failure = failed;
  }
  if (const std::string failed = touch(chunk, stop); !failed.empty()) {
    range_.drop(chunk);
    return end(failed);
  }
  if (const std::string failed = pin(chunk); !failed.empty() && config_.must_pin) {
    range_.drop(chunk);
    return end(failed);
  }
  check_placement(chunk);
  const std::lock_guard lock(mutex_);
  report_.usable_bytes = begin + bytes;
  usable_bytes_.store(begin + bytes, std::memory_order_release);
  report_.growing = report_.usable_bytes < report_.asked_bytes;
  return report_.growing;
}

// By threads of the node, so that the first touch places what could not be bound.
std::string HostPool::touch(std::span<std::byte> chunk, const std::stop_token& stop) {
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;  // of failed
  std::string failed;
  const auto work = [&] {
    if (!memory_.bind_this_thread(node_.cpus).empty()) {
      const std::lock_guard lock(mutex_);
      ++report_.unbound_threads;
    }
    for (;;) {
      const std::size_t from = next.fetch_add(kPieceBytes);
      if (from >= chunk.size()) return;
      const std::size_t bytes = std::min<std::size_t>(kPieceBytes, chunk.size() - from);
      const std::string problem =
          stop.stop_requested() ? "stopped" : memory_.touch(chunk.subspan(from, bytes));
      if (problem.empty()) continue;
      next = chunk.size();
      const std::lock_guard lock(mutex);
      if (failed.empty()) failed = problem;
    }
  };
  const auto pieces =
      static_cast<std::size_t>(divide_up(static_cast<Bytes>(chunk.size()), kPieceBytes));
  const std::size_t count =
      std::min({pieces, static_cast<std::size_t>(config_.touch_threads), node_.cores.size()});
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back(work);
  threads.clear();
  return failed;
}

std::string HostPool::pin(std::span<std::byte> chunk) {
  std::string failed = pinner_.pin(chunk);
  if (failed.empty()) pinned_[static_cast<std::size_t>(usable_bytes() / config_.chunk_bytes)] = 1;
  const std::lock_guard lock(mutex_);
  if (failed.empty()) {
    report_.pinned_bytes += static_cast<Bytes>(chunk.size());
  } else if (report_.unpinned_chunks++ == 0) {
    report_.pin_failure = failed;
  }
  return failed;
}

// Pages evenly over the chunk, the first and the last among them.
void HostPool::check_placement(std::span<std::byte> chunk) {
  const Bytes page = system_page(), pages = static_cast<Bytes>(chunk.size()) / page;
  const Bytes checked = std::min<Bytes>(pages, config_.checked_pages);
  std::int64_t misplaced = 0, unknown = 0;
  for (Bytes i = 0; i < checked; ++i) {
    const Bytes at = checked == 1 ? 0 : (pages - 1) * i / (checked - 1);
    const std::optional<int> node = memory_.node_of(&chunk[static_cast<std::size_t>(at * page)]);
    unknown += !node;
    misplaced += node && *node != node_.index;
  }
  const std::lock_guard lock(mutex_);
  report_.checked_pages += checked;
  report_.misplaced_pages += misplaced;
  report_.unknown_pages += unknown;
}

bool HostPool::end(std::string why) {
  const std::lock_guard lock(mutex_);
  if (report_.growing) report_.stopped_by = std::move(why);
  report_.growing = false;
  return false;
}

std::string describe(const HostPoolReport& report) {
  std::string text = fmt::format("host pool on node {}: {:.2f} of {:.2f} GiB{}", report.node,
                                 gib(report.usable_bytes), gib(report.asked_bytes),
                                 report.growing ? ", growing" : "");
  if (report.growing && report.room_at_start.bytes < report.asked_bytes)
    text += fmt::format(", no more than {:.2f} GiB will fit: {}", gib(report.room_at_start.bytes),
                        report.room_at_start.limited_by);
  if (!report.stopped_by.empty()) text += fmt::format(", no more: {}", report.stopped_by);
  if (report.usable_bytes == 0) return text;
  if (report.unpinned_chunks == 0) {
    text += "; pinned";
  } else {
    text += fmt::format("; {:.2f} GiB pinned, the rest pageable ({})", gib(report.pinned_bytes),
                        report.pin_failure);
  }
  if (report.unbound_chunks > 0)
    text += fmt::format("; {} chunks not bound, placed by first touch ({})", report.unbound_chunks,
                        report.bind_failure);
  if (report.unbound_threads > 0)
    text += fmt::format("; {} threads touched them from anywhere", report.unbound_threads);
  const std::int64_t known = report.checked_pages - report.unknown_pages;
  text += fmt::format("; {} of {} checked pages on the node", known - report.misplaced_pages,
                      report.checked_pages);
  if (report.unknown_pages > 0)
    text += fmt::format(", of {} nobody tells where they are", report.unknown_pages);
  return text;
}

}  // namespace modalkv
