"""What differs in the lab: downloads come from its third machine, which stands for the internet.

These are the settings that a person behind mirrors uses. `lab/run` names this directory in STOKER_GROUP_DATA; with plain pyinfra
give `--group-data lab/group_data`.
"""

import os as _os
from pathlib import Path as _Path

from stoker.steps import openpgp as _openpgp

_key = _Path(_os.environ.get("STOKER_LAB_CACHE", "/var/cache/stoker-lab")) / "internet/keys/lab-archive-keyring.asc"
# The lab signs its repositories with a key of its own.
_fingerprint = _openpgp.fingerprint(_key.read_text(encoding="ascii"))

mirrors = {
    "docker": "http://packages.internet.test/docker/linux",
    "docker_key": _fingerprint,
    "container_toolkit": "http://packages.internet.test/libnvidia-container",
    "container_toolkit_key": _fingerprint,
    "cuda": "http://packages.internet.test/cuda",
    "cuda_key": _fingerprint,
    "registries": ["http://registry.internet.test:5000"],
    # What another registry has, the lab's has as Docker Hub's.
    "images": {"ghcr.io": "docker.io"},
    "hub": "http://hub.internet.test",
    "ollama": "http://hub.internet.test",
    "python": "http://packages.internet.test/python/simple",
}

# A machine without CAP_SYS_RESOURCE cannot raise the limit above its own.
docker = {"open_files": 16384}

# The lab's images are small ones that stand for the publishers'.
image_gib = {
    "vllm/vllm-openai": 0.2,
    "ollama/ollama": 0.2,
    "nginx": 0.1,
    "pytorch/pytorch": 0.2,
    "python": 0.1,
    "stoker/fetch": 0.1,
    "ggml-org/llama.cpp": 0.2,
    "open-webui/open-webui": 0.2,
    "stoker/transformers": 0.1,
}
