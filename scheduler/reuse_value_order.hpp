// Eviction order: what keeping a unit saves, the least first.
//
// Value of a unit: expected uses x reload time / bytes, as GreedyDual-Size-Frequency has it
// (Cherkasova, HP Labs 1998). Uses fade: each counts half after a half-life, as in LRFU (Lee et
// al., IEEE Trans. Computers 2001), so one parameter reaches from LRU (0) to LFU (infinity). All
// fade alike, so the order of two units changes only when one is used: log2(value at its last use)
// + time of that use ranks them for good.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>

#include "scheduler/ranking.hpp"

namespace modalkv {

class ReuseValueOrder {
 public:
  struct Unit : RankedUnit {
    double uses = 0;  ///< faded, as of `used_at`
    double used_at = 0;
    bool reused = false;
  };

  /// Remembers the uses of as many departed units as are here, and of at least `least_remembered`.
  ReuseValueOrder(double half_life, std::size_t least_remembered)
      : half_life_(half_life), least_remembered_(least_remembered) {}

  /// From now on; what has faded stays so.
  void set_half_life(double half_life) { half_life_ = half_life; }
  /// Time passes, in the unit of the half-life.
  void advance(double time) { now_ += time / half_life_; }

  void add(Unit& unit);
  void use(Unit& unit);
  /// After its reload time changed.
  void reprice(Unit& unit) { ranking_.move(unit, priority(unit), unit.used); }
  void hold(Unit& unit) { ranking_.remove(unit); }
  void release(Unit& unit) { ranking_.insert(unit); }
  /// It may come back: its uses are remembered.
  void evict(Unit& unit);
  void erase(Unit&) { --units_; }
  Unit* lowest() const { return ranking_.lowest(); }

 private:
  struct Departed {
    double uses, used_at;
    bool reused;
    std::uint64_t departure;
  };
  struct Departure {
    UnitId id;
    std::uint64_t number;
  };
  /// How many new units are ever used again. Forgets slowly.
  struct ReuseShare {
    std::int64_t added = 0, reused = 0;

    void add(bool first_reuse);
    double estimate() const {
      return static_cast<double>(reused + 1) / static_cast<double>(added + 2);
    }
  };
  /// 4 classes, 4 widths of a key's element: what is stored alike is used alike.
  using Kinds = std::array<ReuseShare, 4 * kTokenClasses>;

  ReuseShare& kind(const EvictionFacts& facts);
  double priority(const Unit& unit) const;
  void count_use(Unit& unit);

  double half_life_;
  std::size_t least_remembered_;
  double now_ = 0;  // in half-lives
  std::uint64_t uses_ = 0, departures_ = 0;
  std::size_t units_ = 0;
  Ranking<Unit> ranking_;
  Kinds kinds_;
  ReuseShare all_;
  std::unordered_map<UnitId, Departed> departed_;
  std::deque<Departure> departure_order_;  // oldest first; some have come back
};

}  // namespace modalkv
