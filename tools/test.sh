#!/usr/bin/env bash
# Builds modalkv and runs its tests: under address and undefined-behaviour sanitizers, then as
# released. Installs what is missing on Debian or Ubuntu.
# Usage: tools/test.sh [--quick | --nightly]
#   --quick    the release build only
#   --nightly  the thread sanitizer, the tests labelled nightly, kernels for all GPUs and ten minutes
#              of each fuzzer as well
set -euo pipefail

usage() { sed -n '2,7s/^# //p' "$0"; }
depth="${1:-}"
case "$depth" in
  "" | --quick | --nightly) ;;
  -h | --help) usage; exit 0 ;;
  *) echo "test: unknown argument '$depth', expected --quick, --nightly or nothing" >&2; exit 1 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ "$depth" == --nightly ]]; then tools/setup.sh --nightly; else tools/setup.sh --tests; fi
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi

# leg PRESET LABELS [OPTION...]: builds a preset, configured with OPTIONs, and runs its tests but for
# those with one of LABELS.
leg() {
  local preset=$1 without=$2
  echo "test: $preset"
  cmake --preset "$preset" -D MODALKV_TESTS=ON --log-level=WARNING "${@:3}"
  cmake --build --preset "$preset"
  ctest --test-dir "build/$preset" -j 2 --output-on-failure --no-tests=error \
    ${without:+--label-exclude "$without"}
}

# fuzz SECONDS: each fuzzer on a copy of its corpus; a finding fails and leaves its input behind.
fuzz() {
  echo "test: fuzz"
  cmake --preset fuzz --log-level=WARNING
  cmake --build --preset fuzz
  local target name corpus
  for target in build/fuzz/tests/fuzz/*_fuzz; do
    name=$(basename "$target" _fuzz)
    corpus=build/fuzz/corpus/$name
    mkdir -p "$corpus"
    "$target" -max_total_time="$1" -max_len=4096 -timeout=10 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix="build/fuzz/$name-" "$corpus" "tests/fuzz/corpus/$name"
  done
}

# The tests of the house are the same in every build: only the last leg runs them.
export TSAN_OPTIONS=halt_on_error=1
case "$depth" in
  --quick) leg release nightly ;;
  --nightly)
    tools/tsan_tbb.sh build/tsan-tbb
    leg asan architecture
    leg tsan architecture -D TBB_DIR="$PWD/build/tsan-tbb/lib/cmake/TBB"
    # Without it the tests that boot it are shown as skipped.
    if tools/vm_kernel.sh build/vm_kernel; then export MODALKV_VM_KERNEL=$PWD/build/vm_kernel; fi
    # Kernels for all GPUs that are supported: a spill on any is an error.
    leg release "" -D CMAKE_CUDA_ARCHITECTURES="80;86;89;90;100;120"
    fuzz 600
    ;;
  *) leg asan 'architecture|nightly'; leg release nightly ;;
esac
