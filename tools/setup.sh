#!/usr/bin/env bash
# Installs what is missing to build modalkv on Debian or Ubuntu.
# Usage: tools/setup.sh [--tests | --nightly]   what the tests need as well, and the fuzzers
# With everything in place it asks nobody and returns at once.
set -euo pipefail

die() {
  echo "setup: $*" >&2
  exit 1
}

case "${1:-}" in
  "" | --tests | --nightly) ;;
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  *) die "unknown argument '$1', expected --tests, --nightly or nothing" ;;
esac

# Debian 12's libboost-dev is too old for files on io_uring.
boost=libboost-dev context=libboost-context-dev
grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release &&
  boost=libboost1.81-dev context=libboost-context1.81-dev

# What proves that a package is there, and its name: a command, or a header or library in the usual
# places.
needs=(
  "g++ g++"
  "cmake cmake"
  "ninja ninja-build"
  "pkg-config pkg-config"
  "fmt/core.h libfmt-dev"
  "nlohmann/json.hpp nlohmann-json3-dev"
  "CLI/CLI.hpp libcli11-dev"
  "hwloc.h libhwloc-dev"
  "tbb/task_arena.h libtbb-dev"
  "openssl/evp.h libssl-dev"
  "liburing.h liburing-dev"
  "boost/asio/random_access_file.hpp $boost"
)
if [[ -n "${1:-}" ]]; then
  needs+=(
    "git git"
    "python3 python3"
    "gtest/gtest.h libgtest-dev"
    "libboost_context.a $context"
    "benchmark/benchmark.h libbenchmark-dev"
    "clang-format clang-format"
    "qemu-x86_64 qemu-user"
  )
fi
if [[ "${1:-}" == --nightly ]]; then
  needs+=("clang++ clang" "xz xz-utils")
  # A machine of two NUMA nodes.
  needs+=("qemu-system-x86_64 qemu-system-x86" "busybox busybox-static" "cpio cpio")
fi

present() {
  case "$1" in
    *.h | *.hpp) compgen -G "/usr/include/$1" || compgen -G "/usr/include/*-linux-gnu/$1" ||
                 compgen -G "/usr/local/include/$1" ;;
    *.a) compgen -G "/usr/lib/$1" || compgen -G "/usr/lib/*-linux-gnu/$1" ||
         compgen -G "/usr/local/lib/$1" ;;
    *) command -v "$1" ;;
  esac >/dev/null
}

missing=()
for need in "${needs[@]}"; do
  read -r proof package <<<"$need"
  present "$proof" || missing+=("$package")
done

if ((${#missing[@]})); then
  command -v apt-get >/dev/null || die "no apt-get here; install yourself: ${missing[*]}"
  as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "neither root nor sudo; as root run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  echo "setup: installing ${missing[*]}"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >>"$log" 2>&1 </dev/null
  }
  # A list of packages that could not be brought up to date may still do.
  apt_get update || echo "setup: apt-get update failed, going on with the lists at hand" >&2
  apt_get install -y --no-install-recommends ca-certificates "${missing[@]}" ||
    die "apt-get install failed: $(grep -m1 '^E:' "$log" || tail -n 1 "$log")"
fi

oldest_cmake=3.25
cmake=$(cmake --version | sed -n '1s/[^0-9]*//p')
[[ "$(printf '%s\n' "$oldest_cmake" "$cmake" | sort -V | head -n 1)" == "$oldest_cmake" ]] ||
  die "CMake $oldest_cmake or newer is needed, found $cmake (Debian 12 and Ubuntu 24.04 have it)"
