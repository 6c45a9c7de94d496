#!/usr/bin/env bash
# Builds oneTBB with the thread sanitizer from the distribution's source package: an uninstrumented
# one hides from the sanitizer the order that it keeps, and every task looks like a race.
# Usage: tools/tsan_tbb.sh PREFIX     does nothing where PREFIX has it already
set -euo pipefail

die() {
  echo "tsan_tbb: $*" >&2
  exit 1
}

[[ $# == 1 && "$1" != -* ]] || { sed -n '2,4s/^# //p' "$0"; exit 1; }
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
[[ -f "$prefix/lib/cmake/TBB/TBBConfig.cmake" ]] && exit 0

# The package lists of sources go into a folder of their own; the machine's stay as they are.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/sources.d"
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list; do
  [[ -f "$list" ]] || continue
  sed -e 's/^Types:.*/Types: deb-src/' -e 's/^deb /deb-src /' "$list" \
    >"$work/sources.d/$(basename "$list" | sed 's/^sources.list$/main.list/')"
done
apt_sources() {
  apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources.d" \
    -o Dir::State::lists="$work/lists" "$@" >>"$work/log" 2>&1
}
cd "$work"
apt_sources update || true
apt_sources source --download-only onetbb || die "no source of onetbb: $(tail -n 1 "$work/log")"
tar xf onetbb_*.orig.tar.*
echo "tsan_tbb: building oneTBB with the thread sanitizer"
{
  cmake -S oneTBB-* -B build -G Ninja -D CMAKE_BUILD_TYPE=RelWithDebInfo -D TBB_SANITIZE=thread \
    -D TBB_TEST=OFF -D TBB_STRICT=OFF -D TBBMALLOC_BUILD=OFF -D CMAKE_INSTALL_LIBDIR=lib \
    -D CMAKE_INSTALL_PREFIX="$prefix"
  cmake --build build
  cmake --install build
} >>"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; die "building oneTBB failed"; }
