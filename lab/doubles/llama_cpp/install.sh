#!/bin/sh
# install.sh ROOTFS: put the llama.cpp double into the root file system of its image.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:?usage: install.sh ROOTFS}
target=$root/opt/lab-llama

mkdir -p "$target/lab_llama" "$target/lab_gpu" "$target/lab_serve" "$root/app" "$root/usr/bin"
cp "$here"/lab_llama/*.py "$here"/lab_llama/arguments.json "$target/lab_llama/"
cp "$here"/../driver/lab_gpu/*.py "$target/lab_gpu/"
cp "$here"/../serve/lab_serve/*.py "$target/lab_serve/"
cp "$here"/../serve/curl "$root/usr/bin/curl"
cat >"$root/app/llama-server" <<'LLAMA'
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/opt/lab-llama")

from lab_llama.cli import main  # noqa: E402

sys.exit(main())
LLAMA
chmod 0755 "$root/app/llama-server" "$root/usr/bin/curl"
