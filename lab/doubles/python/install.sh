#!/bin/sh
# install.sh ROOTFS: the official image's place of Python, beside Debian's own.
set -eu
root=${1:?usage: install.sh ROOTFS}
mkdir -p "$root/usr/local/bin"
ln -sf /usr/bin/python3 "$root/usr/local/bin/python3"
