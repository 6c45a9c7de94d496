// The devices that histories are replayed on, and how a history that fails is told: as the shortest
// one that fails.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "offload/fault_block_file.hpp"
#include "tests/offload/devices.hpp"
#include "tests/offload/memory_disk.hpp"
#include "tests/runtime/kv_history.hpp"
#include "tests/runtime/shrink.hpp"

namespace modalkv {

enum class HistoryWorld : std::uint8_t {
  threads,  ///< real threads
  sim,      ///< virtual time, jittered
  faulty,   ///< virtual time; fails on purpose
  gpu,      ///< streams of an emulated GPU
};

inline constexpr std::string_view kHistoryWorlds[] = {"threads", "sim", "faulty", "gpu"};

/// All that decides a history; on real threads but for their timing.
struct HistoryCase {
  HistoryWorld world = HistoryWorld::sim;
  std::uint64_t seed = 1;
  std::int32_t window = 0;

  /// Too small for all content, but there is a disk.
  bool has_small_host() const { return seed % 3 == 1; }
  HistoryOptions options() const { return {seed, window, world == HistoryWorld::faulty}; }
};

struct Faulty {
  explicit Faulty(std::uint64_t seed)
      : faults(inner.device,
               {.seed = seed, .busy = 0.05, .fail = 0.01, .late = 0.05, .lost = 0.003}),
        device(faults) {}
  Sim inner;
  FaultDevice faults;
  CheckingDevice device;
};

/// A disk in memory, of real threads.
struct HistoryDisk {
  explicit HistoryDisk(const HistoryOptions& options)
      : disk(config_of(options), files_of(memory, options)), tier(disk) {}
  static PageDiskConfig config_of(const HistoryOptions& options) {
    PageDiskConfig config;
    config.directory = "memory";
    config.capacity_bytes = kBytes;
    config.owner = {{1, 2, 3, 4}};
    config.max_page_bytes = largest_page_bytes(history_config(options));
    config.max_operations = 16;
    config.max_transfers = 4;
    config.timeout_ns = options.faults ? 100 * kMillisecond : 30 * kSecond;
    return config;
  }
  static DiskFiles files_of(MemoryDisk& memory, const HistoryOptions& options) {
    DiskFiles files = memory.files(4);
    if (options.faults)
      files.pages.file = std::make_unique<FaultBlockFile>(std::move(files.pages.file),
                                                          BlockFaultPlan{.seed = options.seed,
                                                                         .read_error = 0.01,
                                                                         .short_read = 0.01,
                                                                         .bit_flip = 0.01,
                                                                         .write_error = 0.01,
                                                                         .no_space = 0.01,
                                                                         .late = 0.05,
                                                                         .lost = 0.001});
    return files;
  }

  static constexpr Bytes kBytes = 2 * kMiB;
  MemoryDisk memory{kBytes};
  PageDisk disk;
  DiskTier tier;
};

/// `device` has a checker that is, or lies behind it.
inline HistoryResult replay(Device& device, const CheckingDevice& checker, HistoryMemory& memory,
                            const HistoryOptions& options, const std::vector<EngineAction>& actions,
                            DiskTier* disk = nullptr) {
  HistoryResult result = History(device, memory, options, disk).run(actions);
  // The cause comes first, then what came of it.
  if (!checker.findings().empty())
    result.problem = checker.findings()[0].message + '\n' + result.problem;
  return result;
}

inline HistoryResult replay(const HistoryCase& which, const std::vector<EngineAction>& actions) {
  HistoryMemory memory(3 * kMiB + 300 * kKiB, which.has_small_host() ? 480 * kKiB : 4 * kMiB);
  const auto on = [&](auto&& world) {
    if (!which.has_small_host())
      return replay(world.device, world.device, memory, which.options(), actions);
    HistoryDisk disk(which.options());
    return replay(world.device, world.device, memory, which.options(), actions, &disk.tier);
  };
  switch (which.world) {
    case HistoryWorld::threads:
      return on(Checked<Host>{});
    case HistoryWorld::faulty:
      return on(Faulty(which.seed));
    case HistoryWorld::gpu: {
      Checked<Cuda> world;
      world.inner.gpu.own(memory.device);
      world.inner.gpu.own(memory.engine);
      return on(world);
    }
    case HistoryWorld::sim:
      break;
  }
  return on(Checked<JitteredSim>{});
}

/// As `read_history` reads it.
inline std::string to_text(const HistoryCase& which, const std::vector<EngineAction>& actions) {
  return "history " + std::string(kHistoryWorlds[static_cast<std::size_t>(which.world)]) +
         " seed " + std::to_string(which.seed) + " window " + std::to_string(which.window) + '\n' +
         to_text(actions);
}

struct ReadHistory {
  HistoryCase which{};
  std::vector<EngineAction> actions{};
};

/// Nothing where it is no history.
inline std::optional<ReadHistory> read_history(std::istream& lines) {
  std::string first, history, world, seed, window;
  std::getline(lines, first);
  std::istringstream words(first);
  ReadHistory read;
  words >> history >> world >> seed >> read.which.seed >> window >> read.which.window;
  const auto* found = std::find(std::begin(kHistoryWorlds), std::end(kHistoryWorlds), world);
  if (!words || history != "history" || seed != "seed" || window != "window" ||
      found == std::end(kHistoryWorlds))
    return {};
  read.which.world = static_cast<HistoryWorld>(found - std::begin(kHistoryWorlds));
  auto actions = actions_of(lines);
  if (!actions) return {};
  read.actions = std::move(*actions);
  return read;
}

using Replay = std::function<HistoryResult(const std::vector<EngineAction>&)>;

/// Of a history that fails.
inline Shrunk<EngineAction> shortest_failing(const std::vector<EngineAction>& actions,
                                             const Replay& replayed, ShrinkLimits limits = {}) {
  const auto fails = [&](const auto& list) { return !replayed(list).problem.empty(); };
  return shrink(actions, fails, simpler, limits);
}

/// Replays what the seed draws. What fails is shrunk and told with a way to run it again.
inline HistoryResult check_history(const HistoryCase& which, int draws = 60) {
  const std::vector<EngineAction> actions =
      ActionSource(which.seed, which.has_small_host()).draw(draws);
  const HistoryResult result = replay(which, actions);
  if (result.problem.empty()) return result;
  const auto shortest =
      shortest_failing(actions, [&](const auto& list) { return replay(which, list); });
  ADD_FAILURE() << result.problem << "\nThe shortest of " << shortest.tries
                << " histories: " << shortest.list.size() << " actions of " << actions.size()
                << " that fail like this:\n"
                << replay(which, shortest.list).problem
                << "\nIn a file that MODALKV_HISTORY names, KvCacheHistory.OfTheEnvironment "
                   "replays these lines:\n\n"
                << to_text(which, shortest.list);
  return result;
}

}  // namespace modalkv
