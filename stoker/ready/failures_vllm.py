"""Failures of vLLM. Texts of v0.19.1 unless a row says otherwise; those of PyTorch 2.10 and huggingface_hub 0.36."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stoker.ready.failure import Failure


def _fitting_utilization(got: Mapping[str, str]) -> Mapping[str, str]:
    # two decimals, rounded down: what is asked for has to stay below what is free
    share = int(float(got["free"]) / float(got["total"]) * 100) / 100
    return {"fits": f"{share:.2f}"}


def _removed_flag(got: Mapping[str, str]) -> Mapping[str, str]:
    hint = " (--task was removed in 0.13: use --runner pooling for embeddings)" if "--task" in got["args"] else ""
    return {"hint": hint}


VLLM_FAILURES: tuple[Failure, ...] = (
    Failure(
        "unknown-argument",
        re.compile(r"error: unrecognized arguments: (?P<args>.+)|error: argument (?P<bad>--\S+?): (?P<why>.+)"),
        "this vLLM does not accept the argument {which}",
        "correct the instance's arguments{hint}",
        numbers=lambda got: {
            "which": got["args"] or f"{got['bad']} ({got['why']})",
            **_removed_flag(got),
        },
    ),
    Failure(
        "config-not-yaml",
        re.compile(r"Config file must be of a yaml/yml type"),
        "--config was given a file that is not named .yaml or .yml",
        "rename the file to .yaml (JSON content is valid YAML)",
    ),
    Failure(
        "shared-memory",
        # vLLM 0.32.0 for CPU, seen in the lab: its worker is a process of its own, as with tensor parallel.
        re.compile(
            r"Insufficient space in /dev/shm for shared-memory allocation: (?P<need>\d+ \w+) required, (?P<free>\d+ \w+) free"
        ),
        "the engine's processes need {need} of shared memory and the container has {free} free",
        "set shm_size for the service; Stoker does for tensor parallel and for the profile vllm-cpu: is `profiles` set in group_data?",
    ),
    Failure(
        "no-kernel-image",
        re.compile(r"no kernel image is available for execution on the device"),
        "the image has no code for this GPU (vLLM from v0.20.0 on has none for V100)",
        "pin the image vllm/vllm-openai:v0.19.1 for V100 cards",
    ),
    Failure(
        "no-kernel-image",
        re.compile(r"Found GPU\d+ (?P<gpu>.+?) which is of (?:cuda|compute) capability.*"),
        "PyTorch in the image has no code for {gpu}",
        "pin the image vllm/vllm-openai:v0.19.1 for V100 cards",
        sign=True,
    ),
    Failure(
        "gpu-too-old",
        re.compile(r"Found (?P<gpu>.+?) which is too old to be supported by the triton GPU compiler"),
        "vLLM needs compute capability 7.0 and {gpu} has less",
        "serve the model with Ollama on this card",
    ),
    Failure(
        "bfloat16-unsupported",
        re.compile(
            r"Bfloat16 is only supported on GPUs with compute capability|torch\.bfloat16 is not supported for quantization"
        ),
        "this GPU or this quantisation cannot compute in bfloat16",
        "set dtype to half",
    ),
    Failure(
        "quantization-unsupported",
        re.compile(
            r"The quantization method (?P<method>\S+) is not supported for the current GPU\.\s*"
            r"Minimum capability: (?P<need>\d+)\.\s*Current capability: (?P<have>\d+)"
        ),
        "the quantisation {method} needs compute capability {need} and the GPU has {have} (in tenths)",
        "set quantization to gptq or leave it out; on V100 choose a GPTQ checkpoint",
    ),
    Failure(
        "gpu-memory-not-free",
        re.compile(
            r"Free memory on device (?:\S+ )?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired "
            r"GPU memory utilization \((?P<share>[\d.]+), (?P<want>[\d.]+) GiB\)"
        ),
        "the GPU has {free} GiB free of {total} and the instance asks for {want} GiB (gpu_memory_utilization {share})",
        "see with nvidia-smi on the host who holds the rest; if it belongs there, gpu_memory_utilization of at most {fits} fits now",
        heals=True,
        numbers=_fitting_utilization,
    ),
    Failure(
        "memory-profiling-race",
        re.compile(r"Error in memory profiling\. Initial (?:free|used) memory"),
        "another process on the GPU gave memory back while this instance was measuring",
        "start it again; instances of one GPU must load one after the other, and nothing else may run on the card",
        heals=True,
    ),
    Failure(
        "no-memory-for-cache",
        re.compile(r"No available memory for the cache blocks"),
        "after the weights and the working memory nothing is left for the KV cache",
        "raise gpu_memory_utilization if the card has room, or lower max_num_batched_tokens, or take a smaller model",
    ),
    Failure(
        "context-too-long",
        re.compile(
            r"To serve at least one request with the models?'s max seq len \((?P<length>\d+)\),? \(?(?P<need>[\d.]+) GiB KV cache "
            r"is needed.*?available KV cache memory \((?P<have>[\d.]+) GiB\)(?:.*?estimated maximum model length is (?P<fits>\d+))?"
        ),
        "one request of {length} tokens needs {need} GiB of KV cache and {have} GiB are there",
        "{advice}",
        numbers=lambda got: {
            "advice": f"set max_model_len to at most {got['fits']}, or raise gpu_memory_utilization"
            if got["fits"]
            else "lower max_model_len, or raise gpu_memory_utilization"
        },
    ),
    Failure(  # vLLM up to 0.9 (V0 engine)
        "context-too-long",
        re.compile(
            r"max seq len \((?P<length>\d+)\) is larger than the maximum number of tokens that can be stored in KV cache \((?P<fits>\d+)\)"
        ),
        "max_model_len {length} does not fit: the KV cache holds {fits} tokens",
        "set max_model_len to at most {fits}, or raise gpu_memory_utilization",
    ),
    Failure(
        "context-longer-than-model",
        re.compile(
            r"User-specified max_model_len \((?P<length>\d+)\) is greater than the derived max_model_len.*?=\s?(?P<model>[\d.]+)"
        ),
        "max_model_len {length} is more than the model's own limit of {model}",
        "set max_model_len to at most {model}",
    ),
    Failure(
        "gpu-out-of-memory",
        re.compile(r"CUDA out of memory\. Tried to allocate (?P<size>[\d.]+ \w+)"),
        "the GPU ran out of memory (a further {size} was wanted)",
        "lower gpu_memory_utilization or max_num_seqs; see with nvidia-smi whether another process uses the card",
    ),
    Failure(
        "gpu-out-of-memory",
        re.compile(r"CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY"),
        "the GPU ran out of memory",
        "lower gpu_memory_utilization or max_num_seqs; see with nvidia-smi whether another process uses the card",
    ),
    Failure(
        "kernel-too-large",
        re.compile(r"out of resource: shared memory, Required: (?P<need>\d+), Hardware limit: (?P<have>\d+)"),
        "a kernel wants {need} bytes of shared memory and the GPU has {have}",
        "set a smaller block_size, or another attention backend",
    ),
    Failure(
        "engine-start-timeout",
        re.compile(r"Timed out waiting for engine core processes to start"),
        "vLLM gave up waiting for its own engine process (first compilation or a slow disk)",
        "set VLLM_ENGINE_READY_TIMEOUT_S to 1800 in the instance's environment",
        heals=True,
    ),
    Failure(
        "hub-unreachable",
        re.compile(
            r"We couldn't connect to '(?P<url>[^']+)'|LocalEntryNotFoundError|OfflineModeIsEnabled|Max retries exceeded with url"
        ),
        "the model is not complete on the host and the hub cannot be reached",
        "let the deploy fetch the model (it sets a mirror and verifies), or copy the files into the model directory",
        heals=True,
    ),
    Failure(
        "gated-model",
        re.compile(r"You are trying to access a gated repo|GatedRepoError|401 Client Error"),
        "the model needs an accepted licence and a token",
        "accept the licence on the model's page and give Stoker the token as a secret (HF_TOKEN)",
    ),
    Failure(
        "repository-not-found",
        re.compile(r"RepositoryNotFoundError|Repository Not Found for url"),
        "the hub has no repository of that name, or it is private",
        "correct the model's repository name",
    ),
    Failure(
        "download-broken",
        re.compile(r"Consistency check failed: file should be of size"),
        "a downloaded file is not complete",
        "delete the file on the host and deploy again",
        heals=True,
    ),
    Failure(
        "weights-damaged",
        re.compile(
            r"[Ee]rror while deserializing header|HeaderTooLarge|HeaderTooSmall|InvalidHeader|MetadataIncompleteBuffer"
        ),
        "a weights file is cut short or is a Git-LFS pointer",
        "delete it on the host and deploy again: the deploy checks sizes and checksums and fetches what is wrong",
    ),
    Failure(
        "weights-missing",
        re.compile(r"Cannot find any model weights with"),
        "the model directory holds no weights",
        "deploy again to fetch them; models with pytorch_model.bin only (bge-m3) must not have *.bin excluded",
    ),
    Failure(
        "model-not-found",
        re.compile(
            r"Invalid repository ID or local directory specified: '?(?P<path>[^'\n]+?)'?(?:\.|$)|"
            r"(?P<path2>\S+) does not appear to have a file named (?P<file>\S+?)\.(?:\s|$)|No such file or directory: '(?P<path3>\S*config\.json)'|"
            # With HF_HUB_OFFLINE, as Stoker sets it, a path that is not there is taken for a repository (0.19.1, 0.32.0; huggingface_hub 0.36).
            r"HFValidationError: Repo id must .*?: '(?P<path4>/[^']+)'"
        ),
        "there is no usable model at {which}",
        "check the instance's model and the mounted directory; deploy again to fetch and verify the files",
        numbers=lambda got: {"which": got["path"] or got["path2"] or got["path3"] or got["path4"]},
    ),
    Failure(
        "model-not-supported",
        re.compile(
            r"Unrecognized model in|Model architectures? .*(?:are|is) not supported for now|does not recognize this architecture"
        ),
        "this vLLM does not know the model's architecture",
        "choose another model, or a newer image where the GPU allows it (V100: not beyond v0.19.1)",
    ),
    Failure(
        "engine-died",
        re.compile(r"Engine core proc \S+ died unexpectedly"),
        "vLLM's engine process died without a word: it was killed, or the driver ended it",
        "see dmesg on the host for 'Out of memory: Killed process' and for an Xid of the GPU",
        heals=True,
        sign=True,
    ),
    Failure(
        "remote-code-needed",
        re.compile(r"contains custom code which must be executed to correctly load the model"),
        "the model brings Python code of its own, which Stoker does not run by default",
        "choose a model that vLLM supports itself; trust_remote_code runs the repository's code in the container",
    ),
)
