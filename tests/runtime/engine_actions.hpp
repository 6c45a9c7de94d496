// What an engine may do to a KV cache, as values: drawn from a seed, printed, read back,
// simplified.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "modalkv/plan.hpp"
#include "modalkv/units.hpp"
#include "scheduler/placement.hpp"

namespace modalkv {

/// What the numbers of each mean. Sequences are counted from the eldest that lives, around the end:
/// so a list means something whatever is taken out of it. A number that is missing is 0.
enum class EngineCall : std::uint8_t {
  begin,     ///< tokens of the prompt's segments, text and image in turn; 0: none
  step,      ///< tokens of each sequence's chunk, from the eldest on; 0: not in the batch
  drain,     ///< until every outcome is known
  place,     ///< for each group of tokens the weight of each action
  pause,     ///< which sequence
  resume,    ///< which sequence
  fork,      ///< which sequence
  truncate,  ///< which sequence, by how many tokens
  release,   ///< which sequence
  poll,      ///< how often
  share,     ///< begin: which known contents, text and image in turn, 0: none; tokens of own text;
             ///< how many may be reused and one, 0: all
  forget,    ///< all content that is kept
};

inline constexpr std::string_view kEngineCalls[] = {"begin",   "step",   "drain", "place",
                                                    "pause",   "resume", "fork",  "truncate",
                                                    "release", "poll",   "share", "forget"};

constexpr std::string_view name(EngineCall call) {
  return kEngineCalls[static_cast<std::size_t>(call)];
}

struct EngineAction {
  EngineCall call = EngineCall::drain;
  std::vector<Tokens> numbers{};

  Tokens operator[](std::size_t i) const { return i < numbers.size() ? numbers[i] : 0; }
  friend bool operator==(const EngineAction&, const EngineAction&) = default;
};

/// A line each.
inline std::string to_text(const std::vector<EngineAction>& actions) {
  std::string text;
  for (const EngineAction& action : actions) {
    text += name(action.call);
    for (const Tokens number : action.numbers) text += ' ' + std::to_string(number);
    text += '\n';
  }
  return text;
}

/// Nothing where a line is no action.
inline std::optional<std::vector<EngineAction>> actions_of(std::istream& lines) {
  std::vector<EngineAction> actions;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    if (!(words >> word)) continue;
    const auto* found = std::find(std::begin(kEngineCalls), std::end(kEngineCalls), word);
    if (found == std::end(kEngineCalls)) return {};
    EngineAction action{static_cast<EngineCall>(found - std::begin(kEngineCalls))};
    for (Tokens number = 0; words >> number;) action.numbers.push_back(number);
    if (!words.eof()) return {};
    actions.push_back(std::move(action));
  }
  return actions;
}

/// With smaller numbers, or fewer.
inline std::vector<EngineAction> simpler(const EngineAction& action) {
  std::vector<EngineAction> all;
  for (std::size_t i = 0; i < action.numbers.size(); ++i) {
    const Tokens number = action.numbers[i];
    for (const Tokens less : {Tokens{0}, number / 2, number - 1})
      if (less >= 0 && less < number) {
        all.push_back(action);
        all.back().numbers[i] = less;
      }
  }
  if (!action.numbers.empty() && action.numbers.back() == 0) {
    all.push_back(action);
    all.back().numbers.pop_back();
  }
  return all;
}

/// Draws what a busy engine might do.
class ActionSource {
 public:
  static constexpr std::uint64_t kMostSequences = 8;
  static constexpr std::size_t kSharedSegments = 4;

  /// With short chats about the same few contents, or with what one engine in three begins so.
  explicit ActionSource(std::uint64_t seed, bool recurs = false) : random_(seed), recurs_(recurs) {}

  std::vector<EngineAction> draw(int actions) {
    std::vector<EngineAction> all;
    for (int i = 0; i < actions; ++i) {
      all.push_back(next());
      // The engine mostly waits for a step, and sometimes runs ahead of its outcome.
      if (all.back().call == EngineCall::step && below(3) != 0) all.push_back({EngineCall::drain});
    }
    return all;
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  Tokens between(Tokens least, Tokens most) {
    return least + static_cast<Tokens>(below(static_cast<std::uint64_t>(most - least + 1)));
  }

  EngineAction next() {
    const std::uint64_t what = below(100);
    if (recurs_ && sequences_ > 0 && below(3) == 0) {
      if (sequences_ < 4) return share();
      --sequences_;
      return {EngineCall::release, {static_cast<Tokens>(below(sequences_ + 1))}};
    }
    if (sequences_ == 0 || (what < 10 && sequences_ < 6))
      return !recurs_ && below(3) != 0 ? begin() : share();
    const auto which = static_cast<Tokens>(below(sequences_));
    if (what < 60) return step();
    if (what < 68) return place();
    if (what < 76) return {EngineCall::pause, {which}};
    if (what < 84) return {EngineCall::resume, {which}};
    if (what < 89) {
      sequences_ = std::min(sequences_ + 1, kMostSequences);
      return {EngineCall::fork, {which}};
    }
    if (what < 95)
      return {EngineCall::truncate, {which, below(2) == 0 ? between(0, 5) : between(0, 400)}};
    if (what < 98) {
      --sequences_;
      return {EngineCall::release, {which}};
    }
    if (below(12) == 0) return {EngineCall::forget};
    return {EngineCall::poll, {between(0, 20)}};
  }

  EngineAction begin() {
    ++sequences_;
    EngineAction action{EngineCall::begin};
    for (std::uint64_t segments = 1 + below(4); segments > 0; --segments) {
      const bool image = below(2) == 0;
      if (image != (action.numbers.size() % 2 == 1)) action.numbers.push_back(0);
      action.numbers.push_back(image ? between(1, 150) : between(1, 40));
    }
    return action;
  }

  EngineAction share() {
    ++sequences_;
    EngineAction action{EngineCall::share, std::vector<Tokens>(kSharedSegments + 2)};
    // Mostly the same text and image, then others.
    for (std::size_t i = 0; i < kSharedSegments; ++i)
      action.numbers[i] = i < 2 && below(4) != 0 ? 1 : between(0, recurs_ ? 5 : 2);
    action.numbers[kSharedSegments] = between(0, 30);
    if (below(4) == 0) action.numbers[kSharedSegments + 1] = between(1, 400);
    return action;
  }

  EngineAction step() {
    EngineAction action{EngineCall::step, std::vector<Tokens>(sequences_)};
    for (Tokens& chunk : action.numbers)
      if (below(2) == 0) chunk = between(1, 90);
    Tokens& one = action.numbers[below(sequences_)];
    one = std::max<Tokens>(one, 1);
    return action;
  }

  EngineAction place() {
    EngineAction action{EngineCall::place};
    for (int weight = 0; weight < kMaxGroups * kActions; ++weight)
      action.numbers.push_back(below(2) == 0 ? 0 : between(0, 99));
    return action;
  }

  std::mt19937_64 random_;
  bool recurs_;
  std::uint64_t sequences_ = 0;  // about so many live
};

/// What a `place` says: the first action of a group that has no weight at all.
inline Placement placement_of(const EngineAction& action) {
  Placement placement;
  for (std::size_t group = 0; group < placement.shares.size(); ++group) {
    Shares& shares = placement.shares[group];
    double sum = 0;
    for (std::size_t i = 0; i < shares.size(); ++i)
      sum += shares[i] = static_cast<double>(action[group * shares.size() + i]);
    if (sum == 0) sum = shares[0] = 1;
    for (double& share : shares) share /= sum;
  }
  return placement;
}

}  // namespace modalkv
