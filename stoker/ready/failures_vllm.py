"""vLLM's arguments, kernels and processes.

Texts were looked up in vLLM's released wheels 0.8.5, 0.9.2, 0.11.2, 0.13.0, 0.16.0, 0.19.1, 0.20.2 and 0.33.0, and in the
build for CPUs 0.32.0; `since` and `before` name the releases between which a text or its meaning changed.
"""

from __future__ import annotations

import re

from stoker.ready.failure import Clues, Failure, Groups

_MODEL_CONFIG = "vLLM's wheels 0.8.5 to 0.33: config/model.py (config.py before 0.10)"


def _which_argument(got: Groups, _: Clues) -> Groups:
    return {"which": got["args"] or f"{got['bad']} ({got['why']})"}


def _divisor(got: Groups, _: Clues) -> Groups:
    heads, asked = int(got["heads"]), int(got["parts"])
    return {"fits": str(max(parts for parts in range(1, asked) if heads % parts == 0)) if asked > 1 else "1"}


def _capabilities(got: Groups, _: Clues) -> Groups:
    need, have = int(got["need"] or got["need2"]), int(got["have"] or got["have2"])
    method = f" {got['method']}" if got["method"] else ""
    return {"method": method, "need": f"{need // 10}.{need % 10}", "have": f"{have // 10}.{have % 10}"}


def _longer(got: Groups, _: Clues) -> Groups:
    waited = int(got["seconds"] or 600)
    return {"waited": str(waited), "longer": str(2 * waited)}


