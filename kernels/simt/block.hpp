// One thread block of an emulated GPU: its threads, each a fiber, meet at barriers and in warp
// collectives. A block runs on one thread of the host, its fibers one at a time, each until it can
// go no further; in which order is drawn from a seed.
//
// What a GPU leaves undefined is an error here, thrown as Misuse: a barrier that not all threads
// reach, one reached from two lines, lanes that name different masks, a shuffle from a lane outside
// the mask, asynchronous copies nobody waited for. Shared memory holds 0xff at the start (NaN to
// every float), and copies land at their wait, the latest moment allowed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/simt/fiber.hpp"

namespace modalkv::simt {

/// A kernel that relies on what CUDA does not promise. what() names kernel, block, threads, lines.
struct Misuse : std::logic_error {
  using std::logic_error::logic_error;
};

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

using Where = std::source_location;

inline constexpr int kWarpLanes = 32;
inline constexpr std::size_t kSharedBytes = 227 << 10;       ///< of a block, at most
inline constexpr std::size_t kStaticSharedBytes = 48 << 10;  ///< of that, declared in kernels

/// A cp.async under way.
struct PendingCopy {
  void* to;
  const void* from;
  unsigned group;
};

/// An emulated thread.
struct Thread {
  enum class State : std::uint8_t { ready, in_warp, at_barrier, left };

  Index index;
  unsigned number = 0;  ///< in the block
  State state = State::left;
  Where waits_at;
  std::unique_ptr<Fiber> fiber;
  unsigned lane() const { return number % kWarpLanes; }
  unsigned warp() const { return number / kWarpLanes; }

  std::vector<PendingCopy> copies{};
  unsigned committed = 0;  ///< groups of copies
  // Of the collective this lane is in: what it brings, and what it gets.
  std::array<std::uint32_t, 10> given{};
  std::array<std::uint32_t, 4> got{};
};

/// What the last lane that arrives does: from what all lanes of `mask` have given to what they get.
/// `lanes[l]` is lane l.
using Exchange = void (*)(Thread* lanes, unsigned mask);

class Block {
 public:
  struct Launch {
    const char* kernel;
    Index grid, block;
    std::size_t dynamic_shared_bytes;
    std::uint64_t seed;  ///< 0: warps and lanes in their natural order
    const std::function<void()>& body;
  };

  Block() = default;
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  /// Runs one block from begin to end. Throws Misuse, and what the kernel throws.
  void run(const Launch& launch, Index block);

  /// The block that runs on the calling thread of the host.
  static Block& current();

  // From inside, by the emulated threads.
  Thread& thread() { return *running_; }
  const Index& index() const { return index_; }
  const Launch& launch() const { return *launch_; }

  /// __syncthreads_count: how many threads came with `predicate`.
  int barrier(bool predicate, Where where);
  /// Waits for all lanes of `mask`. `orders`: their memory accesses are ordered, too (__syncwarp).
  void meet(unsigned mask, Exchange exchange, bool orders, Where where);
  /// The object of a declaration in a kernel, which `key` stands for.
  void* static_shared(const void* key, std::size_t bytes, std::size_t alignment);
  void* dynamic_shared() { return shared_->bytes.data(); }
  [[noreturn]] void fail(const std::string& what, Where where);

 private:
  // Lanes that wait for each other.
  struct Meeting {
    unsigned mask = 0, arrived = 0;
    Where where;
    bool sync = false;  // its address is what ThreadSanitizer orders by
  };
  struct Warp {
    std::array<Meeting, kWarpLanes> meetings{};
  };
  struct SharedObject {
    const void* key;
    std::size_t offset;
  };

  static void live(void* self);
  void prepare(unsigned threads);
  void lay_out_shared();
  bool advance_warp(unsigned warp);
  bool open_barrier();
  void pause(Thread::State state, Where where);
  std::string describe(const std::string& what) const;

  const Launch* launch_ = nullptr;
  Index index_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<unsigned> warp_order_;
  std::array<unsigned, kWarpLanes> lane_order_{};
  std::mt19937_64 random_;
  Thread* running_ = nullptr;
  unsigned count_ = 0, alive_ = 0, at_barrier_ = 0;
  int predicates_ = 0, barrier_count_ = 0;
  Where barrier_where_;
  std::exception_ptr error_;
  struct alignas(1024) Shared {
    std::array<std::byte, kSharedBytes> bytes;
  };
  std::unique_ptr<Shared> shared_;
  std::size_t shared_used_ = 0, static_used_ = 0;
  std::vector<SharedObject> objects_;
  char begin_sync_ = 0, end_sync_ = 0, barrier_sync_ = 0;  // addresses for ThreadSanitizer
};

}  // namespace modalkv::simt
