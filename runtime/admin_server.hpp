// What operators ask a running runtime over HTTP: /metrics, /state, /trace, /healthz.
//
// The runtime belongs to the engine's thread, so the server's thread never touches it. A request
// raises a flag; the engine's thread sees it in its next call and publishes a snapshot; the request
// waits for that within a bound, and else is answered with the snapshot before, which says how old
// it is.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modalkv/runtime.hpp"
#include "offload/tracing_device.hpp"
#include "runtime/metrics.hpp"

namespace modalkv {

/// What no client can exceed.
struct AdminLimits {
  int connections = 16;  ///< at once; others wait to be accepted
  std::size_t request_bytes = 8 * 1024;
  Nanos client_ns = 5 * kSecond;  ///< for its request, and again to take its answer
  Nanos fresh_ns = kSecond;       ///< that an answer waits for the engine's thread
};

/// Pages of a moment: those that there are.
struct AdminSnapshot {
  std::chrono::steady_clock::time_point at{};
  std::optional<RuntimeMetrics> metrics{};
  std::optional<std::string> state{};
  std::optional<std::vector<TracedGroup>> groups{};
};

class AdminServer {
 public:
  /// Listens, and serves on a thread of its own until it is destroyed. `first` has every page.
  /// Throws Error where it cannot listen there.
  AdminServer(const AdminConfig& config, std::vector<QueueInfo> queues, AdminSnapshot first,
              const AdminLimits& limits = {});
  /// Within milliseconds; connections are closed.
  ~AdminServer();
  AdminServer(AdminServer&&) = delete;

  std::uint16_t port() const;

  // Of the engine's thread.

  /// Whether somebody waits for a snapshot: one load.
  bool wanted() const { return wanted_.load(std::memory_order_relaxed) != 0; }
  struct Wanted {
    bool metrics = false, state = false, trace = false;
  };
  /// What is waited for; it counts as answered.
  Wanted take_wanted();
  void publish(AdminSnapshot snapshot);

 private:
  class Impl;

  std::atomic<unsigned> wanted_{0};
  std::unique_ptr<Impl> impl_;
};

}  // namespace modalkv