VLLM_FAILURES: tuple[Failure, ...] = (
    Failure(
        id="unknown-argument",
        pattern=re.compile(r"error: unrecognized arguments: (?P<args>.*--task\b.*)"),
        cause="this vLLM does not accept the argument {args}: --task was removed in 0.13",
        remedy="correct the instance's arguments: use --runner pooling for embeddings",
        source="vLLM's wheels; vllm#35603, flagos-ai/vllm-plugin-FL#127 (0.13.0)",
        since="0.13",
    ),
    Failure(
        id="unknown-argument",
        pattern=re.compile(
            r"error: unrecognized arguments: (?P<args>.+)|error: argument (?P<bad>--[^\s:]+): (?P<why>.+)|error: ambiguous option: (?P<args2>.+)"
        ),
        cause="this vLLM does not accept the argument {which}",
        remedy="correct the instance's arguments",
        source="argparse in vLLM 0.6 to 0.33; vllm#9840, #27389",
        numbers=lambda got, clues: {"which": got["args2"]} if got["args2"] else _which_argument(got, clues),
    ),
    Failure(
        id="config-not-yaml",
        pattern=re.compile(r"Config file must be of a yaml/yml type"),
        cause="--config was given a file that is not named .yaml or .yml",
        remedy="rename the file to .yaml (JSON content is valid YAML)",
        source="vLLM's wheels 0.8.5 to 0.33: utils/argparse_utils.py; seen in the lab with 0.32.0",
    ),
    Failure(
        id="no-kernel-image",
        pattern=re.compile(r"no kernel image is available for execution on the device|device kernel image is invalid"),
        cause="the image has no code for this GPU (vLLM from v0.20.0 on has none for V100)",
        remedy="pin the image vllm/vllm-openai:v0.19.1 for V100 cards",
        source="CUDA errors 209 and 200; vllm#39878 (V100), the machine code in the wheels 0.8.5 to 0.33",
        since="0.20",
    ),
    Failure(
        id="no-kernel-image",
        pattern=re.compile(r"no kernel image is available for execution on the device|device kernel image is invalid"),
        cause="the image has no code for this GPU: the card is newer than the release, or older than 7.0",
        remedy="a card of compute capability 10 and above needs a newer image, one below 7.0 Ollama; V100 is served by v0.19.1 if the image is vLLM's own",
        source="CUDA errors 209 and 200; vllm#14452, #19906 (RTX 50), #16307",
        before="0.20",
    ),
    Failure(
        id="no-kernel-image",
        pattern=re.compile(
            r"Found GPU\d+ (?P<gpu>.+?) which is of (?:cuda|compute) capability.*|"
            r"(?P<gpu2>[\w -]{1,60}) with CUDA capability sm_\d+ is not compatible with the current PyTorch installation"
        ),
        cause="PyTorch in the image has no code for {which}",
        remedy="pin the image vllm/vllm-openai:v0.19.1 for V100 cards",
        source="PyTorch 2.1 to 2.14: torch/cuda/__init__.py",
        ordinary=True,
        numbers=lambda got, _: {"which": got["gpu"] or got["gpu2"]},
    ),
    Failure(
        id="gpu-too-old",
        pattern=re.compile(
            r"Found (?P<gpu>.+?) which is too old to be supported by the triton GPU compiler|compute capability below 7\.0 are not supported"
        ),
        cause="vLLM needs compute capability 7.0 and {which} has less",
        remedy="serve the model with Ollama on this card",
        source="PyTorch's inductor; vllm#13202 (P40), #14547 (P100), #1284",
        numbers=lambda got, _: {"which": got["gpu"] or "this card"},
    ),
    Failure(
        id="attention-backend",
        pattern=re.compile(
            r"Selected backend (?P<backend>\S+) is not valid for this configuration\. Reason: (?P<why>.+)|"
            r"FlashAttention only supports Ampere GPUs or newer|No valid attention backend found"
        ),
        cause="the attention backend{which} does not run on this card with these settings",
        remedy="leave attention-backend and VLLM_ATTENTION_BACKEND out: on a V100 vLLM takes TRITON_ATTN by itself",
        source="vLLM's wheels 0.11.2 to 0.33: platforms/cuda.py; flash-attn 2",
        numbers=lambda got, _: {
            "which": f" {got['backend'].removeprefix('AttentionBackendEnum.')} {got['why']}" if got["backend"] else ""
        },
    ),
    Failure(
        id="block-size",
        pattern=re.compile(r"No common block size for (?P<size>\d+)|Block size (?P<size2>\d+) is not supported"),
        cause="the attention backend has no kernel for block_size {which}",
        remedy="leave block-size out; TRITON_ATTN takes multiples of 16, vLLM up to 0.10 at most 32",
        source="vLLM's wheels 0.11.2 to 0.33: v1/worker/utils.py",
        numbers=lambda got, _: {"which": got["size"] or got["size2"]},
    ),
    Failure(
        id="triton-on-volta",
        pattern=re.compile(r"mma -> mma layout conversion is only supported on Ampere"),
        cause="a kernel of Triton is wrong on V100 in this release (chunked prefill and prefix caching of the old engine)",
        remedy="pin v0.19.1; with this release set no-enable-chunked-prefill and no-enable-prefix-caching",
        source="vllm#2729, #6723, #8024, #13738",
        before="0.11",
    ),
    Failure(
        id="bfloat16-unsupported",
        pattern=re.compile(
            r"Bfloat16 is only supported on GPUs with compute capability|torch\.bfloat16 is not supported for quantization"
        ),
        cause="this GPU or this quantisation cannot compute in bfloat16",
        remedy="set dtype to half",
        source="vLLM's wheels 0.8.5 to 0.33: platforms/cuda.py, model_loader/weight_utils.py; vllm#946, transformerlab/transformerlab-app#370",
    ),
    Failure(
        id="quantization-unsupported",
        pattern=re.compile(
            r"The quantization method (?P<method>\S+) is not supported for the current GPU\.\s*"
            r"Minimum capability: (?P<need>\d+)\.\s*Current capability: (?P<have>\d+)|"
            r"Quantization scheme is not supported for ', 'the current GPU\. Min capability: (?P<need2>\d+)\. ', 'Current capability: (?P<have2>\d+)"
        ),
        cause="the quantisation{method} needs compute capability {need} and the GPU has {have}",
        remedy="set quantization to gptq or leave it out; on V100 choose a GPTQ checkpoint",
        source="vLLM's wheels 0.8.5 to 0.33: model_loader/weight_utils.py; vllm#4202, #14040, 1CatAI/1Cat-vLLM#94",
        numbers=_capabilities,
    ),
    Failure(
        id="context-longer-than-model",
        pattern=re.compile(
            r"User-specified max_model_len \((?P<length>\d+)\) is greater than the derived max_model_len.*?=\s?(?P<model>[\d.]+)"
        ),
        cause="max_model_len {length} is more than the model's own limit of {model}",
        remedy="set max_model_len to at most {model}",
        source=_MODEL_CONFIG,
        numbers=lambda got, _: {"model": str(int(float(got["model"].rstrip("."))))},
    ),
    Failure(
        id="batch-smaller-than-context",
        pattern=re.compile(
            r"max_num_batched_tokens \((?P<batch>\d+)\) is smaller than max_model_len \((?P<length>\d+)\)"
        ),
        cause="without chunked prefill a whole prompt must fit into one batch: max_num_batched_tokens is {batch}, max_model_len {length}",
        remedy="set max_num_batched_tokens to {length}, or leave chunked prefill on (the default)",
        source="vLLM's wheels 0.8.5 to 0.33: config/scheduler.py",
    ),
    Failure(
        id="heads-not-divisible",
        pattern=re.compile(
            r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<parts>\d+)\)"
        ),
        cause="{heads} attention heads cannot be shared by {parts} cards",
        remedy="set tensor-parallel-size to {fits}, or use pipeline-parallel-size for the rest",
        source=_MODEL_CONFIG,
        numbers=_divisor,
    ),
    Failure(
        id="too-few-gpus",
        pattern=re.compile(
            r"World size \((?P<want>\d+)\) is larger than the number of available GPUs \((?P<have>\d+)\)|"
            r"Tensor parallel size \((?P<want2>\d+)\) cannot be larger than the number of available GPUs \((?P<have2>\d+)\)|"
            r"CUDA error: invalid device ordinal"
        ),
        cause="the instance asks for more cards than its container sees{which}",
        remedy="describe as many `gpus` as tensor-parallel-size times pipeline-parallel-size; nvidia-smi -L in the container shows what is there",
        source="vLLM's wheels 0.11.2 to 0.33: config/parallel.py; CUDA error 101",
        numbers=lambda got, _: {
            "which": f" ({got['want'] or got['want2']} wanted, {got['have'] or got['have2']} there)"
            if got["want"] or got["want2"]
            else ""
        },
    ),
    Failure(
        id="collective-failed",
        pattern=re.compile(r"NCCL error: (?P<what>[^(\n]+)"),
        cause="the cards of the instance could not be joined (NCCL: {what})",
        remedy="look for the reason with NCCL_DEBUG=INFO in the instance's environment; often /dev/shm is too small (shm_size), or peer access is broken: NCCL_P2P_DISABLE=1",
        source="vLLM 0.5 to 0.33: pynccl_wrapper.py; vllm#17756, #20226, #10626",
    ),
    Failure(
        id="kernel-too-large",
        pattern=re.compile(r"out of resource: shared memory, Required: (?P<need>\d+), Hardware limit: (?P<have>\d+)"),
        cause="a kernel wants {need} bytes of shared memory and the GPU has {have}",
        remedy="set a smaller block_size, or another attention backend",
        source="Triton 2.1 to 3.6: OutOfResources; vllm#12498, #36802, #57712",
    ),
    Failure(
        id="compiler-missing",
        pattern=re.compile(r"Failed to find C compiler|No working C\+\+ compiler found|InvalidCxxCompiler"),
        cause="the image has no C compiler, which Triton and torch.compile need",
        remedy="use vLLM's own image, which has gcc, or add it to yours; enforce-eager does without torch.compile, not without Triton",
        source="Triton: runtime/build.py; torch._inductor; vllm#15329, #2997",
    ),
    Failure(
        id="package-missing",
        pattern=re.compile(
            r"ModuleNotFoundError: No module named '(?P<name>[\w.]+)'|ImportError: Please install (?P<name2>[\w.-]+)"
        ),
        cause="the image lacks the Python package {which}",
        remedy="use vLLM's own image of the pinned release, or build one from it that has the package",
        source="Python; vLLM asks so for bitsandbytes, fastsafetensors, runai-model-streamer",
        numbers=lambda got, _: {"which": got["name"] or got["name2"]},
    ),
    Failure(
        id="chat-template-missing",
        pattern=re.compile(r"default chat template is no longer allowed"),
        cause="the model's tokenizer has no chat template",
        remedy="mount a template and name it with chat-template, or serve an instruction-tuned model",
        source="vLLM 0.8.5 to 0.33, the answer to a chat request (HTTP 400)",
    ),
    Failure(
        id="engine-start-timeout",
        pattern=re.compile(
            r"Timed out waiting for engine core processes to start(?:.*?Waited (?P<seconds>\d+)s)?|"
            r"Timed out waiting for engines to send initial message"
        ),
        cause="vLLM gave up waiting for its own engine process after {waited} s (first compilation or a slow disk)",
        remedy="raise ready_timeout in group_data to {longer} (it sets VLLM_ENGINE_READY_TIMEOUT_S, known from 0.16 on; before it is fixed)",
        source="vLLM's wheels 0.9.2 to 0.33: v1/engine/core_client.py; vllm PR #35616 (two wordings), #32116",
        heals=True,
        numbers=_longer,
    ),
    Failure(
        id="worker-hung",
        pattern=re.compile(r"TimeoutError: RPC call to (?P<what>\w+) timed out"),
        cause="a worker process did not answer in time ({what}): it hangs, or computes for longer than it may",
        remedy="look at nvidia-smi and dmesg on the host for a card that hangs (Xid); restart the instance",
        source="vLLM's wheels 0.8.5 to 0.33: v1/executor/multiproc_executor.py; vllm#17965, #19668",
        heals=True,
    ),
    Failure(
        id="worker-hung",
        pattern=re.compile(r"No available shared memory broadcast block found in (?P<seconds>\d+) seconds"),
        cause="a worker process of the engine has been silent for {seconds} s",
        remedy="see whether the log gets on (a long compilation is silent too); else look at nvidia-smi and dmesg for a card that hangs",
        source="vLLM's wheels 0.8.5 to 0.33: distributed/device_communicators/shm_broadcast.py; at a slow start in the lab",
        ordinary=True,
    ),
    Failure(
        id="engine-died",
        pattern=re.compile(
            r"Engine core proc \S+ died unexpectedly|engine core exited unexpectedly|Worker proc \S+ died unexpectedly"
        ),
        cause="vLLM's engine process died without a word: it was killed, or the driver ended it",
        remedy="see dmesg on the host for 'Out of memory: Killed process' and for an Xid of the GPU",
        source="vLLM's wheels 0.8.5 to 0.33: v1/engine/core_client.py ('engine core exited' from 0.32 on); deepseek-ai/DeepSeek-OCR#110",
        heals=True,
        sign=True,
    ),
)
