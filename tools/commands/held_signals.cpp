#include "tools/commands/held_signals.hpp"

#include <pthread.h>

namespace modalkv {
namespace {

constexpr int kEnding[] = {SIGINT, SIGTERM, SIGHUP};

}  // namespace

HeldSignals::HeldSignals() {
  sigset_t held;
  sigemptyset(&held);
  for (const int signal : kEnding) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    if (action.sa_handler != SIG_IGN) sigaddset(&held, signal);
  }
  pthread_sigmask(SIG_BLOCK, &held, &before_);
}

HeldSignals::~HeldSignals() {
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

bool HeldSignals::pending() {
  sigset_t arrived;
  sigpending(&arrived);
  for (const int signal : kEnding)
    if (sigismember(&arrived, signal) == 1) return true;
  return false;
}

}  // namespace modalkv
