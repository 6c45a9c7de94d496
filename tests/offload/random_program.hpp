// Random programs over pages of two spaces, ordered as a careful caller would: by the last writer
// and the readers since of every page that an operation touches.
#pragma once

#include <algorithm>
#include <optional>
#include <random>
#include <vector>

#include "offload/device.hpp"

namespace modalkv {

struct ProgramGroup {
  std::size_t queue = 0;  // into {h2d, d2h, compute, host}
  std::vector<Op> ops;
  std::vector<std::size_t> after;  // earlier groups
};

struct RandomProgram {
  static constexpr Bytes kPage = 192;
  static constexpr int kPages = 12;  // of each space
  std::vector<ProgramGroup> groups;
};

inline RandomProgram random_program(std::uint64_t seed, std::size_t groups, SpaceId a, SpaceId b) {
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t n) { return static_cast<std::size_t>(random() % n); };
  struct Page {
    std::optional<std::size_t> writer;
    std::vector<std::size_t> readers;
  };
  std::vector<Page> pages(2 * RandomProgram::kPages);
  const auto address = [&](std::size_t page) -> Address {
    const bool first = page < RandomProgram::kPages;
    const auto index = static_cast<Bytes>(page % RandomProgram::kPages);
    return {first ? a : b, index * RandomProgram::kPage, RandomProgram::kPage};
  };
  RandomProgram program;
  for (std::size_t g = 0; g < groups; ++g) {
    ProgramGroup group{.queue = below(4), .ops = {}, .after = {}};
    const auto depend = [&](std::size_t on) {
      if (on != g && std::find(group.after.begin(), group.after.end(), on) == group.after.end())
        group.after.push_back(on);
    };
    std::vector<std::pair<std::size_t, bool>> touched;
    for (std::size_t ops = 1 + below(2); ops > 0; --ops) {
      const std::size_t from = below(pages.size());
      const std::size_t to = (from + 1 + below(pages.size() - 1)) % pages.size();
      if (below(4) == 0) {
        group.ops.push_back(Fill{address(to), static_cast<std::uint8_t>(random())});
      } else if (below(4) == 0) {
        Address sum = address(to);
        sum.bytes = kChecksumBytes;
        group.ops.push_back(Checksum{address(from), sum});
        touched.emplace_back(from, false);
      } else {
        group.ops.push_back(Copy{address(from), address(to)});
        touched.emplace_back(from, false);
      }
      touched.emplace_back(to, true);
    }
    for (const auto& [page, writes] : touched) {
      if (pages[page].writer) depend(*pages[page].writer);
      if (writes)
        for (const std::size_t reader : pages[page].readers) depend(reader);
    }
    if (group.after.size() > kMaxDependencies) {
      --g;  // too many to name: draw another
      continue;
    }
    for (const auto& [page, writes] : touched) {
      if (writes) {
        pages[page] = {g, {}};
      } else if (pages[page].writer != g) {
        pages[page].readers.push_back(g);
      }
    }
    program.groups.push_back(std::move(group));
  }
  return program;
}

}  // namespace modalkv
