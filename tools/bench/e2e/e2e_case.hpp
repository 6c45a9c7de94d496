// Whole decoder layers served under one policy after another on one machine: time to first token,
// time per output token, and what the planner had predicted.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/bench/e2e/e2e_engine.hpp"
#include "tools/bench/e2e/e2e_report.hpp"

namespace modalkv {

enum class E2ePlace : std::uint8_t {
  any,  ///< a GPU where there is one
  gpu,
  host,  ///< memory and threads of this machine
};

struct E2eCase {
  E2eLoad load{};
  E2ePlace place = E2ePlace::any;
  std::vector<std::string> policies{};
  int rounds = 3;  ///< each serves all policies in turn
  int host_threads = 1;
  double link_gigabytes_per_second = 0;  ///< of the stand-in for a GPU; 0: as fast as memory
  std::uint64_t seed = 1;
};

/// `progress` is told what begins. Throws Error where a policy's KV does not fit or a step fails.
E2eReport bench_e2e(const E2eCase& options, std::string_view command_line,
                    const std::function<void(std::string_view)>& progress);

}  // namespace modalkv
