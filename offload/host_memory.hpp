// What pools ask of the operating system, by hwloc. Virtual, so that tests make any of it fail.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "offload/memory_room.hpp"
#include "offload/topology.hpp"

namespace modalkv {

/// Of this machine. Calls that return a string return what failed in one line, empty where nothing
/// did. Thread-safe.
class HostMemory {
 public:
  /// Throws Error where hwloc cannot describe this machine.
  HostMemory();
  virtual ~HostMemory();

  virtual MemoryRoom room(int node) const { return memory_room(node); }

  /// Makes reserved addresses readable and writable, in small pages: fault-in would wait for huge
  /// ones to be compacted. Costs no memory yet.
  virtual std::string commit(std::span<std::byte> memory);

  /// Pages touched from now on come from `node` while it has any, then from others: a node that is
  /// full does not get the process killed.
  virtual std::string bind(std::span<std::byte> memory, int node);

  /// Pages touched by this thread come from the node of `cpus`, where nothing else is said.
  virtual std::string bind_this_thread(std::span<const int> cpus);

  /// Makes pages be there, zeroed. `memory` begins and ends between pages.
  virtual std::string touch(std::span<std::byte> memory);

  /// The node where a touched page is; nothing where the system does not tell.
  virtual std::optional<int> node_of(const std::byte* page) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Addresses without memory, given back at the end with all that was committed in them. Not
/// inherited by fork(), not part of core dumps.
class AddressRange {
 public:
  /// Throws Error.
  explicit AddressRange(Bytes bytes);
  ~AddressRange();
  AddressRange(AddressRange&&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }
  /// Gives back the memory of a part, not its addresses.
  void drop(std::span<std::byte> part);

 private:
  std::span<std::byte> bytes_;
};

}  // namespace modalkv
