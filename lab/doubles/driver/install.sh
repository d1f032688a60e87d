#!/bin/sh
# install.sh ROOTFS: put the simulated NVIDIA driver into a host's root file system, as "the machine's driver".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:?usage: install.sh ROOTFS}

cp -a --no-preserve=ownership "$here/root/." "$root/"
mkdir -p "$root/usr/lib/lab-gpu/lab_gpu" "$root/etc/lab-gpu"
cp "$here"/lab_gpu/*.py "$root/usr/lib/lab-gpu/lab_gpu/"
chmod 0755 "$root/usr/bin/nvidia-smi" "$root/usr/bin/nvidia-persistenced" "$root/usr/local/bin/modinfo" "$root/usr/local/sbin/modprobe" "$root/usr/lib/lab-gpu/boot" "$root/usr/lib/lab-gpu/fault" \
    "$root/usr/lib/systemd/system-generators/lab-gpu-reload"

wants=$root/etc/systemd/system
mkdir -p "$wants/multi-user.target.wants" "$wants/sysinit.target.wants"
ln -sf /usr/lib/systemd/system/nvidia-persistenced.service "$wants/multi-user.target.wants/"
ln -sf /usr/lib/systemd/system/lab-gpu.service "$wants/sysinit.target.wants/"

# dpkg knows the driver as installed, as on a host whose owner installed it from the distribution's repository.
status=$root/var/lib/dpkg/status
if [ -f "$status" ] && ! grep -qx 'Package: nvidia-driver' "$status"; then
    cat >>"$status" <<'STATUS'

Package: nvidia-driver
Status: install ok installed
Priority: optional
Section: non-free/libs
Maintainer: Stoker lab <lab@localhost>
Architecture: amd64
Version: 580.173.02-1
Description: NVIDIA driver (simulated by the lab)
 Stands for the proprietary driver of branch 580 on the lab's hosts.

STATUS
    mkdir -p "$root/var/lib/dpkg/info"
    printf '/.\n/usr/bin/nvidia-smi\n' >"$root/var/lib/dpkg/info/nvidia-driver.list"
fi
