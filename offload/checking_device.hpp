// A decorator that finds what goes wrong only sometimes: accesses that nothing orders, reads of
// bytes that are not there yet, writes outside of what an operation says it writes, completions
// that do not belong.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "offload/forwarding_device.hpp"

namespace modalkv {

struct Finding {
  enum class Kind : std::uint8_t {
    malformed,   ///< an operation that no device could perform
    hazard,      ///< two groups touch the same bytes, one writes, and nothing orders them
    red_zone,    ///< bytes that no operation may touch have changed, or an operation names them
    completion,  ///< of a group that is not outstanding
  };
  Kind kind;
  std::string message;  ///< one line: groups, operations, addresses
};

/// Order is a vector clock: a group comes after the groups before it on its queue, after the
/// tickets it names and all that they come after, and after every group whose completion was
/// collected before its submission.
///
/// A submission with a finding is `rejected`, nothing of it reaches the inner device. Destinations
/// are filled with kPoison when an operation that overwrites them begins; that doubles the
/// operations in a queue. For tests and debugging: a submission costs time proportional to the
/// operations in flight. Of a list of pages those count as read that its table names when it is
/// submitted.
class CheckingDevice final : public ForwardingDevice {
 public:
  static constexpr std::uint8_t kPoison = 0xdb;
  static constexpr std::size_t kMaxFindings = 100;

  explicit CheckingDevice(Device& inner);

  /// Declares bytes of a space that has memory out of bounds for everyone, and fills them with a
  /// pattern. They are looked at when a completion is collected. Nothing may be outstanding.
  Status protect(const Address& zone);

  /// The first kMaxFindings of them.
  const std::vector<Finding>& findings() const { return findings_; }

  RegisteredSpace register_space(const SpaceInfo& info) override;
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override;
  std::optional<Completion> next_completion(Nanos timeout_ns) override;

 private:
  /// For each queue the number of its newest group that is known to have ended.
  using Clock = std::array<std::uint64_t, kMaxQueues>;
  struct Group {
    std::size_t queue = 0;
    Clock clock{};  // its own number included
    std::vector<Op> ops;
    std::vector<std::vector<Access>> touched{};  // by each operation
  };

  std::vector<Access> touched(const Op& op) const;
  static std::string conflict(const Group& a, const Group& b);

  void report(Finding::Kind kind, std::string message);
  bool well_formed(std::span<const Op> ops);
  bool ordered(const Group& group);
  void check_red_zones(Ticket after);

  std::vector<SpaceInfo> spaces_;
  std::vector<Bytes> space_bytes_;
  std::vector<Address> red_zones_;
  std::array<Clock, kMaxQueues> last_{};  // of the newest group of each queue
  Clock collected_{};
  std::map<std::uint64_t, Group> live_;  // by ticket: submitted, not collected
  std::vector<Finding> findings_;
};

}  // namespace modalkv
