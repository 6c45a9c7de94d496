#include "offload/checking_device.hpp"

#include <gtest/gtest.h>

#include "tests/offload/devices.hpp"

namespace modalkv {
namespace {

template <typename Checked>
Submitted submit(Checked& checked, QueueKind kind, std::vector<Op> ops,
                 std::vector<Ticket> after = {}) {
  return checked.device.submit(find_queue(checked.device, kind).value(), ops, after);
}

TEST(CheckingDevice, ReadersMayRunAtOnceAndAWriterMayNot) {
  Checked<Sim> checked;
  Memory memory(checked.device, 4096);
  const auto source = memory.at(0, 64);
  EXPECT_EQ(submit(checked, QueueKind::h2d, {Copy{source, memory.at(64, 64)}}).status, Status::ok);
  EXPECT_EQ(submit(checked, QueueKind::d2h, {Copy{source, memory.at(128, 64)}}).status, Status::ok);
  EXPECT_EQ(submit(checked, QueueKind::compute, {Fill{memory.at(63, 1), 1}}).status,
            Status::rejected);
  ASSERT_EQ(checked.device.findings().size(), 1u);
  const Finding& finding = checked.device.findings()[0];
  EXPECT_EQ(finding.kind, Finding::Kind::hazard);
  for (const char* part : {"not ordered", "fill of 1 bytes at 63", "copy of 64 bytes at 0"})
    EXPECT_NE(finding.message.find(part), std::string::npos) << finding.message;
  drain(checked.device);
  EXPECT_EQ(submit(checked, QueueKind::compute, {Fill{memory.at(63, 1), 1}}).status, Status::ok)
      << "collected completions order";
}

TEST(CheckingDevice, OrderIsTransitiveThroughQueuesAndTickets) {
  Checked<Sim> checked;
  Memory memory(checked.device, 4096);
  const Ticket write = submit(checked, QueueKind::compute, {Fill{memory.at(0, 64), 1}}).ticket;
  const Ticket hop = submit(checked, QueueKind::h2d, {}, {write}).ticket;
  const Ticket hop2 = submit(checked, QueueKind::host, {}, {hop}).ticket;
  EXPECT_EQ(
      submit(checked, QueueKind::d2h, {Copy{memory.at(0, 64), memory.at(64, 64)}}, {hop2}).status,
      Status::ok);
  EXPECT_EQ(submit(checked, QueueKind::host, {Fill{memory.at(0, 64), 2}}).status, Status::rejected)
      << "after the write, but not after the read";
}

TEST(CheckingDevice, OfAListOfPagesThoseInItsTableAreRead) {
  Checked<Sim> checked;
  const PageShape shape{16, 1, 64};
  const Bytes page = page_bytes(shape);
  Memory memory(checked.device, 8 * page);
  const std::int64_t listed[] = {3 * page, 1 * page};
  std::memcpy(memory.bytes().data(), listed, sizeof(listed));
  Attend attend{};
  attend.queries = memory.at(256, 64 * 2);
  attend.pages = memory.at(page, 7 * page);
  attend.page_table = memory.at(0, 16);
  attend.partials = memory.at(512, partial_bytes(1, 64));
  attend.shape = shape;
  attend.tokens = 32;
  attend.query_heads = attend.query_tokens = 1;
  ASSERT_EQ(submit(checked, QueueKind::compute, {attend}).status, Status::ok);
  EXPECT_EQ(submit(checked, QueueKind::h2d, {Fill{memory.at(3 * page, page), 1}}).status,
            Status::ok)
      << "a page between them";
  EXPECT_EQ(submit(checked, QueueKind::h2d, {Fill{memory.at(5 * page - 1, 1), 1}}).status,
            Status::rejected);
  drain(checked.device);
}

TEST(CheckingDevice, WhatIsAddedToAnOpenPageLeavesTheRest) {
  Checked<Host> checked;
  const PageShape shape{16, 1, 16};
  Memory memory(checked.device, page_bytes(shape) + 64);
  const Address page = memory.at(64, page_bytes(shape)), row = memory.at(0, 32);
  memory.bytes()[0] = std::byte{7};
  for (Tokens first = 0; first < 2; ++first)
    ASSERT_EQ(submit(checked, QueueKind::compute, {Append{row, row, page, shape, first, 1}}).status,
              Status::ok);
  ASSERT_EQ(submit(checked, QueueKind::compute, {Close{page, shape, 2}}).status, Status::ok);
  drain(checked.device);
  EXPECT_EQ(memory[64], 7) << "the first token's first element";
}

TEST(CheckingDevice, AnEarlyReaderSeesPoison) {
  // A reader behind the checker's back, in virtual time: while a long copy runs.
  Sim sim;
  CheckingDevice checking(sim.device);
  std::vector<std::byte> from(8 * kMiB, std::byte{1}), to(8 * kMiB, std::byte{2}), seen(64);
  const auto space = [&](std::vector<std::byte>& bytes) {
    return checking
        .register_space({SpaceInfo::Kind::host, static_cast<Bytes>(bytes.size()), bytes.data()})
        .space;
  };
  const SpaceId a = space(from), b = space(to), c = space(seen);
  const std::vector<Op> copy{Copy{{a, 0, 8 * kMiB}, {b, 0, 8 * kMiB}}};
  ASSERT_EQ(checking.submit(*find_queue(checking, QueueKind::h2d), copy, {}).status, Status::ok);
  const std::vector<Op> late{EngineWork{500 * kMicrosecond}, Copy{{b, 0, 64}, {c, 0, 64}}};
  ASSERT_EQ(sim.device.submit(*find_queue(sim.device, QueueKind::compute), late, {}).status,
            Status::ok);
  drain(checking);
  EXPECT_EQ(static_cast<std::uint8_t>(seen[0]), CheckingDevice::kPoison);
  EXPECT_EQ(to, from);
}

TEST(CheckingDevice, AWriteBehindADestinationIsFoundByItsRedZone) {
  Host host;
  FaultDevice faulty(host.device, {.seed = 5, .overrun = 1});
  CheckingDevice checking(faulty);
  Memory memory(checking, 4096);
  ASSERT_EQ(checking.protect(memory.at(64, 32)), Status::ok);
  const std::vector<Op> ops{Fill{memory.at(0, 64), 1}};
  ASSERT_EQ(checking.submit(*find_queue(checking, QueueKind::compute), ops, {}).status, Status::ok);
  EXPECT_EQ(drain(checking).at(0).status, Status::ok) << "it looks well";
  ASSERT_EQ(checking.findings().size(), 1u);
  EXPECT_EQ(checking.findings()[0].kind, Finding::Kind::red_zone);
  EXPECT_NE(checking.findings()[0].message.find("byte 64 of space 0"), std::string::npos)
      << checking.findings()[0].message;
}

TEST(CheckingDevice, NamingARedZoneIsRejected) {
  Checked<Sim> checked;
  Memory memory(checked.device, 4096);
  ASSERT_EQ(checked.device.protect(memory.at(64, 32)), Status::ok);
  EXPECT_EQ(submit(checked, QueueKind::compute, {Fill{memory.at(32, 33), 1}}).status,
            Status::rejected);
  EXPECT_EQ(checked.device.findings().at(0).kind, Finding::Kind::red_zone);
  EXPECT_EQ(checked.device.protect(memory.at(4090, 32)), Status::rejected);
}

// A device that reports a completion twice.
class Stutter final : public ForwardingDevice {
 public:
  explicit Stutter(Device& inner) : ForwardingDevice(inner) {}
  std::optional<Completion> next_completion(Nanos timeout_ns) override {
    if (again_) return std::exchange(again_, std::nullopt);
    return again_ = inner_.next_completion(timeout_ns);
  }

