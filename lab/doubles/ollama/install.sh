#!/bin/sh
# install.sh ROOTFS: put the Ollama double into the root file system of its image.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:?usage: install.sh ROOTFS}
target=$root/opt/lab-ollama

mkdir -p "$target/lab_ollama" "$target/lab_gpu" "$target/lab_serve" "$root/usr/bin"
cp "$here"/lab_ollama/*.py "$target/lab_ollama/"
cp "$here"/../driver/lab_gpu/*.py "$target/lab_gpu/"
cp "$here"/../serve/lab_serve/*.py "$target/lab_serve/"
# /bin is a link to /usr/bin in Debian, so this is the real image's /bin/ollama.
cat >"$root/usr/bin/ollama" <<'OLLAMA'
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/opt/lab-ollama")

from lab_ollama.cli import main  # noqa: E402

sys.exit(main())
OLLAMA
chmod 0755 "$root/usr/bin/ollama"
