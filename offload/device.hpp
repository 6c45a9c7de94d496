// The seam: everything that takes time, waits or moves bytes is behind it.
//
// A device owns the queues of one GPU and its host. Work is submitted in groups: operations that
// run one after another on one queue. A queue runs its groups in order; a ticket orders groups
// across queues. Outcomes are collected with `next_completion`: nothing is called back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "modalkv/error.hpp"
#include "modalkv/event.hpp"
#include "modalkv/op.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

enum class QueueKind : std::uint8_t {
  h2d,      ///< copies from host to device
  d2h,      ///< copies from device to host
  compute,  ///< the GPU
  host,     ///< the cores of one NUMA node
  disk,
};

constexpr std::string_view name(QueueKind kind) {
  constexpr std::string_view names[] = {"h2d", "d2h", "compute", "host", "disk"};
  return names[static_cast<std::uint8_t>(kind)];
}

struct QueueId {
  std::uint8_t index = 0;

  friend constexpr bool operator==(QueueId, QueueId) = default;
};

struct QueueInfo {
  QueueKind kind = QueueKind::compute;
  int numa_node = 0;  ///< of a host queue
  /// A group counts from its submission until its completion is collected.
  int max_groups = 256;
  int max_ops = 4096;  ///< of all groups that have not run
  /// How fast a device of real threads is; virtual time has rates of its own.
  int threads = 1;              ///< of a host queue: they divide an Attend
  std::vector<int> cpus{};      ///< of a host queue: a thread stays on each; none: anywhere
  double copy_bytes_per_s = 0;  ///< Copy takes at least so long, 0: as long as memory takes
  Nanos copy_ns = 0;            ///< and so much more
};

inline constexpr int kMaxQueues = 16;
inline constexpr int kMaxSpaces = 256;
inline constexpr int kMaxDependencies = 16;
inline constexpr Nanos kMaxWaitNanos = 3600 * kSecond;  ///< longer timeouts are cut to it
inline constexpr int kMaxEngineEvents = 64;  ///< imported and not yet reached; exported likewise

/// Names a submitted group, or an imported event. The default is done and well.
struct Ticket {
  std::uint64_t id = 0;

  friend constexpr bool operator==(Ticket, Ticket) = default;
};

struct Submitted {
  Status status = Status::ok;
  Ticket ticket{};  ///< only where `status` is ok
};

struct Completion {
  Ticket ticket{};
  /// Of the group: ok, or the first failure of its operations, whose successors in the group were
  /// not run. `cancelled` where something it waited for had failed: nothing was run, except that
  /// the queues of a GPU run ahead: they may have run a group that waited for another of theirs,
  /// after all that it waited for had ended; what it writes is then undefined. A device remembers
  /// its latest 1,024 failures for that.
  Status status = Status::ok;
  Nanos at_ns = 0;
};

struct SpaceInfo {
  enum class Kind : std::uint8_t { device, host, disk };
  Kind kind = Kind::host;
  Bytes bytes = 0;
  /// Where it lies in this process; the caller keeps it alive as long as the device. nullptr: bytes
  /// that only virtual time needs.
  std::byte* memory = nullptr;
};

struct RegisteredSpace {
  Status status = Status::ok;
  SpaceId space{};
};

/// One thread at a time may call a device. No call but next_completion waits.
class Device {
 public:
  virtual ~Device() = default;

  /// The same for as long as the device lives.
  virtual std::span<const QueueInfo> queues() const = 0;

  /// `rejected`: not positive, no memory where the device needs it, or kMaxSpaces reached.
  virtual RegisteredSpace register_space(const SpaceInfo& info) = 0;

  /// Takes over copies of `ops`, to run on `queue` once all of `after` have completed. No ops: a
  /// point in the queue to wait for.
  ///   ok        taken over; one completion will follow
  ///   busy      the queue is full; collect completions and try again
  ///   rejected  out of bounds, overlapping, unknown queue, space or ticket, too long; a bug of the
  ///             caller
  ///   io_error  the device is lost for good; what it had taken over ends like that too
  /// Nothing is taken over unless ok.
  virtual Submitted submit(QueueId queue, std::span<const Op> ops,
                           std::span<const Ticket> after) = 0;

  /// The next group that has ended, each exactly once. Waits up to `timeout_ns` while groups are
  /// outstanding; nothing at once where none are: that says that all have ended.
  virtual std::optional<Completion> next_completion(Nanos timeout_ns) = 0;

  /// Since the device was made. Never goes back.
  virtual Nanos now() const = 0;

  /// A ticket for work of the engine that groups can wait for. It has no completion of its own.
  virtual Submitted import_event(EngineEvent event) = 0;

  /// Raises the word to `value` once the ticket has completed, whatever its outcome: that is in the
  /// completion.
  virtual Status export_event(Ticket ticket, EngineEvent event) = 0;

 protected:
  Device() = default;
  Device(const Device&) = default;
  Device& operator=(const Device&) = default;
};

/// The queue of a kind (and of a NUMA node), if there is one.
std::optional<QueueId> find_queue(const Device& device, QueueKind kind, int numa_node = 0);

/// A GPU with its two copy directions, a disk, and one queue a NUMA node's cores.
std::vector<QueueInfo> standard_queues(int numa_nodes, int host_threads = 1);

}  // namespace modalkv
