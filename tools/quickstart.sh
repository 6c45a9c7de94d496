#!/usr/bin/env bash
# Builds modalkv and compares five cache policies on the bundled sample trace.
# Usage: tools/quickstart.sh [--help]
# On a bare Debian or Ubuntu it first installs what is missing. A second run takes seconds.
set -euo pipefail

case "${1:-}" in
  "") ;;
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  *) echo "quickstart: unknown argument '$1', expected none or --help" >&2; exit 1 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/setup.sh

# Only what it takes to run; a build folder that tools/test.sh has made is used as it is.
log=build/quickstart.log
mkdir -p build
build() {
  [[ -f build/release/build.ninja ]] || cmake --preset release -D MODALKV_TESTS=OFF
  cmake --build --preset release --target modalkv_tool
}
echo "quickstart: building build/release/modalkv (the first time takes a minute or two)"
build >"$log" 2>&1 || {
  grep -E -m 5 'error|Error' "$log" >&2 || true
  echo "quickstart: the build failed, see $log" >&2
  exit 1
}

out=out/quickstart
simulate=(build/release/modalkv simulate --trace tools/samples/chat_with_images.jsonl
          --model llava-1.5-7b --hardware rtx-4090
          --policy fp16-resident,fp16-stream,fp16-offload,uniform-int4,text-centric --out "$out")
echo "\$ ${simulate[*]}"
"${simulate[@]}"
echo
echo "Report:   $PWD/$out/report.html   (open it in a browser)"
echo "Timeline: $PWD/$out/timeline.json (open it in Perfetto)"
