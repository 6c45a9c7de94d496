// A random history of one disk: many operations at a time, each told result held against a model.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>

#include "offload/page_seal.hpp"
#include "tests/offload/disk_model.hpp"
#include "tests/offload/disk_pages.hpp"

namespace modalkv {

/// The version of a page that is here and whole; a failure where it is here and not served right.
inline std::optional<std::uint64_t> served_version(PageDisk& disk, std::uint64_t number) {
  const PageKey key = numbered_key(number);
  if (!disk.contains(key)) return std::nullopt;
  const Loaded loaded = load(disk, number);
  const std::uint64_t version = read_trailer(loaded.page).generation;
  EXPECT_EQ(loaded.status, Status::ok) << number << " is here and not served";
  EXPECT_EQ(loaded.page, numbered_page(number, version)) << "another page was served";
  return version;
}

class DiskHistory {
 public:
  static constexpr std::uint64_t kNumbers = 24;

  DiskHistory(std::uint64_t seed, bool flips) : random(seed), flips_(flips) {}

  /// After the disk was opened: what is here is right, and what must be here is.
  void opened(PageDisk& disk) {
    Bytes used_bytes = 0;
    for (std::uint64_t number = 0; number < kNumbers; ++number) {
      const bool contains = disk.contains(numbered_key(number));
      ASSERT_TRUE(model.allows(number, contains)) << number << (contains ? " is here" : " is gone");
      model.settled(number, contains);
      if (contains) used_bytes += stored_bytes(numbered_key(number).shape);
    }
    ASSERT_EQ(disk.free_bytes(), disk.capacity_bytes() - used_bytes);
    for (std::uint64_t number = 0; number < kNumbers; ++number)
      if (disk.contains(numbered_key(number))) submit_load(disk, number);
    drain(disk);
  }

  void step(PageDisk& disk) {
    const std::uint64_t number = random() % kNumbers;
    const std::uint64_t what = random() % 64;
    if (what < 16) {
      submit_store(disk, number);
    } else if (what < 28) {
      submit_load(disk, number);
    } else if (what < 36) {
      submit_erase(disk, number);
    } else if (what < 37 && !pending_.empty()) {
      const auto nth = static_cast<std::ptrdiff_t>(random() % pending_.size());
      disk.cancel({std::next(pending_.begin(), nth)->first});
    } else {
      collect(disk, random() % 2 == 0 ? kMillisecond : 0);
    }
    const bool contains = disk.contains(numbered_key(number));
    ASSERT_TRUE(model.allows(number, contains)) << number << (contains ? " is here" : " is gone");
  }

  /// Takes what is here for what has to be. Versions given from now on are from `first_version` on.
  void adopt(PageDisk& disk, std::uint64_t first_version) {
    next_version_ = first_version;
    for (std::uint64_t number = 0; number < kNumbers; ++number)
      if (const auto version = served_version(disk, number)) {
        model.storing(number, *version);
        model.stored(number, Status::ok);
      }
  }

  /// Until nothing is outstanding.
  void drain(PageDisk& disk) {
    while (collect(disk, kLongWait)) {
    }
    EXPECT_TRUE(pending_.empty());
  }

  /// The disk was closed; nobody will be told of what was under way.
  void closed() {
    for (const auto& [ticket, pending] : pending_)
      if (pending.kind == DiskJob::Kind::load && flips_) model.damaged(pending.number);
    pending_.clear();
  }

  /// Told before something is asked for ('s', 'e') and once it is acknowledged ('S', 'E').
  std::function<void(char event, std::uint64_t number, std::uint64_t version)> journal =
      [](char, std::uint64_t, std::uint64_t) {};

  std::mt19937_64 random;
  DiskModel model;
  std::map<Status, int> outcomes;

 private:
  struct Pending {
    DiskJob::Kind kind;
    std::uint64_t number = 0, version = 0;
    std::vector<std::byte> page;
  };

  void accept(const Submitted& submitted, Pending pending) {
    pending_.emplace(submitted.ticket.id, std::move(pending));
  }

  void submit_store(PageDisk& disk, std::uint64_t number) {
    const std::uint64_t version = next_version_++;
    Pending pending{DiskJob::Kind::store, number, version, numbered_page(number, version)};
    journal('s', number, version);
    const Submitted submitted = disk.store(numbered_key(number), pending.page);
    if (submitted.status != Status::ok) return;
    model.storing(number, version);
    accept(submitted, std::move(pending));
  }

  void submit_load(PageDisk& disk, std::uint64_t number) {
    Pending pending{DiskJob::Kind::load, number, model[number].version.value_or(0), {}};
    pending.page.resize(static_cast<std::size_t>(page_bytes(numbered_key(number).shape)));
    const Submitted submitted = disk.load(numbered_key(number), pending.page);
    if (submitted.status != Status::ok) return;
    ASSERT_TRUE(model[number].version) << "what is not here was taken to be loaded";
    accept(submitted, std::move(pending));
  }

  void submit_erase(PageDisk& disk, std::uint64_t number) {
    journal('e', number, 0);
    const Submitted submitted = disk.erase(numbered_key(number));
    if (submitted.status != Status::ok) return;
    model.erasing(number);
    accept(submitted, {DiskJob::Kind::erase, number, 0, {}});
  }

  bool collect(PageDisk& disk, Nanos timeout_ns) {
    const auto completion = disk.next_completion(timeout_ns);
    if (!completion) return false;
    const auto found = pending_.find(completion->ticket.id);
    if (found == pending_.end()) {
      ADD_FAILURE() << "told twice, or of nothing";
      return false;
    }
    const Pending pending = std::move(found->second);
    pending_.erase(found);
    const Status status = completion->status;
    ++outcomes[status];
    switch (pending.kind) {
      case DiskJob::Kind::store:
        model.stored(pending.number, status);
        if (status == Status::ok) journal('S', pending.number, pending.version);
        break;
      case DiskJob::Kind::erase:
        model.erased(pending.number, status);
        if (status == Status::ok) journal('E', pending.number, 0);
        break;
      case DiskJob::Kind::load:
        EXPECT_TRUE(status != Status::ok ||
                    pending.page == numbered_page(pending.number, pending.version))
            << "another page was served";
        EXPECT_TRUE(flips_ || status != Status::checksum)
            << pending.number << " is damaged and nobody did it";
        if (status != Status::ok && flips_) model.damaged(pending.number);
    }
    return true;
  }

  const bool flips_;
  std::uint64_t next_version_ = 1;
  std::map<std::uint64_t, Pending> pending_;  // by ticket
};

}  // namespace modalkv