 private:
  std::optional<Completion> again_;
};

// A device that reports the latest completion first.
class LatestFirst final : public ForwardingDevice {
 public:
  explicit LatestFirst(Device& inner) : ForwardingDevice(inner) {}
  std::optional<Completion> next_completion(Nanos timeout_ns) override {
    while (const auto completion = inner_.next_completion(timeout_ns)) held_.push_back(*completion);
    if (held_.empty()) return std::nullopt;
    const Completion last = held_.back();
    held_.pop_back();
    return last;
  }

 private:
  std::vector<Completion> held_;
};

TEST(CheckingDevice, ACompletionVouchesForAllThatItsGroupWaitedFor) {
  Sim sim;
  LatestFirst latest_first(sim.device);
  CheckingDevice checking(latest_first);
  Memory memory(checking, 256);
  const auto queue = [&](QueueKind kind) { return *find_queue(checking, kind); };
  const std::vector<Op> write{Fill{memory.at(0, 64), 1}};
  const Ticket first = checking.submit(queue(QueueKind::h2d), write, {}).ticket;
  const std::vector<Ticket> after{first};
  const Ticket second = checking.submit(queue(QueueKind::compute), {}, after).ticket;
  ASSERT_EQ(checking.next_completion(kSecond)->ticket, second);
  EXPECT_EQ(checking.submit(queue(QueueKind::d2h), write, {}).status, Status::ok)
      << checking.findings().at(0).message;
  EXPECT_EQ(drain(checking).size(), 2u);
  EXPECT_TRUE(checking.findings().empty());
}

TEST(CheckingDevice, ACompletionReportedTwiceIsFound) {
  Sim sim;
  Stutter stutter(sim.device);
  CheckingDevice checking(stutter);
  ASSERT_EQ(checking.submit(*find_queue(checking, QueueKind::compute), {}, {}).status, Status::ok);
  drain(checking);
  ASSERT_EQ(checking.findings().size(), 1u);
  EXPECT_EQ(checking.findings()[0].kind, Finding::Kind::completion);
}

TEST(CheckingDevice, AMalformedOperationIsExplained) {
  Checked<Sim> checked;
  Memory memory(checked.device, 100);
  EXPECT_EQ(submit(checked, QueueKind::compute, {Fill{memory.at(90, 11), 0}}).status,
            Status::rejected);
  EXPECT_EQ(checked.device.findings().at(0).message,
            "fill: 11 bytes at 90 are not inside space 0 of 100 bytes");
}

}  // namespace
}  // namespace modalkv
