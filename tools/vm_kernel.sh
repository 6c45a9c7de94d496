#!/usr/bin/env bash
# Fetches the kernel of Debian's or Ubuntu's cloud images, which the nightly tests boot in an emulated
# machine of two NUMA nodes. Nothing is installed.
# Usage: tools/vm_kernel.sh FILE     does nothing where FILE is there already
set -euo pipefail

die() {
  echo "vm_kernel: $*" >&2
  exit 1
}

[[ $# == 1 && "$1" != -* ]] || { sed -n '2,4s/^# //p' "$0"; exit 1; }
[[ -s "$1" ]] && exit 0
mkdir -p "$(dirname "$1")"
file=$(realpath "$1")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
for image in linux-image-cloud-amd64 linux-image-virtual; do
  package=$(apt-cache depends "$image" 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' |
            head -n 1)
  [[ -n "$package" ]] && break
done
[[ -n "$package" ]] || die "no package with a kernel for virtual machines is known to apt"
apt-get -qq download "$package" 2>"$work/log" || die "apt-get download $package: $(tail -n 1 "$work/log")"
dpkg-deb -x "$package"_*.deb .
cp boot/vmlinuz-* "$file"
