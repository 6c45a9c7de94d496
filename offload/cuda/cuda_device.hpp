// A device whose copies and kernels run on a GPU: its two copy directions and its compute queue are
// streams; the cores of its host and a disk queue are threads, as in HostDevice.
//
// The streams run ahead: a group is given to its stream as soon as all that it waits for has been
// given, and waits there: for another stream by an event, for a thread or the engine by a word in
// pinned memory. Each queue has a word that says how many of its groups have ended; a stream writes
// its own, a thread stores it. Nothing calls back: who waits reads the words. A group's status is a
// word too, which its kernels set.
#pragma once

#include <string>
#include <vector>

#include "offload/cuda/copy_run.hpp"
#include "offload/cuda/gpu_driver.hpp"
#include "offload/queue_threads.hpp"

namespace modalkv {

struct CudaDeviceOptions {
  /// Pins the memory of host spaces itself; else who registers them has.
  bool pins_host_spaces = true;
  Nanos stuck_ns = 30 * kSecond;  ///< a group that runs for longer: the GPU is lost
  Nanos drain_ns = 5 * kSecond;   ///< what is left to run out when the device goes
  /// In a stream at a time: a driver makes its caller wait at about 1,000.
  std::size_t max_commands = 768;
};

/// Operations of one queue of a CudaDevice that were captured once, to be run any number of times.
/// Means nothing to another device.
struct PreparedGroup {
  std::uint32_t index = 0;
};

struct Prepared {
  Status status = Status::ok;
  PreparedGroup group{};  ///< only where `status` is ok
};

inline constexpr std::size_t kMaxPreparedGroups = 64;

/// Where the contract of Device leaves it open:
///   a space of kind device lies where the GPU reaches it; host memory will do, and is pinned.
///   Groups of the GPU's queues may only touch what it reaches, groups of threads what the host
///   reaches, else they are `rejected`.
///   A group on a copy queue that begins with copies has them done by the copy engines; all else is
///   kernels, which stop at the first failure of their group.
///   Streams run ahead: see Completion about what is cancelled.
///   `at_ns` is when the end was found out.
/// Words of the engine that the GPU reaches are awaited and raised by its streams; others by a
/// thread of the device in between, some 20 us later. A GPU that fails for good or does nothing for
/// `stuck_ns` is lost: its groups end in io_error, and later submits too. Destroying it lets copies
/// that its streams hold run out, without kernels; within `drain_ns`, else all memory of the driver
/// is left as it is for good.
class CudaDevice final : public Device, private QueueThreads::Elsewhere {
 public:
  /// `driver` outlives it. Throws Error.
  explicit CudaDevice(GpuDriver& driver, std::vector<QueueInfo> queues = standard_queues(1),
                      const CudaDeviceOptions& options = {});
  ~CudaDevice() override;

  std::span<const QueueInfo> queues() const override { return threads_.queues(); }
  RegisteredSpace register_space(const SpaceInfo& info) override;
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override;
  std::optional<Completion> next_completion(Nanos timeout_ns) override {
    return threads_.next_completion(timeout_ns);
  }
  Nanos now() const override { return threads_.now(); }
  Submitted import_event(EngineEvent event) override { return threads_.import_event(event); }
  Status export_event(Ticket ticket, EngineEvent event) override;

  /// A ticket for all that a stream of the engine was given so far; no thread hands it over. Keep
  /// the stream running until it is there or the device is gone.
  Submitted import_stream(GpuStream stream);
  /// What the stream is given from now on runs after the ticket has completed, whatever its
  /// outcome. `unsupported` for a ticket of an imported event.
  Status make_wait(GpuStream stream, Ticket ticket);

  /// Captures `ops` in a graph: to submit them then takes one call of the driver, not one for each
  /// kernel. Addresses, shapes and counts stay as they are now; bytes are read when it runs. So one
  /// graph serves a decode step from token to token where it attends to as many tokens as there may
  /// ever be: those that are not there yet are hidden, in pages that are any that the table may
  /// name. Page tables, hidden bits, positions and queries differ from run to run.
  ///   rejected     as submit() has it, or the queue is a thread's
  ///   unsupported  EngineWork
  ///   busy         there are kMaxPreparedGroups already; they live as long as the device
  ///   io_error     the driver did not capture them, the queue goes on; or the device is lost
  /// Set-up: other callers wait for it, and a driver may let it wait for what streams hold; so let
  /// nothing be with them that waits for a thread or the engine. Takes over nothing unless ok.
  Prepared prepare(QueueId queue, std::span<const Op> ops);
  /// As submit() of its operations on its queue. `busy` also while the same group is under way, as
  /// its outcome has one place: who runs ahead prepares it twice. `rejected` where there is no such
  /// group. Allocates nothing.
  Submitted submit(PreparedGroup group, std::span<const Ticket> after);

