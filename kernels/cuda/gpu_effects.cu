// Operations to launches: neighbours of one kind that are alike and touch nothing of each other's
// results go together.
#include <algorithm>

#include "kernels/cuda/attention_launch.hpp"
#include "kernels/cuda/page_launch.hpp"
#include "kernels/simt/simt.hpp"

namespace modalkv::MODALKV_GPU {
namespace {

constexpr std::size_t kMostTogether = 64;  // comparing all with all takes the time of its square

// Whether one of them writes what the other touches.
bool depend(const Accesses& a, const Accesses& b) {
  for (const Access& x : a)
    for (const Access& y : b)
      if ((x.writes || y.writes) && overlap(x.where, y.where)) return true;
  return false;
}

template <class Kind>
bool are_alike(const Kind& a, const Kind& b) {
  if constexpr (requires { alike(a, b); }) return alike(a, b);
  return true;
}

// Launches those at the front of `ops` that go with the first; drops them.
template <class Kind, class Launch>
GpuError launch_front(std::span<const Op>& ops, Launch launch) {
  Kind together[kMostTogether];
  Accesses touched[kMostTogether];
  std::size_t count = 0;
  for (const Op& op : ops.first(std::min(kMostTogether, ops.size()))) {
    const Kind* next = std::get_if<Kind>(&op);
    if (next == nullptr || (count > 0 && !are_alike(*next, together[0]))) break;
    const Accesses touches = accesses(op);
    if (std::any_of(touched, touched + count,
                    [&](const Accesses& other) { return depend(touches, other); }))
      break;
    together[count] = *next;
    touched[count++] = touches;
  }
  ops = ops.subspan(count);
  return launch(std::span<const Kind>(together, count));
}

class Dispatch {
 public:
  Dispatch(SpaceMemory memory, const GpuLaunch& launch) : memory_(memory), launch_(launch) {}

  GpuError operator()(std::span<const Op>& ops) const {
    return std::visit(
        [&]<class Kind>(const Kind&) {
          return launch_front<Kind>(ops, [&](std::span<const Kind> some) { return go(some); });
        },
        ops.front());
  }

 private:
  GpuError go(std::span<const Fill> ops) const { return launch_fill(ops, memory_, launch_); }
  GpuError go(std::span<const Copy> ops) const { return launch_copy(ops, memory_, launch_); }
  GpuError go(std::span<const Checksum> ops) const {
    return launch_checksum(ops, memory_, launch_);
  }
  GpuError go(std::span<const Verify> ops) const { return launch_verify(ops, memory_, launch_); }
  GpuError go(std::span<const VerifyPage> ops) const {
    return launch_verify_page(ops, memory_, launch_);
  }
  GpuError go(std::span<const Encode> ops) const { return launch_encode(ops, memory_, launch_); }
  GpuError go(std::span<const Append> ops) const { return launch_append(ops, memory_, launch_); }
  GpuError go(std::span<const Close> ops) const { return launch_close(ops, memory_, launch_); }
  GpuError go(std::span<const Decode> ops) const { return launch_decode(ops, memory_, launch_); }
  GpuError go(std::span<const Attend> ops) const { return launch_attend(ops, memory_, launch_); }
  GpuError go(std::span<const Merge> ops) const { return each(ops, launch_merge); }
  GpuError go(std::span<const Finish> ops) const { return each(ops, launch_finish); }
  GpuError go(std::span<const Score> ops) const { return each(ops, launch_score); }
  GpuError go(std::span<const EngineWork>) const { return 0; }

  template <class Kind, class Launch>
  GpuError each(std::span<const Kind> ops, Launch launch) const {
    for (const Kind& op : ops)
      if (const GpuError error = launch(op, memory_, launch_)) return error;
    return 0;
  }

  SpaceMemory memory_;
  const GpuLaunch& launch_;
};

}  // namespace

GpuError launch(std::span<const Op> ops, SpaceMemory memory, const GpuLaunch& launch) {
  const Dispatch dispatch(memory, launch);
  while (!ops.empty())
    if (const GpuError error = dispatch(ops)) return error;
  return 0;
}

#ifdef __CUDACC__
GpuError preload() {
  return simt::LaunchedKernel::load_all();
}
#endif

}  // namespace modalkv::MODALKV_GPU
