#include "offload/cuda/cuda_device.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <thread>

namespace modalkv {
namespace {

constexpr Bytes kWordBytes = 64;  // a line of a cache: words do not disturb their neighbours
constexpr Nanos kWatchNanos = 5 * kMillisecond;
// Comparisons on a GPU go round: at least any value that was ever awaited.
constexpr std::uint64_t kEnd = std::numeric_limits<std::int64_t>::max();

bool is_gpu(QueueKind kind) {
  return kind == QueueKind::h2d || kind == QueueKind::d2h || kind == QueueKind::compute;
}

std::size_t most_ops(std::span<const QueueInfo> queues) {
  int most = 0;
  for (const QueueInfo& info : queues) most = std::max(most, info.max_ops);
  return static_cast<std::size_t>(most);
}

// Pinned.
std::span<std::uint32_t> make_statuses(GpuDriver& driver, std::size_t count) {
  const std::span<std::byte> memory = driver.make_pinned(static_cast<Bytes>(count) * 4);
  return {reinterpret_cast<std::uint32_t*>(memory.data()), count};
}

// Kernels that find it set do nothing; the first failure stays.
void set_status(std::uint32_t& word, Status status) {
  std::uint32_t ok = 0;
  std::atomic_ref(word).compare_exchange_strong(ok, static_cast<std::uint32_t>(status));
}

}  // namespace

CudaDevice::CudaDevice(GpuDriver& driver, std::vector<QueueInfo> queues,
                       const CudaDeviceOptions& options)
    : driver_(driver),
      options_(options),
      copies_within_host_(driver.copies_within_host()),
      copies_(most_ops(queues)),
      threads_(std::move(queues), this) {
  const std::span infos = threads_.queues();
  launch_.reserve(most_ops(infos));
  reach_.reserve(kMaxSpaces);
  raises_.reserve(kMaxEngineEvents);
  graphs_.reserve(kMaxPreparedGroups);
  graph_statuses_ = make_statuses(driver, kMaxPreparedGroups);
  const auto words = 2 * static_cast<Bytes>(infos.size()) + kMaxEngineEvents;
  std::span<std::byte> memory = driver.make_pinned(words * kWordBytes);
  const auto word = [&] {
    auto* made = new (memory.data()) GpuWord(0);
    memory = memory.subspan(kWordBytes);
    return made;
  };
  for (std::size_t q = 0; q < infos.size(); ++q) progress_.push_back(word());
  for (int i = 0; i < kMaxEngineEvents; ++i) relays_.push_back({.word = word()});
  std::vector<std::size_t> of_threads;
  for (std::size_t q = 0; q < infos.size(); ++q) {
    if (!is_gpu(infos[q].kind)) {
      of_threads.push_back(q);
      continue;
    }
    GpuQueue queue;
    queue.index = q;
    queue.stream = driver.make_stream(infos[q].kind != QueueKind::compute);
    queue.raised = word();
    queue.slots.resize(static_cast<std::size_t>(infos[q].max_groups));
    const std::span<std::uint32_t> statuses = make_statuses(driver, queue.slots.size());
    for (std::size_t i = 0; i < statuses.size(); ++i) {
      queue.slots[i].event = driver.make_event();
      queue.slots[i].own_status = &statuses[i];
    }
    gpu_queues_.push_back(std::move(queue));
  }
  threads_.start(of_threads);
}

CudaDevice::~CudaDevice() {
  threads_.stop();
  // No kernel of what is left does anything, and nothing waits for us any more.
  threads_.with_book([&](GroupBook& book) {
    for (GpuQueue& queue : gpu_queues_)
      for (std::size_t i = 0; i < queue.given_groups; ++i) {
        const std::uint64_t sequence = GroupBook::sequence_of(book.group(queue.index, i).ticket);
        set_status(queue.slot(sequence).status(), Status::cancelled);
      }
  });
  bool well = why_lost_.empty() && drain(true);
  for (std::size_t q = 0; q < progress_.size(); ++q)
    if (gpu_queue(q) == nullptr) progress(q).store(kEnd, std::memory_order_release);
  for (Relay& relay : relays_)
    if (!relay.of_stream) relay.word->store(kEnd, std::memory_order_release);
  well = well && drain(false);
  // The engine's streams too.
  for (GpuWord* word : progress_) word->store(kEnd, std::memory_order_release);
  if (well) {
    for (const std::span<std::byte> memory : pinned_) driver_.unregister_host(memory);
  } else {
    driver_.abandon();
  }
  threads_.with_book([&](GroupBook& book) {
    raise_what_is_left();
    book.abandon_exports();
  });
}

void CudaDevice::forget_raised() {
  std::erase_if(raises_, [](const Raise& raise) {
    return raise.queue->raised->load(std::memory_order_acquire) >= raise.number;
  });
}

// What no stream will raise any more. Whoever sees a word raised may free it: no other is touched.
void CudaDevice::raise_what_is_left() {
  forget_raised();
  for (const Raise& raise : raises_) let_happen(raise.event);
  raises_.clear();
}

// Whether the engine's streams have written what they were asked to, or our own all they hold.
bool CudaDevice::drained(bool streams_of_engine) const {
  if (streams_of_engine)
    return std::all_of(relays_.begin(), relays_.end(), [](const Relay& relay) {
      return !relay.of_stream || relay.word->load(std::memory_order_acquire) >= relay.value;
    });
  return std::all_of(gpu_queues_.begin(), gpu_queues_.end(), [&](const GpuQueue& queue) {
    return progress_[queue.index]->load(std::memory_order_acquire) >= queue.given &&
           queue.raised->load(std::memory_order_acquire) >= queue.raises;
  });
}

bool CudaDevice::drain(bool streams_of_engine) {
  const Nanos until_ns = now() + options_.drain_ns;
  while (!drained(streams_of_engine)) {
    if (now() >= until_ns || driver_.check() == GpuResult::lost) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return true;
}

RegisteredSpace CudaDevice::register_space(const SpaceInfo& info) {
  if (info.bytes <= 0 || info.memory == nullptr) return {Status::rejected, {}};
  return threads_.with_book([&](GroupBook& book) -> RegisteredSpace {
    if (reach_.size() >= kMaxSpaces) return {Status::rejected, {}};
    GpuReach reach{.gpu = false, .host = true};
    if (info.kind != SpaceInfo::Kind::disk) {
      const bool pinned_already = info.kind == SpaceInfo::Kind::host && !options_.pins_host_spaces;
      reach = pinned_already ? GpuReach{true, true} : driver_.reach(info.memory);
      if (!reach.gpu) {
        const std::span memory(info.memory, static_cast<std::size_t>(info.bytes));
        if (!driver_.register_host(memory).empty()) return {Status::rejected, {}};
        pinned_.push_back(memory);
        reach = {true, true};
      }
    }
    const RegisteredSpace registered = book.register_space(info, true);
    reach_.push_back(reach);
    return registered;
  });
}

bool CudaDevice::reachable(QueueId queue, std::span<const Op> ops) const {
  const std::span infos = threads_.queues();
  if (queue.index >= infos.size()) return true;  // that is for the book to say
  const bool gpu = is_gpu(infos[queue.index].kind);
  return std::all_of(ops.begin(), ops.end(), [&](const Op& op) {
    for (const Access& access : accesses(op)) {
      if (access.where.space.index >= reach_.size()) continue;
      const GpuReach reach = reach_[access.where.space.index];
      if (!(gpu ? reach.gpu : reach.host)) return false;
    }
    return true;
  });
}

CudaDevice::GpuQueue* CudaDevice::gpu_queue(std::size_t queue) {
  const auto found = std::find_if(gpu_queues_.begin(), gpu_queues_.end(),
                                  [&](const GpuQueue& gpu) { return gpu.index == queue; });
  return found == gpu_queues_.end() ? nullptr : &*found;
}

Submitted CudaDevice::submit(QueueId queue, std::span<const Op> ops,
                             std::span<const Ticket> after) {
  return threads_.with_book([&](GroupBook& book) -> Submitted {
    if (!why_lost_.empty()) return {Status::io_error, {}};
    if (!reachable(queue, ops)) return {Status::rejected, {}};
    return submit(book, queue, ops, after, nullptr);
  });
}

Submitted CudaDevice::submit(GroupBook& book, QueueId queue, std::span<const Op> ops,
                             std::span<const Ticket> after, Graph* graph) {
  const Submitted submitted = book.submit(queue, ops, after, 0);
  GpuQueue* gpu = gpu_queue(queue.index);
  if (submitted.status != Status::ok || gpu == nullptr) return submitted;
  Slot& slot = gpu->slot(GroupBook::sequence_of(submitted.ticket));
  slot.graph = graph;
  // Its operations and waits, its event and its word.
  slot.commands = (graph != nullptr ? graph->ops : ops.size()) + after.size() + 2;
  if (graph != nullptr) graph->latest = submitted.ticket;
  give(book);
  return submitted;
}

// The book has a group without operations: they are in the graph.
Submitted CudaDevice::submit(PreparedGroup group, std::span<const Ticket> after) {
  return threads_.with_book([&](GroupBook& book) -> Submitted {
    if (!why_lost_.empty()) return {Status::io_error, {}};
    if (group.index >= graphs_.size()) return {Status::rejected, {}};
    Graph& graph = graphs_[group.index];
    if (book.pending(graph.latest)) return {Status::busy, {}};
    return submit(book, graph.queue, {}, after, &graph);
  });
}

// On the queue's own stream, as kernels work in its scratch. The lock of the book keeps all other
// calls off it meanwhile.
Prepared CudaDevice::prepare(QueueId queue, std::span<const Op> ops) {
  return threads_.with_book([&](GroupBook& book) -> Prepared {
    if (!why_lost_.empty()) return {Status::io_error, {}};
    const GpuQueue* gpu = gpu_queue(queue.index);
    if (gpu == nullptr || !reachable(queue, ops) || !book.valid(queue, ops))
      return {Status::rejected, {}};
    if (std::any_of(ops.begin(), ops.end(),
                    [](const Op& op) { return std::holds_alternative<EngineWork>(op); }))
      return {Status::unsupported, {}};
    if (graphs_.size() >= kMaxPreparedGroups) return {Status::busy, {}};
    Graph graph{.queue = queue, .ops = ops.size(), .status = &graph_statuses_[graphs_.size()]};
    GpuResult result = driver_.begin_capture(gpu->stream);
    if (result == GpuResult::ok) {
      Slot slot{.graph = &graph};
      const auto op_at = [&](std::size_t i) -> const Op& { return ops[i]; };
      const GpuResult given = give_ops(book.memory(), *gpu, ops.size(), op_at, slot);
      result = std::max(given, driver_.end_capture(gpu->stream, graph.graph));
    }
    if (result == GpuResult::lost) lose(book, driver_.last_error());
    if (result != GpuResult::ok) return {Status::io_error, {}};
    graphs_.push_back(graph);
    return {Status::ok, {static_cast<std::uint32_t>(graphs_.size() - 1)}};
  });
}

// Gives streams all that may be given.
void CudaDevice::give(GroupBook& book) {
  bool moved = true;
  while (moved && why_lost_.empty()) {
    moved = false;
    for (GpuQueue& queue : gpu_queues_)
      while (why_lost_.empty() && queue.given_groups < book.groups(queue.index)) {
        const GroupBook::Group& group = book.group(queue.index, queue.given_groups);
        if (!may_be_given(book, queue, group)) break;
        give(book, queue, group);
        if (!why_lost_.empty()) break;
        moved = true;
      }
  }
  if (!why_lost_.empty()) lose(book, why_lost_);
}

// An event that was not recorded yet would be no reason to wait. A stream that is full would make
// us wait for what we may have to let happen ourselves.
bool CudaDevice::may_be_given(const GroupBook& book, const GpuQueue& queue,
                              const GroupBook::Group& group) {
  for (std::size_t a = 0; a < group.after_count; ++a) {
    const Ticket ticket = group.after[a];
    if (ticket.id == 0 || GroupBook::is_event(ticket)) continue;
    const GpuQueue* other = gpu_queue(GroupBook::queue_of(ticket));
    if (other != nullptr && other != &queue && GroupBook::sequence_of(ticket) > other->given)
      return false;
  }
  const std::size_t commands = queue.slot(GroupBook::sequence_of(group.ticket)).commands;
  if (queue.commands + commands <= options_.max_commands) return true;
  return queue.given_groups == 0 && book.front(queue.index) != GroupBook::Front::waits;
}

void CudaDevice::give(const GroupBook& book, GpuQueue& queue, const GroupBook::Group& group) {
  const std::uint64_t sequence = GroupBook::sequence_of(group.ticket);
  Slot& slot = queue.slot(sequence);
  slot.status() = 0;
  slot.host_status = Status::ok;
  // All waits, also where nothing will be run: what waits for this group counts on them.
  bool failed = false;
  GpuResult result = GpuResult::ok;
  for (std::size_t a = 0; a < group.after_count && result == GpuResult::ok; ++a) {
    failed |= book.failed(group.after[a]);
    if (GroupBook::queue_of(group.after[a]) != queue.index)
      result = wait_for(book, queue.stream, group.after[a]);
  }
  if (result == GpuResult::ok && !failed) {
    const auto op_at = [&](std::size_t i) -> const Op& {
      return book.op(queue.index, queue.given_ops + i);
    };
    const GpuResult ops = slot.graph != nullptr
                              ? driver_.replay(slot.graph->graph, queue.stream)
                              : give_ops(book.memory(), queue, group.ops, op_at, slot);
    if (ops == GpuResult::failed) slot.host_status = Status::io_error;
    if (ops == GpuResult::lost) result = ops;
  }
  if (result == GpuResult::ok) {
    const GpuResult recorded = driver_.record(slot.event, queue.stream);
    slot.recorded = recorded == GpuResult::ok;
    if (recorded != GpuResult::lost)
      result = driver_.write_word(queue.stream, progress(queue.index), sequence);
    else
      result = recorded;
  }
  if (result != GpuResult::ok) {
    why_lost_ = driver_.last_error().empty() ? "the GPU is lost" : driver_.last_error();
    return;
  }
  queue.given = sequence;
  ++queue.given_groups;
  queue.given_ops += group.ops;
  queue.commands += slot.commands;
}

// By an event where a stream recorded one, else by a word. Without either no order can be kept:
// that is not ok.
GpuResult CudaDevice::wait_for(const GroupBook& book, GpuStream stream, Ticket ticket) {
  if (!book.pending(ticket)) return GpuResult::ok;
  if (GroupBook::is_event(ticket)) {
    Relay* relay = relay_of(ticket);
    if (relay == nullptr) {
      const EngineEvent* event = book.awaited(ticket);
      if (event != nullptr && reaches(*event))
        return driver_.wait_word(stream, *event->word, event->value);
      relay = free_relay();  // there is one for each event that can be pending
      relay->event = ticket;
      ++relay->value;
    }
    return driver_.wait_word(stream, *relay->word, relay->value);
  }
  const std::size_t other = GroupBook::queue_of(ticket);
  const std::uint64_t sequence = GroupBook::sequence_of(ticket);
  if (const GpuQueue* gpu = gpu_queue(other); gpu != nullptr && sequence <= gpu->given) {
    const Slot& slot = gpu->slot(sequence);
    if (slot.recorded) {
      const GpuResult result = driver_.wait_event(stream, slot.event);
      if (result != GpuResult::failed) return result;
    }
  }
  return driver_.wait_word(stream, progress(other), sequence);
}

bool CudaDevice::by_engines(const Copy& copy) const {
  return copies_within_host_ || !reach_[copy.from.space.index].host ||
         !reach_[copy.to.space.index].host;
}

// Copies to the copy engines; from the first other operation on, all to kernels, which know whether
// one before them has failed.
template <typename OpAt>
GpuResult CudaDevice::give_ops(SpaceMemory memory, const GpuQueue& queue, std::size_t ops,
                               OpAt&& op_at, Slot& slot) {
  bool kernels = threads_.queues()[queue.index].kind == QueueKind::compute;
  copies_.clear();
  launch_.clear();
  for (std::size_t i = 0; i < ops; ++i) {
    const Op& op = op_at(i);
    if (std::holds_alternative<EngineWork>(op)) {
      slot.host_status = Status::unsupported;
      break;
    }
    const auto* copy = std::get_if<Copy>(&op);
    kernels |= copy == nullptr || !by_engines(*copy);
    if (kernels) {
      launch_.push_back(op);
      continue;
    }
    const GpuCopy gpu_copy{memory[copy->to.space.index] + copy->to.offset,
                           memory[copy->from.space.index] + copy->from.offset,
                           static_cast<std::size_t>(copy->to.bytes)};
    if (!copies_.independent(gpu_copy)) {
      const GpuResult result = driver_.copy(queue.stream, copies_.copies());
      copies_.clear();
      if (result != GpuResult::ok) return result;
    }
    copies_.add(gpu_copy, copy->to.offset % CopyRun::kJoinedBytes != 0 &&
                              copy->from.offset % CopyRun::kJoinedBytes != 0);
  }
  if (!copies_.empty())
    if (const GpuResult result = driver_.copy(queue.stream, copies_.copies());
        result != GpuResult::ok)
      return result;
  return launch_.empty() ? GpuResult::ok
                         : driver_.launch(queue.stream, launch_, memory, &slot.status());
}

QueueThreads::Elsewhere::Seen CudaDevice::look(GroupBook& book) {
  if (!why_lost_.empty()) return {};
  Seen seen;
  do {
    give(book);
  } while (why_lost_.empty() && collect(book) && (seen.moved = true));
  if (why_lost_.empty()) watch(book);
  seen.moved |= !why_lost_.empty();
  if (why_lost_.empty())
    for (const GpuQueue& queue : gpu_queues_) seen.again |= book.groups(queue.index) > 0;
  return seen;
}

// Tells the book what has ended on the GPU.
bool CudaDevice::collect(GroupBook& book) {
  bool moved = false;
  for (GpuQueue& queue : gpu_queues_) {
    const std::uint64_t ended = progress(queue.index).load(std::memory_order_acquire);
    while (queue.given_groups > 0) {
      const GroupBook::Group& group = book.front_group(queue.index);
      const std::uint64_t sequence = GroupBook::sequence_of(group.ticket);
      const GroupBook::Front front = book.front(queue.index);
      if (sequence > ended || front == GroupBook::Front::waits) break;
      const Slot& slot = queue.slot(sequence);
      auto status =
          static_cast<Status>(std::atomic_ref(slot.status()).load(std::memory_order_acquire));
      if (status == Status::ok) status = slot.host_status;
      if (front == GroupBook::Front::must_cancel) status = Status::cancelled;
      --queue.given_groups;
      queue.given_ops -= group.ops;
      queue.commands -= slot.commands;
      book.finish_front(queue.index, status, now());
      moved = true;
    }
  }
  return moved;
}

// A thread's group has ended: streams that wait for it go on, without kernels where it failed.
void CudaDevice::ended(GroupBook& book, Ticket ticket) {
  if (book.failed(ticket))
    book.for_each_waiting(ticket, [&](std::size_t q, const GroupBook::Group& group) {
      GpuQueue* queue = gpu_queue(q);
      const std::uint64_t sequence = GroupBook::sequence_of(group.ticket);
      if (queue != nullptr && sequence <= queue->given)
        set_status(queue->slot(sequence).status(), Status::cancelled);
    });
  progress(GroupBook::queue_of(ticket))
      .store(GroupBook::sequence_of(ticket), std::memory_order_release);
  if (why_lost_.empty()) give(book);
}

void CudaDevice::reached(Ticket event) {
  Relay* relay = relay_of(event);
  if (relay == nullptr) return;
  if (!relay->of_stream) relay->word->store(relay->value, std::memory_order_release);
  relay->event = {};
  relay->of_stream = false;
}

CudaDevice::Relay* CudaDevice::relay_of(Ticket event) {
  const auto found = std::find_if(relays_.begin(), relays_.end(),
                                  [&](const Relay& relay) { return relay.event == event; });
  return found == relays_.end() ? nullptr : &*found;
}

CudaDevice::Relay* CudaDevice::free_relay() {
  return relay_of(Ticket{});
}

// A stream raises the word of a group that it was given, and that alone: once the word is raised,
// the engine may free it.
Status CudaDevice::export_event(Ticket ticket, EngineEvent event) {
  return threads_.with_book([&](GroupBook& book) {
    GpuQueue* queue = gpu_queue(GroupBook::queue_of(ticket));
    if (event.word == nullptr || queue == nullptr || !book.known(ticket) || !book.pending(ticket) ||
        GroupBook::sequence_of(ticket) > queue->given || !why_lost_.empty() || !reaches(event))
      return book.export_event(ticket, event);
    forget_raised();
    if (raises_.size() >= kMaxEngineEvents) return Status::busy;
    if (driver_.raise_word(queue->stream, *event.word, event.value) != GpuResult::ok)
      return book.export_event(ticket, event);
    raises_.push_back({queue, ++queue->raises, event});
    if (driver_.write_word(queue->stream, *queue->raised, queue->raises) != GpuResult::ok)
      lose(book, driver_.last_error());
    return Status::ok;
  });
}

Submitted CudaDevice::import_stream(GpuStream stream) {
  return threads_.with_book([&](GroupBook& book) -> Submitted {
    if (!why_lost_.empty()) return {Status::io_error, {}};
    Relay* relay = free_relay();
    if (relay == nullptr) return {Status::busy, {}};
    const Submitted submitted = book.import_event({relay->word, relay->value + 1});
    if (submitted.status != Status::ok) return submitted;
    relay->event = submitted.ticket;
    ++relay->value;
    if (driver_.write_word(stream, *relay->word, relay->value) == GpuResult::ok) {
      relay->of_stream = true;
      return submitted;
    }
    relay->word->store(relay->value, std::memory_order_release);
    return {Status::io_error, {}};
  });
}

Status CudaDevice::make_wait(GpuStream stream, Ticket ticket) {
  return threads_.with_book([&](GroupBook& book) {
    if (!why_lost_.empty()) return Status::io_error;
    if (GroupBook::is_event(ticket)) return Status::unsupported;
    if (!book.known(ticket)) return Status::rejected;
    return wait_for(book, stream, ticket) == GpuResult::ok ? Status::ok : Status::io_error;
  });
}

std::string CudaDevice::why_lost() {
  return threads_.with_book([&](GroupBook&) { return why_lost_; });
}

// Whether the GPU still works.
void CudaDevice::watch(GroupBook& book) {
  const Nanos now_ns = now();
  if (now_ns - watched_ns_ < kWatchNanos) return;
  watched_ns_ = now_ns;
  bool runs = false;
  for (GpuQueue& queue : gpu_queues_) {
    const bool may_run = book.front(queue.index) == GroupBook::Front::may_run;
    runs |= may_run;
    const Ticket front = may_run ? book.front_group(queue.index).ticket : Ticket{};
    if (front != queue.watched) queue.since_ns = now_ns;
    queue.watched = front;
    if (may_run && now_ns - queue.since_ns >= options_.stuck_ns)
      return lose(book, "the GPU is stuck: a group on its queue " +
                            std::string(name(threads_.queues()[queue.index].kind)) +
                            " has not ended in " +
                            std::to_string(options_.stuck_ns / kMillisecond) + " ms");
  }
  if (runs && driver_.check() == GpuResult::lost) lose(book, driver_.last_error());
}

// All that the GPU had to do has failed.
void CudaDevice::lose(GroupBook& book, const std::string& why) {
  why_lost_ = why.empty() ? "the GPU is lost" : why;
  raise_what_is_left();
  for (GpuQueue& queue : gpu_queues_) {
    while (book.groups(queue.index) > 0) book.finish_front(queue.index, Status::io_error, now());
    queue.given_groups = 0;
  }
}

}  // namespace modalkv
