#include "tools/bench/step_case.hpp"

namespace modalkv {

StepReport bench_step(const StepCase& options, std::string_view command_line) {
  const HostCpu cpu = read_host_cpu();
  StepReport report{.head = begin_report(command_line, cpu, 1)};
  ThreadCostCase thread_cost = options.thread_cost;
  if (options.quick) thread_cost.rounds = 3;
  report.pages = thread_cost.pages + 1;
  report.thread_cost = measure_thread_cost(thread_cost);
  return report;
}

}  // namespace modalkv
