// The shortest failing list that can be found in bounded tries: delta debugging (Zeller and
// Hildebrandt 2002), then simpler elements.
#pragma once

#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

namespace modalkv {

struct ShrinkLimits {
  int tries = 2000;
  std::chrono::seconds time{60};
};

template <typename T>
struct Shrunk {
  std::vector<T> list;  ///< still fails
  int tries = 0;
};

/// `list` fails. `fails(list)` says whether another one does; `simpler(element)` lists candidates
/// to take its place, the simplest first. None of them may lead back: each has to be simpler.
template <typename T, typename Fails, typename Simpler>
Shrunk<T> shrink(std::vector<T> list, Fails fails, Simpler simpler, ShrinkLimits limits = {}) {
  const auto until = std::chrono::steady_clock::now() + limits.time;
  Shrunk<T> best{std::move(list)};
  const auto may_try = [&] {
    return best.tries < limits.tries && std::chrono::steady_clock::now() < until;
  };
  const auto take_if_failing = [&](std::vector<T> shorter) {
    ++best.tries;
    if (!fails(shorter)) return false;
    best.list = std::move(shorter);
    return true;
  };
  const auto remove_chunks = [&](std::size_t length) {
    bool any = false;
    for (std::size_t end = best.list.size(); end > 0 && may_try();) {
      const std::size_t begin = end > length ? end - length : 0;
      std::vector<T> shorter = best.list;
      shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(begin),
                    shorter.begin() + static_cast<std::ptrdiff_t>(end));
      any |= take_if_failing(std::move(shorter));
      end = begin;
    }
    return any;
  };
  const auto simplify = [&](std::size_t at) {
    for (T& candidate : simpler(best.list[at])) {
      if (!may_try()) return false;
      std::vector<T> other = best.list;
      other[at] = std::move(candidate);
      if (take_if_failing(std::move(other))) return true;
    }
    return false;
  };
  for (bool changed = true; changed && may_try();) {
    changed = false;
    for (std::size_t length = (best.list.size() + 1) / 2; length > 0; length /= 2)
      changed |= remove_chunks(length);
    for (std::size_t at = 0; at < best.list.size(); ++at)
      while (simplify(at)) changed = true;
  }
  return best;
}

}  // namespace modalkv
