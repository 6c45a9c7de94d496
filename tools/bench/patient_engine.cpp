#include "tools/bench/patient_engine.hpp"

#include <fmt/format.h>

namespace modalkv {

bool PatientEngine::take_event(Nanos timeout_ns) {
  const auto event = cache_.poll(timeout_ns);
  if (event && event->status != Status::ok)
    throw Error(fmt::format("layer {} ended in: {}", event->layer, name(event->status)));
  return event.has_value();
}

void PatientEngine::settle() {
  const Nanos begin = clock_.now();
  while (!cache_.settled()) {
    if (clock_.now() - begin > patience_ns_)
      throw Error("KV does not arrive where it should be\n" + cache_.describe());
    take_event(kMillisecond);
  }
}

void PatientEngine::refused(Status status) const {
  throw Error(fmt::format("the runtime refuses a step: {}\n{}", name(status), cache_.describe()));
}

std::vector<QueueInfo> roomy_queues(int host_threads, double link_bytes_per_s) {
  std::vector<QueueInfo> queues = standard_queues(1, host_threads);
  for (QueueInfo& queue : queues) {
    queue.max_groups = 1024;
    queue.max_ops = 32'768;
    if (queue.kind == QueueKind::h2d || queue.kind == QueueKind::d2h)
      queue.copy_bytes_per_s = link_bytes_per_s;
  }
  return queues;
}

}  // namespace modalkv
