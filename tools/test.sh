#!/usr/bin/env bash
# Builds modalkv and runs its tests: under address and undefined-behaviour sanitizers, then as
# released. Installs what is missing on Debian or Ubuntu.
# Usage: tools/test.sh [--quick | --nightly]
#   --quick    the release build only
#   --nightly  the thread sanitizer and the tests labelled nightly as well
set -euo pipefail

usage() { sed -n '2,6s/^# //p' "$0"; }
depth="${1:-}"
case "$depth" in
  "" | --quick | --nightly) ;;
  -h | --help) usage; exit 0 ;;
  *) echo "test: unknown argument '$depth', expected --quick, --nightly or nothing" >&2; exit 1 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/setup.sh --tests
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi

# leg PRESET LABELS: builds a preset and runs its tests but for those with one of LABELS.
leg() {
  local preset=$1 without=$2
  echo "test: $preset"
  cmake --preset "$preset" -D MODALKV_TESTS=ON --log-level=WARNING
  cmake --build --preset "$preset"
  ctest --test-dir "build/$preset" -j 2 --output-on-failure --no-tests=error \
    ${without:+--label-exclude "$without"}
}

# The tests of the house are the same in every build: only the last leg runs them.
export TSAN_OPTIONS=halt_on_error=1
case "$depth" in
  --quick) leg release nightly ;;
  --nightly) leg asan architecture; leg tsan architecture; leg release "" ;;
  *) leg asan 'architecture|nightly'; leg release nightly ;;
esac
