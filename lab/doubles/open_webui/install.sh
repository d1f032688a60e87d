#!/bin/sh
# install.sh ROOTFS: put the Open WebUI double into the root file system of its image.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:?usage: install.sh ROOTFS}
target=$root/opt/lab-webui

mkdir -p "$target/lab_webui" "$target/lab_gpu" "$target/lab_serve" "$root/app/backend/data" "$root/usr/bin"
cp "$here"/lab_webui/*.py "$target/lab_webui/"
cp "$here"/../driver/lab_gpu/*.py "$target/lab_gpu/"
cp "$here"/../serve/lab_serve/*.py "$target/lab_serve/"
cp "$here"/../serve/curl "$root/usr/bin/curl"
cp "$here"/start.sh "$root/app/backend/start.sh"
chmod 0755 "$root/usr/bin/curl" "$root/app/backend/start.sh"
