#!/usr/bin/env bash
# Runs a GoogleTest binary in an emulated machine of two NUMA nodes, where every test has to run and
# pass: none may be skipped. Exits 77 and says why where no machine can be emulated.
# Usage: MODALKV_VM_KERNEL=VMLINUZ two_nodes_vm.sh BINARY FILTER
set -euo pipefail

not_run() {
  echo "two_nodes_vm: not run: $*"
  exit 77
}

[[ $# == 2 ]] || { sed -n '2,4s/^# //p' "$0"; exit 1; }
binary=$(realpath "$1")
filter=$2
[[ "$(uname -m)" == x86_64 ]] || not_run "this script boots x86-64 kernels"
for tool in qemu-system-x86_64 busybox cpio; do
  command -v "$tool" >/dev/null || not_run "no $tool here (tools/setup.sh --nightly installs it)"
done
[[ -n "${MODALKV_VM_KERNEL:-}" ]] || not_run "MODALKV_VM_KERNEL names no kernel (tools/vm_kernel.sh fetches one)"
[[ -r "$MODALKV_VM_KERNEL" ]] || not_run "the kernel $MODALKV_VM_KERNEL cannot be read"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/usr/{lib,lib64,bin} "$root"/{proc,sys,dev,tmp}
for folder in lib lib64 bin; do ln -s "usr/$folder" "$root/$folder"; done
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done
cp "$binary" "$root/bin/tests"
cp -L "$(command -v busybox)" "$root/bin/busybox"
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
export LD_LIBRARY_PATH=/lib:/lib/x86_64-linux-gnu MODALKV_EXPECT_TWO_NODES=1
/bin/tests --gtest_color=no '--gtest_filter=$filter'
echo "guest: exit status \$?"
/bin/busybox poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd"

# Two sockets, each with two processors and its own memory. Pages stay where they are put:
# numa_balancing would move them after their readers.
timeout "${MODALKV_VM_TIMEOUT_S:-600}" qemu-system-x86_64 \
  -accel tcg,thread=multi -cpu max -machine q35 -nographic -no-reboot -nic none -vga none \
  -smp 4,sockets=2,cores=2 -m 1536 \
  -object memory-backend-ram,id=m0,size=768M -object memory-backend-ram,id=m1,size=768M \
  -numa node,nodeid=0,cpus=0-1,memdev=m0 -numa node,nodeid=1,cpus=2-3,memdev=m1 \
  -numa dist,src=0,dst=1,val=21 \
  -kernel "$MODALKV_VM_KERNEL" -initrd "$work/initrd" \
  -append "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off numa_balancing=disable" \
  </dev/null | tr -d '\r' | tee "$work/log" || true

grep -q '^guest: exit status 0$' "$work/log" || { echo "two_nodes_vm: failed in the guest" >&2; exit 1; }
grep -q '^\[  PASSED  \] [1-9]' "$work/log" || { echo "two_nodes_vm: no test has run" >&2; exit 1; }
if grep -q 'SKIPPED' "$work/log"; then
  echo "two_nodes_vm: tests were skipped" >&2
  exit 1
fi
