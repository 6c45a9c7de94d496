// Eviction order: W-TinyLFU. Einziger, Friedman and Manes, "TinyLFU: a highly efficient cache
// admission policy" (2017), section 4.
//
// New units enter a window of 1 % of the bytes and go from it into a main part, where those used
// again are protected. What leaves is the oldest of the window or of the unprotected, whichever a
// sketch has seen less often. Here a unit is stored before it is judged: KV cannot be turned away.
#pragma once

#include <array>
#include <cstdint>

#include "scheduler/frequency_sketch.hpp"
#include "scheduler/ranking.hpp"

namespace modalkv {

class TinyLfuOrder {
 public:
  enum class Part : std::uint8_t { window, unproven, proven };
  struct Unit : RankedUnit {
    Part part = Part::window;
  };

  void add(Unit& unit);
  void use(Unit& unit);
  void reprice(Unit&) {}
  void hold(Unit& unit) { of(unit.part).ranking.remove(unit); }
  void release(Unit& unit) { of(unit.part).ranking.insert(unit); }
  void evict(Unit& unit) { erase(unit); }
  void erase(Unit& unit);
  Unit* lowest() const;

 private:
  struct Members {
    Ranking<Unit> ranking;
    Bytes bytes = 0;  // of the unranked too
  };

  Members& of(Part part) { return parts_[static_cast<std::size_t>(part)]; }
  const Members& of(Part part) const { return parts_[static_cast<std::size_t>(part)]; }
  void move_to(Part part, Unit& unit);
  void shrink(Part from, double most_bytes, Part to);

  static std::uint64_t key(const Unit& unit) { return static_cast<std::uint64_t>(unit.id); }

  FrequencySketch sketch_;
  std::array<Members, 3> parts_;
  std::size_t units_ = 0;
  Bytes bytes_ = 0;
  std::uint64_t uses_ = 0;
};

}  // namespace modalkv
