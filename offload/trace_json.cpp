#include "offload/trace_json.hpp"

#include <fmt/format.h>

#include <iterator>

namespace modalkv {

std::string trace_json(std::span<const QueueInfo> queues, std::span<const TracedGroup> groups) {
  fmt::memory_buffer out;
  const auto to = std::back_inserter(out);
  fmt::format_to(to, R"({{"displayTimeUnit":"ns","traceEvents":[)");
  fmt::format_to(to, R"({{"ph":"M","pid":1,"name":"process_name","args":{{"name":"modalkv"}}}})");
  for (std::size_t q = 0; q < queues.size(); ++q) {
    const std::string node =
        queues[q].kind == QueueKind::host ? fmt::format(" of node {}", queues[q].numa_node) : "";
    fmt::format_to(to,
                   ",\n"
                   R"({{"ph":"M","pid":1,"tid":{},"name":"thread_name","args":{{"name":"{}{}"}}}})",
                   q + 1, name(queues[q].kind), node);
  }
  for (const TracedGroup& group : groups) {
    const Nanos length_ns = group.end_ns - group.begin_ns;
    fmt::format_to(to,
                   ",\n"
                   R"({{"ph":"X","pid":1,"tid":{},"name":"{}","ts":{}.{:03},"dur":{}.{:03},)"
                   R"("args":{{"group":{},"step":{},"layer":{},"operations":{},"bytes":{},)"
                   R"("waited_us":{}.{:03},"status":"{}"}}}})",
                   group.queue.index + 1, group.what, group.begin_ns / 1000, group.begin_ns % 1000,
                   length_ns / 1000, length_ns % 1000, group.number, group.label.step,
                   group.label.layer, group.ops, group.bytes,
                   (group.begin_ns - group.submitted_ns) / 1000,
                   (group.begin_ns - group.submitted_ns) % 1000, name(group.status));
  }
  fmt::format_to(to, "\n]}}\n");
  return fmt::to_string(out);
}

}  // namespace modalkv
