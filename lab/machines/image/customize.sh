#!/bin/sh
# customize.sh ROOTFS: what every lab machine has beyond its packages. Called by mmdebstrap when the packages are installed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:?usage: customize.sh ROOTFS}

install -D -m 0755 "$here/entry" "$root/usr/lib/stoker-lab/entry"

# On the GPU hosts a second account, as many people have it: sudo without a password, not in the docker group.
# Debian has a group of that name already.
if [ -d "$root/etc/sudoers.d" ]; then
    chroot "$root" useradd --create-home --shell /bin/bash --uid 1000 --gid operator operator
    echo 'operator ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/operator"
    chmod 0440 "$root/etc/sudoers.d/operator"
fi

# A lab disk may lose what a power cut takes; without dpkg's fsync calls packages install in a third of the time.
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/lab"

echo LANG=C.UTF-8 >"$root/etc/default/locale"

# Each machine gets its own identity when it is made, and its package sources too.
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/* "$root/etc/apt/apt.conf.d/99mmdebstrap"
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/lib/dbus/machine-id"
: >"$root/etc/machine-id"

# No hardware and no console here; and no timer that takes apt's lock in the middle of a deploy or a test.
for unit in dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount console-getty.service getty.target \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