  /// One line; empty while the GPU works.
  std::string why_lost();

 private:
  struct Graph {
    QueueId queue{};
    std::size_t ops = 0;
    GpuGraph graph = nullptr;
    std::uint32_t* status = nullptr;  // pinned: its kernels know no other
    Ticket latest{};                  // that ran it
  };
  // Of one group of a GPU queue, by its sequence.
  struct Slot {
    GpuEvent event = nullptr;
    std::uint32_t* own_status = nullptr;  // pinned
    const Graph* graph = nullptr;         // is run in place of operations
    bool recorded = false;
    Status host_status = Status::ok;  // found before any kernel of it ran
    std::size_t commands = 0;

    std::uint32_t& status() const { return graph != nullptr ? *graph->status : *own_status; }
  };
  struct GpuQueue {
    std::size_t index = 0;  // of the queue
    GpuStream stream = nullptr;
    std::vector<Slot> slots;
    // The oldest groups of the queue, and their operations, are with the stream.
    std::size_t given_groups = 0, given_ops = 0, commands = 0;
    std::uint64_t given = 0;    // the latest, by its sequence
    GpuWord* raised = nullptr;  // how many words of the engine it has raised
    std::uint64_t raises = 0;   // of so many
    Ticket watched{};           // runs since
    Nanos since_ns = 0;

    Slot& slot(std::uint64_t sequence) { return slots[sequence % slots.size()]; }
    const Slot& slot(std::uint64_t sequence) const { return slots[sequence % slots.size()]; }
  };
  // A word of ours that is raised when an event has happened, by its stream or by us.
  struct Relay {
    Ticket event{};  // none: free
    GpuWord* word = nullptr;
    std::uint64_t value = 0;
    bool of_stream = false;
  };

  // A word of the engine that a stream raises.
  struct Raise {
    const GpuQueue* queue = nullptr;
    std::uint64_t number = 0;  // of those of its queue
    EngineEvent event{};
  };

  Seen look(GroupBook& book) override;
  void ended(GroupBook& book, Ticket ticket) override;
  void reached(Ticket event) override;

  bool reachable(QueueId queue, std::span<const Op> ops) const;
  GpuQueue* gpu_queue(std::size_t queue);
  GpuWord& progress(std::size_t queue) { return *progress_[queue]; }

  bool reaches(const EngineEvent& event) {
    return driver_.reach(reinterpret_cast<const std::byte*>(event.word)).gpu;
  }
  void forget_raised();
  void raise_what_is_left();
  bool collect(GroupBook& book);
  Submitted submit(GroupBook& book, QueueId queue, std::span<const Op> ops,
                   std::span<const Ticket> after, Graph* graph);
  void give(GroupBook& book);
  bool may_be_given(const GroupBook& book, const GpuQueue& queue, const GroupBook::Group& group);
  void give(const GroupBook& book, GpuQueue& queue, const GroupBook::Group& group);
  GpuResult wait_for(const GroupBook& book, GpuStream stream, Ticket ticket);
  bool by_engines(const Copy& copy) const;
  template <typename OpAt>
  GpuResult give_ops(SpaceMemory memory, const GpuQueue& queue, std::size_t ops, OpAt&& op_at,
                     Slot& slot);
  Relay* relay_of(Ticket event);
  Relay* free_relay();
  void watch(GroupBook& book);
  void lose(GroupBook& book, const std::string& why);
  bool drained(bool streams_of_engine) const;
  bool drain(bool streams_of_engine);

  GpuDriver& driver_;
  const CudaDeviceOptions options_;
  const bool copies_within_host_;
  std::vector<GpuQueue> gpu_queues_;
  std::vector<GpuWord*> progress_;  // by queue: how many of its groups have ended
  std::vector<Relay> relays_;
  std::vector<Graph> graphs_;                // stay where they are
  std::span<std::uint32_t> graph_statuses_;  // pinned
  std::vector<Raise> raises_;                // not known to be done
  std::vector<GpuReach> reach_;              // by space
  std::vector<std::span<std::byte>> pinned_;
  CopyRun copies_;
  std::vector<Op> launch_;
  std::string why_lost_;
  Nanos watched_ns_ = 0;
  QueueThreads threads_;  // last: its threads end before what they use
};

}  // namespace modalkv
