// A decorator of what many engines do with a compressed cache: before attention all its pages
// become 16-bit pages again, in memory of their own. A baseline for attention on packed pages.
#pragma once

#include <utility>
#include <vector>

#include "offload/forwarding_device.hpp"

namespace modalkv {

/// The inner device sees Decode, Append and Attend over the inflated pages instead of an Attend
/// over pages of fewer bits; all of a run of them first, so that a device can do them at once.
/// `scratch` is a part of a space of the inner device, `tables` one that both sides see; both are
/// used by the compute queue alone. Page tables are read when a group is submitted.
class InflatingDevice final : public ForwardingDevice {
 public:
  explicit InflatingDevice(Device& inner) : ForwardingDevice(inner) {}

  /// What a run of attention over `pages` pages works in, and what says where they lie.
  static Bytes scratch_bytes(const PageShape& shape, Tokens pages);
  static Bytes tables_bytes(Tokens pages);
  /// Before anything is submitted. Where they lie in a space that was registered here.
  void use(const Address& scratch, const Address& tables);

  RegisteredSpace register_space(const SpaceInfo& info) override;
  /// `rejected` too where a run of attention does not fit the scratch memory.
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override;

  std::int64_t inflated_pages() const { return inflated_pages_; }

 private:
  static constexpr std::size_t kPageSizes = 2;  // in tokens: of text, of images

  bool inflate(std::span<const Op> run);
  const Address* table_of(const PageShape& inflated);

  Address scratch_{}, tables_{};
  std::vector<std::pair<Bytes, Address>> tables_of_;  // by bytes of an inflated page
  std::vector<std::byte*> memory_;                    // by space
  std::vector<Op> ops_;
  std::int64_t inflated_pages_ = 0;
};

}  // namespace modalkv
