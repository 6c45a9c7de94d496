#include "tools/bench/step_case.hpp"

namespace modalkv {

StepReport bench_step(const StepCase& options, std::string_view command_line) {
  const HostCpu cpu = read_host_cpu();
  StepReport report{.head = begin_report(command_line, cpu, options.decode.shape.host_threads),
                    .cpus = static_cast<int>(cpu.cpus.size()),
                    .pages = options.thread_cost.pages + 1,
                    .decode = options.decode};
  ThreadCostCase thread_cost = options.thread_cost;
  if (options.quick) {
    thread_cost.rounds = 3;
    report.decode.rounds = 3;
    report.decode.steps_a_round = 3;
  }
  report.thread_cost = measure_thread_cost(thread_cost);
  report.decoded = measure_decode(report.decode, cpu);
  return report;
}

}  // namespace modalkv
