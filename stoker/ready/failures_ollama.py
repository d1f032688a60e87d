"""Failures of Ollama. Texts of releases 0.30 to 0.32 (llama-server inside), older wordings beside them."""

from __future__ import annotations

import re

from stoker.ready.failure import Failure

OLLAMA_FAILURES: tuple[Failure, ...] = (
    Failure(
        "ollama-driver-too-old",
        re.compile(r"NVIDIA driver too old(?:.*?required_driver=\"?(?P<need>\d+))?"),
        "the NVIDIA driver is too old for Ollama on this card{which}, so it works on the CPU without an error",
        "install driver branch 580",
        numbers=lambda got: {"which": f" (it wants {got['need']})" if got["need"] else ""},
    ),
    Failure(
        "ollama-out-of-memory",
        re.compile(
            r"cudaMalloc failed|CUDA error: out of memory|unable to allocate CUDA\d* buffer|failed to allocate CUDA\d* buffer"
        ),
        "the GPU has no room for the model",
        "see with nvidia-smi who uses the card; lower num_ctx or give the model another GPU",
    ),
    Failure(
        "ollama-model-missing",
        re.compile(r"model \\?[\"'](?P<model>[^\"'\\]+)\\?[\"'] not found"),
        "the model {model} is not in Ollama's directory",
        "deploy again (it pulls the model), or on the host: docker exec CONTAINER ollama pull {model}",
    ),
    Failure(
        "ollama-load-timeout",
        re.compile(r"timed out waiting for (?:llama-server|llama runner) to start"),
        "loading the model took longer than Ollama allows (5 minutes)",
        "set OLLAMA_LOAD_TIMEOUT in the instance's environment; look at the disk's speed",
        heals=True,
    ),
    Failure(
        "ollama-runner-died",
        re.compile(r"(?:llama-server|llama runner) process (?:has terminated|no longer running)"),
        "the process that computes the model died",
        "read the lines above in the container's log; often GPU memory (nvidia-smi) or a driver fault (dmesg)",
    ),
    Failure(
        "embedding-not-finite",
        re.compile(r"embedding contains NaN or Inf|unsupported value: NaN"),
        "the model computed values that are not numbers (a known fault of bge-m3 as F16 in Ollama)",
        "restart the instance; send texts one by one to find the one that fails",
    ),
    Failure(
        "ollama-on-cpu",
        re.compile(r'inference compute.*library="?cpu', re.IGNORECASE),
        "Ollama found no GPU and works on the CPU",
        "run nvidia-smi -L in the container (docker exec); a P40 needs driver 570 or newer; check the CDI specification",
        sign=True,
    ),
)
