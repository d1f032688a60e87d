"""Failures of Ollama. Texts were looked up in its tags v0.5.7 to v0.32.15; from 0.30 on a llama-server does the work inside."""

from __future__ import annotations

import re

from stoker.ready.failure import Failure

_LLAMA_SERVER = "0.30"

OLLAMA_FAILURES: tuple[Failure, ...] = (
    Failure(
        id="ollama-driver-too-old",
        pattern=re.compile(r"NVIDIA driver too old(?:.*?required_driver=\"?(?P<need>\d+))?"),
        cause="the NVIDIA driver is too old for Ollama on this card{which}, so it works on the CPU without an error",
        remedy="install driver branch 580",
        source="Ollama v0.30.0 to v0.32.15: discover/cuda_compat.go; ollama#17290 (P40), #16415",
        since=_LLAMA_SERVER,
        numbers=lambda got, _: {"which": f" (it wants {got['need']})" if got["need"] else ""},
    ),
    Failure(
        id="ollama-model-unsupported",
        pattern=re.compile(
            r"unknown model architecture: '(?P<what>[^']+)'|unable to load model: (?P<path>\S+)|unsupported model format"
        ),
        cause="this Ollama cannot load the model{which}",
        remedy="pull it again (docker exec CONTAINER ollama pull MODEL); a newer model needs a newer image",
        source="llama.cpp: llama-model.cpp; Ollama v0.5.7 to v0.24.0: llama/llama.go",
        numbers=lambda got, _: {"which": f" ({what})" if (what := got["what"] or got["path"]) else ""},
    ),
    Failure(
        id="ollama-model-damaged",
        pattern=re.compile(
            r"digest mismatch|invalid file magic|tensor '(?P<name>[^']+)' data is not within the file bounds"
        ),
        cause="a file of the model is damaged",
        remedy="docker exec CONTAINER ollama rm MODEL, then ollama pull MODEL; or delete it and deploy again",
        source="Ollama v0.5.7 to v0.32.15: server/images.go; llama.cpp: gguf.cpp",
    ),
    Failure(
        id="ollama-host-memory",
        pattern=re.compile(
            r"model requires more system memory \((?P<need>[\d.]+ \w+)\) than is available \((?P<have>[\d.]+ \w+)\)"
        ),
        cause="the model needs {need} of the machine's memory and {have} are free: it does not fit on the card, or Ollama has no GPU",
        remedy="see nvidia-smi -L in the container (docker exec) and free -g on the host; lower num_ctx, or take a smaller model",
        source="Ollama v0.5.7 to v0.24.0: llm/server.go",
        before=_LLAMA_SERVER,
    ),
    Failure(
        id="ollama-out-of-memory",
        pattern=re.compile(
            r"cudaMalloc failed|CUDA error: out of memory|unable to allocate CUDA\d* buffer|failed to allocate (?:CUDA\d* )?(?:buffer|compute)"
        ),
        cause="the GPU has no room for the model",
        remedy="see with nvidia-smi who uses the card; lower num_ctx or give the model another GPU",
        source="ggml-cuda; ollama#5113, #9782",
    ),
    Failure(
        id="no-kernel-image",
        pattern=re.compile(r"device kernel image is invalid|no kernel image is available"),
        cause="this Ollama has no code that the card or its driver can run",
        remedy="install driver branch 580; with that, another release of Ollama (0.30.0 and 0.30.5 failed on V100 with driver 535)",
        source="ollama#16449, #16533",
    ),
    Failure(
        id="ollama-model-missing",
        pattern=re.compile(r"model \\?[\"'](?P<model>[^\"'\\]+)\\?[\"'] not found"),
        cause="the model {model} is not in Ollama's directory",
        remedy="deploy again (it pulls the model), or on the host: docker exec CONTAINER ollama pull {model}",
        source="Ollama v0.5.7 to v0.32.15: server/routes.go",
    ),
    Failure(
        id="ollama-pull-failed",
        pattern=re.compile(r"pull model manifest: (?P<why>.+)"),
        cause="the model could not be fetched from Ollama's registry ({why})",
        remedy="'file does not exist' means the name or tag is wrong; else set mirrors (ollama) or a proxy in group_data",
        source="Ollama v0.5.7 to v0.32.15: server/images.go",
        heals=True,
    ),
    Failure(
        id="ollama-load-timeout",
        pattern=re.compile(r"timed out waiting for llama-server to start"),
        cause="loading the model took longer than Ollama allows (5 minutes)",
        remedy="set OLLAMA_LOAD_TIMEOUT in the instance's environment; look at the disk's speed",
        source="Ollama v0.30.0 to v0.32.15: llm/llama_server.go",
        since=_LLAMA_SERVER,
        heals=True,
    ),
    Failure(
        id="ollama-load-timeout",
        pattern=re.compile(r"timed out waiting for llama runner to start"),
        cause="loading the model took longer than Ollama allows (5 minutes)",
        remedy="set OLLAMA_LOAD_TIMEOUT in the instance's environment; look at the disk's speed",
        source="Ollama v0.5.7 to v0.24.0: llm/server.go; ollama#6092, #8470",
        before=_LLAMA_SERVER,
        heals=True,
    ),
    Failure(
        id="ollama-runner-died",
        pattern=re.compile(r"llama-server process has terminated"),
        cause="the process that computes the model died",
        remedy="read the lines above in the container's log; often GPU memory (nvidia-smi) or a driver fault (dmesg)",
        source="Ollama v0.30.0 to v0.32.15: llm/llama_server.go",
        since=_LLAMA_SERVER,
        sign=True,
    ),
    Failure(
        id="ollama-runner-died",
        pattern=re.compile(r"llama runner process (?:has terminated|no longer running)"),
        cause="the process that computes the model died",
        remedy="read the lines above in the container's log; often GPU memory (nvidia-smi) or a driver fault (dmesg)",
        source="Ollama v0.5.7 to v0.24.0: llm/server.go",
        before=_LLAMA_SERVER,
        sign=True,
    ),
    Failure(
        id="embedding-not-finite",
        pattern=re.compile(r"embedding contains NaN or Inf|unsupported value: NaN"),
        cause="the model computed values that are not numbers (a known fault of bge-m3 as F16 in Ollama, for some texts)",
        remedy="restart the instance; send texts one by one to find the one that fails",
        source="Ollama v0.14.0 to v0.32.15, before that encoding/json; ollama#9639, #13572, #14657, #15582, #16625",
    ),
    Failure(
        id="ollama-busy",
        pattern=re.compile(r"server busy, please try again"),
        cause="Ollama's queue is full",
        remedy="wait until the requests before are done; describe more instances for more throughput",
        source="Ollama v0.5.7 to v0.32.15: server/sched.go (OLLAMA_MAX_QUEUE, 512)",
        heals=True,
    ),
    Failure(
        id="input-too-long",
        pattern=re.compile(r"the input length exceeds the context length"),
        cause="the text is longer than what the model takes at once",
        remedy="raise num_ctx and num_batch (bge-m3: 8192), or send shorter texts",
        source="Ollama v0.13.5 to v0.32.15",
        since="0.13",
    ),
    Failure(
        id="ollama-on-cpu",
        pattern=re.compile(
            r'inference compute.*library="?cpu|offloaded 0/\d+ layers to GPU|no compatible GPUs were discovered',
            re.IGNORECASE,
        ),
        cause="Ollama found no GPU and works on the CPU",
        remedy="run nvidia-smi -L in the container (docker exec); a P40 needs driver 570 or newer; check the CDI specification",
        source="Ollama v0.5.7 to v0.32.15: discover/types.go; ollama#17290",
        sign=True,
    ),
)
