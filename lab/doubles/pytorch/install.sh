#!/bin/sh
# install.sh ROOTFS: put the stand-in for torch into the root file system of the PyTorch base image's double.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:?usage: install.sh ROOTFS}
target=$root/opt/lab-torch
packages=$root/usr/lib/python3/dist-packages

mkdir -p "$target/lab_gpu" "$target/torch" "$root/workspace" "$packages/torch-2.10.0+cu126.dist-info"
cp "$here"/../driver/lab_gpu/*.py "$target/lab_gpu/"
cp "$here"/../vllm/probe/torch/*.py "$target/torch/"
cp "$here/build.py" "$target/torch/"
echo /opt/lab-torch >"$packages/lab-torch.pth"
# pip must find torch installed, or it would look for one in the index.
printf 'Metadata-Version: 2.1\nName: torch\nVersion: 2.10.0+cu126\n' >"$packages/torch-2.10.0+cu126.dist-info/METADATA"
