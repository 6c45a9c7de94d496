// What a disk of numbered pages may hold, from what was asked and told.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "modalkv/error.hpp"

namespace modalkv {

class DiskModel {
 public:
  /// The version that may be here, and whether none may be.
  struct Page {
    std::optional<std::uint64_t> version;
    bool may_be_absent = true;
  };

  const Page& operator[](std::uint64_t number) { return pages_[number]; }

  /// Accepted, so it was not here.
  void storing(std::uint64_t number, std::uint64_t version) { pages_[number] = {version, true}; }
  void stored(std::uint64_t number, Status status) {
    if (status == Status::ok) pages_[number].may_be_absent = false;
  }
  void erasing(std::uint64_t number) { pages_[number].may_be_absent = true; }
  void erased(std::uint64_t number, Status status) {
    if (status == Status::ok) pages_[number].version.reset();
  }
  void damaged(std::uint64_t number) { pages_[number].may_be_absent = true; }

  bool allows(std::uint64_t number, bool contains) {
    return contains ? pages_[number].version.has_value() : pages_[number].may_be_absent;
  }
  /// Nothing is under way any more: what is seen is what is.
  void settled(std::uint64_t number, bool contains) {
    Page& page = pages_[number];
    page.may_be_absent = !contains;
    if (!contains) page.version.reset();
  }

 private:
  std::map<std::uint64_t, Page> pages_;
};

}  // namespace modalkv
