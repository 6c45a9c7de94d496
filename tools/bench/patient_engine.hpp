// How an engine of a benchmark calls its KV cache: it waits for room and for outcomes, but not for
// ever, and what fails ends the benchmark.
#pragma once

#include <vector>

#include "modalkv/error.hpp"
#include "offload/device.hpp"
#include "runtime/kv_cache.hpp"

namespace modalkv {

class PatientEngine {
 public:
  /// Both outlive it.
  PatientEngine(KvCache& cache, const Device& clock, Nanos patience_ns)
      : cache_(cache), clock_(clock), patience_ns_(patience_ns) {}

  /// Whether there was one. Throws Error where it tells of a failure.
  bool take_event(Nanos timeout_ns);
  /// Calls until it has another answer than busy. Throws Error where that is not ok.
  template <typename Call>
  void until_room(Call&& call) {
    const Nanos begin = clock_.now();
    Status status;
    while ((status = call()) == Status::busy && clock_.now() - begin < patience_ns_)
      take_event(kMillisecond);
    if (status != Status::ok) refused(status);
  }
  /// Nothing is in flight, and KV is where it should be. Throws Error where it does not arrive.
  void settle();

 private:
  [[noreturn]] void refused(Status status) const;

  KvCache& cache_;
  const Device& clock_;
  Nanos patience_ns_;
};

/// Queues whose limits are not what is measured. 0 bytes a second: a link as fast as it is.
std::vector<QueueInfo> roomy_queues(int host_threads, double link_bytes_per_s = 0);

}  // namespace modalkv
