#!/usr/bin/env bash
# Checks and measures the GPU of a machine that has a CUDA toolkit, CMake and g++, and needs nothing
# else: no package is installed and nothing is fetched.
# Usage: tools/gpu_check.sh [PHASE...]   all of them, in this order, by default
#   build      configures and builds build/gpu_check for this GPU
#   device     the streams' device over the real driver
#   kernels    every kernel against the host, with red zones
#   sanitizer  compute-sanitizer over small cases
#   bench      rates of link, memory and kernels, into tools/results/
# Each takes less than nine minutes. Exits 77 without a GPU, having run nothing ("not run: no GPU");
# with MODALKV_REQUIRE_GPU=1 that is a failure. MODALKV_GPU_ARCHITECTURES builds for others, also
# without a GPU.
set -euo pipefail

die() {
  echo "gpu_check: $*" >&2
  exit 1
}

case "${1:-}" in -h | --help) sed -n '2,13s/^# //p' "$0"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
phases=("$@")
[[ ${#phases[@]} -gt 0 ]] || phases=(build device kernels sanitizer bench)
for phase in "${phases[@]}"; do
  case "$phase" in
    build | device | kernels | sanitizer | bench) ;;
    *) die "unknown phase '$phase', expected build, device, kernels, sanitizer or bench" ;;
  esac
done
program=build/gpu_check/gpu_check

has_gpu() { nvidia-smi --query-gpu=name --format=csv,noheader >/dev/null 2>&1; }

not_run() {
  if [[ "${MODALKV_REQUIRE_GPU:-}" == 1 ]]; then die "$1: no GPU, and MODALKV_REQUIRE_GPU=1"; fi
  echo "gpu_check: $1: not run: no GPU"
  skipped=true
}

build() {
  local architectures=${MODALKV_GPU_ARCHITECTURES:-}
  if [[ -z "$architectures" ]]; then
    has_gpu || { not_run build; return; }
    architectures=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader -i 0 | tr -d '. ')
  fi
  cmake -S tests/gpu -B build/gpu_check -D CMAKE_BUILD_TYPE=Release \
    -D CMAKE_CUDA_ARCHITECTURES="$architectures"
  timeout 520 cmake --build build/gpu_check --parallel "$(nproc)"
}

# check PHASE [PROGRAM...]: a phase of the program, under another one.
check() {
  local phase=$1
  shift
  has_gpu || { not_run "$phase"; return; }
  [[ -x $program ]] || die "$phase: $program is not built: tools/gpu_check.sh build"
  timeout 520 "$@" $program "$phase"
}

sanitizer() {
  has_gpu || { not_run sanitizer; return; }
  local tool
  tool=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
  if [[ ! -x $tool ]]; then
    echo "gpu_check: sanitizer: not run: this toolkit has no compute-sanitizer"
    skipped=true
    return
  fi
  check kernels-small timeout 250 "$tool" --tool memcheck --error-exitcode 1
  check kernels-small timeout 250 "$tool" --tool racecheck --error-exitcode 1
}

bench() {
  has_gpu || { not_run bench; return; }
  [[ -x $program ]] || die "bench: $program is not built: tools/gpu_check.sh build"
  local card results
  card=$(nvidia-smi --query-gpu=name --format=csv,noheader -i 0 | tr -cs 'A-Za-z0-9\n' '-')
  results=tools/results/$card-$(date -u +%Y-%m-%d)
  mkdir -p tools/results
  {
    nvidia-smi --query-gpu=name,driver_version,pcie.link.gen.max,pcie.link.width.max,clocks.max.mem \
      --format=csv -i 0
    timeout 520 $program bench "$results.json"
  } | tee "$results.txt"
}

skipped=false
for phase in "${phases[@]}"; do
  echo "gpu_check: $phase"
  case "$phase" in
    build) build ;;
    sanitizer) sanitizer ;;
    bench) bench ;;
    *) check "$phase" ;;
  esac
done
if $skipped; then exit 77; fi
