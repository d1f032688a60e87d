#!/bin/sh
# install.sh ROOTFS: put the vLLM double into the root file system of its image.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:?usage: install.sh ROOTFS}
target=$root/opt/lab-vllm

mkdir -p "$target/lab_vllm" "$target/lab_gpu" "$target/lab_serve" "$target/torch" "$root/usr/local/bin" "$root/vllm-workspace"
cp "$here"/lab_vllm/*.py "$here"/lab_vllm/arguments.json "$target/lab_vllm/"
cp "$here"/../driver/lab_gpu/*.py "$target/lab_gpu/"
cp "$here"/../serve/lab_serve/*.py "$target/lab_serve/"
cp "$here"/probe/torch/*.py "$target/torch/"
cat >"$root/usr/local/bin/vllm" <<'VLLM'
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/opt/lab-vllm")

from lab_vllm.cli import main  # noqa: E402

sys.exit(main())
VLLM
chmod 0755 "$root/usr/local/bin/vllm"
# `import torch` of the preflight probe: found by every Python 3 of a Debian image.
mkdir -p "$root/usr/lib/python3/dist-packages"
echo /opt/lab-vllm >"$root/usr/lib/python3/dist-packages/lab-vllm.pth"
