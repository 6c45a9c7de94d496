// Which unit holds the KV of which content.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "modalkv/content.hpp"
#include "scheduler/unit.hpp"

namespace modalkv {

/// A word of an id is as good as a hash of it: ids are cryptographic.
struct FirstWord {
  std::size_t operator()(const PrefixId& id) const { return static_cast<std::size_t>(id.words[0]); }
};

/// Exact whatever `Hash` is: it only finds the bucket, all 256 bits decide. A value; one thread at
/// a time may change it.
template <typename Hash = FirstWord>
class BasicContentIndex {
 public:
  /// False, and nothing changed, where the content has a unit already: that one is the one to
  /// share.
  [[nodiscard]] bool insert(const PrefixId& id, UnitId unit) {
    return units_.try_emplace(id, unit).second;
  }
  /// False where there was none.
  bool erase(const PrefixId& id) { return units_.erase(id) == 1; }

  std::optional<UnitId> find(const PrefixId& id) const {
    const auto found = units_.find(id);
    return found == units_.end() ? std::nullopt : std::optional(found->second);
  }

  /// Units of the longest run of leading `ids` that are all here: [run]. Changes nothing, so that
  /// asking again gives the same answer.
  std::vector<UnitId> lookup(std::span<const PrefixId> ids) const {
    std::vector<UnitId> run;
    for (const PrefixId& id : ids) {
      const std::optional<UnitId> unit = find(id);
      if (!unit) break;
      run.push_back(*unit);
    }
    return run;
  }

  std::size_t size() const { return units_.size(); }

 private:
  std::unordered_map<PrefixId, UnitId, Hash> units_;
};

using ContentIndex = BasicContentIndex<>;

}  // namespace modalkv
