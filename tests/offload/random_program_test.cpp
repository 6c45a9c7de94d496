// Random programs give the bytes of a plain loop on every device; and a dependency that is left out
// is found.
#include "tests/offload/random_program.hpp"

#include <gtest/gtest.h>

#include "kernels/effects.hpp"
#include "tests/offload/devices.hpp"

namespace modalkv {
namespace {

constexpr Bytes kSpaceBytes = RandomProgram::kPage * RandomProgram::kPages;

struct Outcome {
  std::vector<std::byte> first, second;
  bool all_submitted = true;
  Nanos end_ns = 0;

  bool operator==(const Outcome& other) const {
    return first == other.first && second == other.second;
  }
};

void fill_with_pattern(Memory& memory) {
  for (std::size_t i = 0; i < memory.bytes().size(); ++i)
    memory.bytes()[i] = static_cast<std::byte>(i * 31 + 5);
}

// The program in order, on this thread.
Outcome in_order(const RandomProgram& program) {
  std::vector<std::byte> first(kSpaceBytes), second(kSpaceBytes);
  for (std::size_t i = 0; i < first.size(); ++i)
    first[i] = second[i] = static_cast<std::byte>(i * 31 + 5);
  std::byte* memory[] = {first.data(), second.data()};
  for (const ProgramGroup& group : program.groups)
    for (const Op& op : group.ops) EXPECT_EQ(perform(op, memory), Status::ok);
  return {first, second};
}

// `left_out`: a group whose dependency number `which` is forgotten.
Outcome on_device(Device& device, const RandomProgram& program,
                  std::optional<std::size_t> left_out = {}, std::size_t which = 0) {
  Memory first(device, kSpaceBytes), second(device, kSpaceBytes, SpaceInfo::Kind::device);
  fill_with_pattern(first);
  fill_with_pattern(second);
  const QueueKind kinds[] = {QueueKind::h2d, QueueKind::d2h, QueueKind::compute, QueueKind::host};
  std::vector<Ticket> tickets;
  Outcome result;
  for (std::size_t g = 0; g < program.groups.size(); ++g) {
    const ProgramGroup& group = program.groups[g];
    std::vector<Ticket> after;
    for (std::size_t a = 0; a < group.after.size(); ++a)
      if (left_out != g || a != which) after.push_back(tickets[group.after[a]]);
    Submitted submitted;
    do {
      submitted = device.submit(find_queue(device, kinds[group.queue]).value(), group.ops, after);
      if (submitted.status == Status::busy) (void)device.next_completion(kSecond);
    } while (submitted.status == Status::busy);
    if (submitted.status != Status::ok) {
      result.all_submitted = false;
      break;
    }
    tickets.push_back(submitted.ticket);
  }
  drain(device);
  result.first = first.bytes();
  result.second = second.bytes();
  result.end_ns = device.now();
  return result;
}

void expect_same_bytes_on_every_device(std::uint64_t first_seed, std::uint64_t last_seed) {
  for (std::uint64_t seed = first_seed; seed <= last_seed; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const RandomProgram program = random_program(seed, 400, SpaceId{0}, SpaceId{1});
    const Outcome expected = in_order(program);
    Sim sim;
    EXPECT_TRUE(on_device(sim.device, program) == expected);
    SimDevice jittered(small_machine(), {.jitter = 5, .seed = seed});
    EXPECT_TRUE(on_device(jittered, program) == expected);
    Host host;
    EXPECT_TRUE(on_device(host.device, program) == expected);
    Cuda cuda(seed);
    EXPECT_TRUE(on_device(cuda.device, program) == expected);
    Checked<Host> checked;
    EXPECT_TRUE(on_device(checked.device, program) == expected);
    EXPECT_TRUE(checked.device.findings().empty()) << checked.device.findings().at(0).message;
    Checked<Sim> checked_sim;
    EXPECT_TRUE(on_device(checked_sim.device, program) == expected);
    EXPECT_TRUE(checked_sim.device.findings().empty())
        << checked_sim.device.findings().at(0).message;
  }
}

TEST(RandomProgram, GivesTheSameBytesOnEveryDevice) {
  expect_same_bytes_on_every_device(1, 40);
}

TEST(RandomProgramNightly, GivesTheSameBytesOnEveryDevice) {
  expect_same_bytes_on_every_device(41, 440);
}

TEST(RandomProgram, VirtualTimeIsAFunctionOfTheSeed) {
  const RandomProgram program = random_program(3, 300, SpaceId{0}, SpaceId{1});
  const auto end_ns = [&](std::uint64_t seed) {
    SimDevice device(small_machine(), {.jitter = 1, .seed = seed});
    return on_device(device, program).end_ns;
  };
  EXPECT_EQ(end_ns(1), end_ns(1));
  EXPECT_NE(end_ns(1), end_ns(2));
}

// Leaves out one dependency after another. Where the rest still orders the two groups, nothing may
// be found; where it does not, the checking device must find it, although the bytes may come out
// right. The reference for "ordered" is reachability, worked out here from the program alone.
TEST(RandomProgram, AForgottenDependencyIsFoundExactlyWhereNothingElseOrders) {
  int hazards = 0, harmless = 0;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    const RandomProgram program = random_program(seed, 60, SpaceId{0}, SpaceId{1});
    for (std::size_t g = 0; g < program.groups.size(); ++g)
      for (std::size_t which = 0; which < program.groups[g].after.size(); ++which) {
        const std::size_t forgotten = program.groups[g].after[which];
        std::vector<bool> before(g, false);  // g comes after it
        for (std::size_t h = g; h-- > 0;) {
          if (program.groups[h].queue == program.groups[g].queue) before[h] = true;
          for (std::size_t a = 0; a < program.groups[g].after.size(); ++a)
            if (a != which && program.groups[g].after[a] == h) before[h] = true;
          for (std::size_t later = h + 1; later < g; ++later) {
            if (!before[later]) continue;
            const auto& after = program.groups[later].after;
            if (program.groups[later].queue == program.groups[h].queue ||
                std::find(after.begin(), after.end(), h) != after.end())
              before[h] = true;
          }
        }
        // What comes after it is ordered as before where it is, and is refused where it is not.
        RandomProgram so_far;
        so_far.groups.assign(program.groups.begin(),
                             program.groups.begin() + static_cast<std::ptrdiff_t>(g) + 1);
        Checked<Sim> checked;
        const Outcome outcome = on_device(checked.device, so_far, g, which);
        ASSERT_EQ(outcome.all_submitted, before[forgotten])
            << "seed " << seed << ", group " << g << " without waiting for " << forgotten;
        if (before[forgotten]) {
          ++harmless;
        } else {
          ++hazards;
          ASSERT_EQ(checked.device.findings().size(), 1u);
          EXPECT_EQ(checked.device.findings()[0].kind, Finding::Kind::hazard);
        }
      }
  }
  EXPECT_GT(hazards, 200);
  EXPECT_GT(harmless, 200);
}

}  // namespace
}  // namespace modalkv
