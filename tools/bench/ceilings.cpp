#include "tools/bench/ceilings.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "tools/bench/ceiling_loops.hpp"
#include "tools/bench/time_statistics.hpp"

namespace modalkv {
namespace {

constexpr std::size_t kThreadStepBytes = 4096;
constexpr std::int64_t kDotProductTurns = 500'000;  // a millisecond or two

std::size_t thread_bytes_of(std::size_t memory_bytes, Bytes pass_bytes, int threads) {
  const std::size_t pass = std::min(memory_bytes, static_cast<std::size_t>(pass_bytes));
  return pass / static_cast<std::size_t>(threads) / kThreadStepBytes * kThreadStepBytes;
}

double per_second(double units, Nanos time_ns) {
  return units * 1e9 / static_cast<double>(std::max<Nanos>(time_ns, 1));
}

}  // namespace

Ceilings::Ceilings(ThreadTeam& team, std::span<const std::byte> memory, Bytes pass_bytes)
    : team_(team),
      memory_(memory),
      thread_bytes_(thread_bytes_of(memory.size(), pass_bytes, team.threads())),
      target_(static_cast<Bytes>(thread_bytes_) * team.threads()) {
  for (const ReadLoop& loop : read_loops()) reads_.push_back({std::string(loop.name), {}});
  for (const CopyLoop& loop : copy_loops()) copies_.push_back({std::string(loop.name), {}});
  for (const DotProductLoop& loop : {dot_product_loop_16bit(), dot_product_loop_8bit()})
    dots_.push_back({std::string(loop.name), {}});
}

std::span<const std::byte> Ceilings::next_pass() {
  const std::size_t bytes = target_.bytes().size();
  if (cursor_ + bytes > memory_.size()) cursor_ = 0;
  const auto pass = memory_.subspan(cursor_, bytes);
  cursor_ += bytes;
  return pass;
}

void Ceilings::measure() {
  std::atomic<std::uint64_t> seen{0};  // so that no loop is in vain
  const auto part_of = [&](std::span<const std::byte> pass, int thread) {
    return pass.subspan(static_cast<std::size_t>(thread) * thread_bytes_, thread_bytes_);
  };
  const auto pass_bytes = static_cast<double>(target_.bytes().size());
  for (std::size_t i = 0; i < reads_.size(); ++i) {
    const auto pass = next_pass();
    const Nanos time_ns =
        team_.run([&](int thread) { seen += read_loops()[i].run(part_of(pass, thread)); });
    reads_[i].readings.push_back(per_second(pass_bytes, time_ns));
  }
  for (std::size_t i = 0; i < copies_.size(); ++i) {
    const auto pass = next_pass();
    const Nanos time_ns = team_.run([&](int thread) {
      copy_loops()[i].run(
          part_of(pass, thread),
          target_.bytes().data() + static_cast<std::size_t>(thread) * thread_bytes_);
    });
    copies_[i].readings.push_back(per_second(pass_bytes, time_ns));
  }
  const DotProductLoop loops[] = {dot_product_loop_16bit(), dot_product_loop_8bit()};
  for (std::size_t i = 0; i < dots_.size(); ++i) {
    const Nanos time_ns = team_.run(
        [&](int) { seen += static_cast<std::uint64_t>(loops[i].run(kDotProductTurns) != 0); });
    dots_[i].readings.push_back(per_second(
        loops[i].operations_a_turn * static_cast<double>(kDotProductTurns) * team_.threads(),
        time_ns));
  }
}

Ceiling Ceilings::fastest(std::span<const Ceiling> loops) {
  return *std::max_element(loops.begin(), loops.end(), [](const Ceiling& a, const Ceiling& b) {
    return median_of(a.readings) < median_of(b.readings);
  });
}

}  // namespace modalkv
