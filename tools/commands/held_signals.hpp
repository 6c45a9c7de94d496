// Signals that end the process, held back until what is half done has been undone.
#pragma once

#include <csignal>

namespace modalkv {

/// Holds SIGINT, SIGTERM and SIGHUP back, for this thread and those it starts, until destroyed; one
/// that came takes its effect then. Those that the process ignores stay ignored.
class HeldSignals {
 public:
  HeldSignals();
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  /// A signal has come and is held: end soon. From any thread.
  static bool pending();

 private:
  sigset_t before_{};
};

}  // namespace modalkv
