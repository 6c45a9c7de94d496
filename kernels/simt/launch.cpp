#include "kernels/simt/launch.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

namespace modalkv::simt {
namespace {

thread_local const Emulation::Options* innermost = nullptr;

std::vector<std::uint64_t> order(std::uint64_t blocks, std::uint64_t seed) {
  std::vector<std::uint64_t> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  if (seed != 0) std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  return order;
}

// Keeps its fibers from launch to launch.
Block& block_of_this_thread() {
  static thread_local Block block;
  return block;
}

}  // namespace

Emulation::Emulation(const Options& options) : options_(options), outer_(innermost) {
  innermost = &options_;
}
Emulation::~Emulation() {
  innermost = outer_;
}

void launch_grid(const char* kernel, Index grid, Index block, std::size_t dynamic_shared_bytes,
                 const std::function<void()>& body) {
  const Emulation::Options options = innermost != nullptr ? *innermost : Emulation::Options{};
  const Block::Launch launch{kernel, grid, block, dynamic_shared_bytes, options.seed, body};
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  if (blocks == 0) throw Misuse(std::string("an empty grid of ") + kernel);
  const std::vector<std::uint64_t> turns = order(blocks, options.seed);
  std::atomic<std::uint64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    Block& emulated = block_of_this_thread();
    for (std::uint64_t turn; (turn = next++) < blocks;) {
      const std::uint64_t i = turns[turn];
      try {
        emulated.run(launch,
                     {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                      static_cast<unsigned>(i / grid.x / grid.y)});
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        next = blocks;
      }
    }
  };
  std::vector<std::jthread> helpers;
  for (unsigned i = 1; i < std::min<std::uint64_t>(options.workers, blocks); ++i)
    helpers.emplace_back(work);
  work();
  helpers.clear();
  if (error) std::rethrow_exception(error);
}

}  // namespace modalkv::simt
