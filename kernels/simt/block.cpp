#include "kernels/simt/block.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "kernels/simt/sanitizers.hpp"

namespace modalkv::simt {
namespace {

thread_local Block* running_block = nullptr;

// Between objects in shared memory: out of reach under the address sanitizer.
constexpr std::size_t kGap = 64;

std::string name(const Index& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

std::string name(const Where& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

bool same(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::strcmp(a.file_name(), b.file_name()) == 0;
}

}  // namespace

Block::~Block() {
  if (shared_) asan::forget(shared_.get(), kSharedBytes);
}

Block& Block::current() {
  return *running_block;
}

// A fiber lives on from block to block.
void Block::live(void* self) {
  auto& thread = *static_cast<Thread*>(self);
  for (;;) {
    Block& block = current();
    tsan::acquire(&block.begin_sync_);
    try {
      block.launch_->body();
      if (!thread.copies.empty())
        block.fail("left with asynchronous copies nobody waited for", Where::current());
    } catch (...) {
      if (!block.error_) block.error_ = std::current_exception();
    }
    --block.alive_;
    tsan::release(&block.end_sync_);
    thread.state = Thread::State::left;
    thread.fiber->pause();
  }
}

void Block::prepare(unsigned threads) {
  if (threads == 0 || threads > 1024)
    throw Misuse(describe("a block of " + std::to_string(threads) + " threads"));
  count_ = alive_ = threads;
  at_barrier_ = 0;
  predicates_ = 0;
  error_ = nullptr;
  threads_.reserve(1024);  // fibers hold addresses of threads
  while (threads_.size() < threads) {
    Thread& thread = threads_.emplace_back();
    thread.fiber = std::make_unique<Fiber>(live, &thread);
  }
  const Index& size = launch_->block;
  for (unsigned i = 0; i < threads; ++i) {
    Thread& thread = threads_[i];
    thread.number = i;
    thread.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    thread.state = Thread::State::ready;
    thread.copies.clear();
    thread.committed = 0;
  }
  const unsigned warps = (threads + kWarpLanes - 1) / kWarpLanes;
  warps_.assign(warps, {});
  warp_order_.resize(warps);
  std::iota(warp_order_.begin(), warp_order_.end(), 0);
  std::iota(lane_order_.begin(), lane_order_.end(), 0);
}

void Block::lay_out_shared() {
  if (launch_->dynamic_shared_bytes > kSharedBytes)
    throw Misuse(
        describe(std::to_string(launch_->dynamic_shared_bytes) + " bytes of shared memory"));
  if (!shared_) {
    shared_ = std::make_unique<Shared>();
    shared_used_ = kSharedBytes;
  }
  std::byte* begin = shared_->bytes.data();
  asan::forget(begin, kSharedBytes);
  std::memset(begin, 0xff, std::max(shared_used_, launch_->dynamic_shared_bytes));
  asan::forbid(begin + launch_->dynamic_shared_bytes, kSharedBytes - launch_->dynamic_shared_bytes);
  shared_used_ = launch_->dynamic_shared_bytes;
  static_used_ = 0;
  objects_.clear();
}

void* Block::static_shared(const void* key, std::size_t bytes, std::size_t alignment) {
  std::byte* begin = shared_->bytes.data();
  for (const SharedObject& object : objects_)
    if (object.key == key) return begin + object.offset;
  const std::size_t unit = std::max<std::size_t>(alignment, 16);
  const std::size_t offset = (shared_used_ + kGap + unit - 1) / unit * unit;
  static_used_ += bytes;
  if (offset + bytes > kSharedBytes || static_used_ > kStaticSharedBytes)
    fail("more shared memory than a block has", Where::current());
  shared_used_ = offset + bytes;
  objects_.push_back({key, offset});
  asan::forget(begin + offset, bytes);
  return begin + offset;
}

void Block::run(const Launch& launch, Index block) {
  launch_ = &launch;
  index_ = block;
  prepare(launch.block.x * launch.block.y * launch.block.z);
  lay_out_shared();
  random_.seed(launch.seed +
               (std::uint64_t{block.z} << 42 ^ std::uint64_t{block.y} << 21 ^ block.x));
  running_block = this;
  tsan::release(&begin_sync_);
  while (alive_ > 0) {
    bool moved = false;
    if (launch.seed != 0) std::shuffle(warp_order_.begin(), warp_order_.end(), random_);
    for (const unsigned warp : warp_order_) moved |= advance_warp(warp);
    if (!error_ && !moved && !open_barrier() && alive_ > 0)
      error_ = std::make_exception_ptr(Misuse(describe("deadlock")));
    if (error_) {
      tsan::acquire(&end_sync_);
      threads_.clear();  // those under way never end
      std::rethrow_exception(error_);
    }
  }
  tsan::acquire(&end_sync_);
}

// As far as it goes without other warps.
bool Block::advance_warp(unsigned warp) {
  bool moved = false;
  for (bool again = true; again && !error_;) {
    again = false;
    if (launch_->seed != 0) std::shuffle(lane_order_.begin(), lane_order_.end(), random_);
    for (const unsigned lane : lane_order_) {
      const unsigned number = warp * kWarpLanes + lane;
      if (number >= count_ || threads_[number].state != Thread::State::ready) continue;
      running_ = &threads_[number];
      running_->fiber->resume();
      moved = again = true;
      if (error_) break;
    }
  }
  return moved;
}

void Block::pause(Thread::State state, Where where) {
  running_->state = state;
  running_->waits_at = where;
  tsan::release(&end_sync_);  // in case that it never goes on
  running_->fiber->pause();
}

int Block::barrier(bool predicate, Where where) {
  if (at_barrier_ > 0 && !same(barrier_where_, where))
    fail("a barrier reached at " + name(barrier_where_) + " and at " + name(where), where);
  barrier_where_ = where;
  ++at_barrier_;
  predicates_ += predicate ? 1 : 0;
  tsan::release(&barrier_sync_);
  pause(Thread::State::at_barrier, where);
  tsan::acquire(&barrier_sync_);
  return barrier_count_;
}

bool Block::open_barrier() {
  if (at_barrier_ != alive_ || alive_ == 0) return false;
  barrier_count_ = predicates_;
  at_barrier_ = 0;
  predicates_ = 0;
  for (unsigned i = 0; i < count_; ++i)
    if (threads_[i].state == Thread::State::at_barrier) threads_[i].state = Thread::State::ready;
  return true;
}

void Block::meet(unsigned mask, Exchange exchange, bool orders, Where where) {
  Thread& self = *running_;
  Warp& warp = warps_[self.warp()];
  if ((mask >> self.lane() & 1) == 0) fail("a lane that its own mask leaves out", where);
  // Lanes may wait for some that have another meeting first.
  Meeting* free = nullptr;
  Meeting* joined = nullptr;
  for (Meeting& one : warp.meetings) {
    if (one.arrived != 0 && one.mask == mask) joined = &one;
    if (one.arrived == 0 && free == nullptr) free = &one;
  }
  if (joined != nullptr && !same(joined->where, where))
    fail("lanes of a warp diverged: some wait at " + name(joined->where) + ", one came to " +
             name(where),
         where);
  Meeting& meeting = joined != nullptr ? *joined : *free;  // at most one for each lane
  meeting.mask = mask;
  meeting.where = where;
  meeting.arrived |= 1u << self.lane();
  if (orders) tsan::release(&meeting.sync);
  if (meeting.arrived != mask) {
    pause(Thread::State::in_warp, where);
  } else {
    meeting.arrived = 0;
    Thread* lanes = &threads_[self.warp() * kWarpLanes];
    exchange(lanes, mask);
    for (unsigned l = 0; l < kWarpLanes; ++l)
      if ((mask >> l & 1) != 0) lanes[l].state = Thread::State::ready;
  }
  if (orders) tsan::acquire(&meeting.sync);
}

void Block::fail(const std::string& what, Where where) {
  running_->waits_at = where;
  throw Misuse(describe(what + " (thread " + std::to_string(running_->number) + ")"));
}

std::string Block::describe(const std::string& what) const {
  std::string text = what + " in " + launch_->kernel + ", block " + name(index_);
  unsigned left = 0;
  for (unsigned i = 0; i < std::min<std::size_t>(count_, threads_.size());) {
    const Thread& first = threads_[i];
    unsigned end = i + 1;
    while (end < count_ && threads_[end].state == first.state &&
           same(threads_[end].waits_at, first.waits_at))
      ++end;
    if (first.state == Thread::State::left) {
      left += end - i;
    } else if (first.state != Thread::State::ready) {
      text += first.state == Thread::State::in_warp ? "; in a warp's collective at "
                                                    : "; at a barrier at ";
      text += name(first.waits_at) + ": threads " + std::to_string(i) + " to " +
              std::to_string(end - 1);
    }
    i = end;
  }
  if (left > 0) text += "; " + std::to_string(left) + " have left";
  return text;
}

}  // namespace modalkv::simt
