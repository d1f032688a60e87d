"""The table. A new fact is a new row, with a test that it holds and one near miss, and a line in docs/compatibility.md.

Statements about vLLM 0.8.5 to 0.33.0 were read in its released wheels (code, and the machine code of its libraries), those about Ollama
in its source to v0.33.0-rc2; numbers with # are issues and pull requests there. Nothing here was measured on a V100 or a P40.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from stoker.engine.registry import engines
from stoker.plan.compatibility.row import Row, Verdict
from stoker.spec import vllm

VOLTA, TURING, AMPERE, ADA = (7, 0), (7, 5), (8, 0), (8, 9)

#: First driver branch without Maxwell, Pascal and Volta: 580 is the last that has them.
WITHOUT_VOLTA = 581

_DRIVER_PAGE = "NVIDIA data-centre driver page, 2026: R580 is the last branch for Maxwell, Pascal and Volta"
_KERNELS = "vLLM's released wheels: get_min_capability of each quantisation"
_GPTQ_RACE = "vLLM PR #30719, issues #9618 and #10656; the machine code of 0.13.0 has the race, that of 0.14.1 has not"
_BACKENDS = "vLLM's released wheels: supports_compute_capability of each attention backend"
_GPTQ_REASON = "vLLM {version} computes GPTQ on the {card} with a kernel that has a race"
_GPTQ_REMEDY = "use vLLM 0.14 to 0.19.1"

#: ``model_type`` of config.json.
_NO_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "plamo2", "glm4")
_NO_FLOAT16_SOURCE = "vLLM's config/model.py: _FLOAT16_NOT_SUPPORTED_MODELS; seen in 0.11 and 0.17"

_Bits = tuple[str, str, tuple[int | None, ...], Verdict, str]
_GPTQ_BITS: tuple[_Bits, ...] = (
    ("int4", "with 2 to 4 bits", (2, 3, 4), "refuse", "answers of '!!!!' were reported"),
    ("int8", "with 8 bits", (8,), "warn", "no wrong answers were reported with 8 bits, but it has the race too"),
    ("unknown", "with unknown bits", (None,), "warn", "answers of '!!!!' were reported with 4 bits"),
)

DRIVER_ROWS = (
    Row(
        "open-module",
        "open kernel modules, card below 7.5",
        "refuse",
        "the driver's open kernel modules do not support the {card} (compute capability {capability}; they begin with 7.5)",
        "install the proprietary modules (nvidia-driver-580-server, not -open) and reboot",
        "NVIDIA/open-gpu-kernel-modules#19",
        "driver-open-module",
        capability_below=TURING,
        kernel_module="open",
    ),
    Row(
        "driver-after-580",
        "driver branch after 580, card below 7.5",
        "refuse",
        "driver {driver} has no support for the {card}: 580 is the last branch that has",
        "install branch 580 and hold it (apt-mark hold)",
        _DRIVER_PAGE,
        "driver-branch",
        capability_below=TURING,
        driver_from=(WITHOUT_VOLTA,),
    ),
    Row(
        "driver-cuda-12",
        "image on CUDA 12, driver below 525",
        "refuse",
        "driver {driver} is too old for {image} (CUDA 12 needs branch 525)",
        "install branch 580",
        "NVIDIA data-centre driver page: CUDA 12.x runs on 525 and later (minor-version compatibility)",
        "driver-branch",
        cuda=12,
        driver_below=(525,),
    ),
    Row(
        "driver-cuda-13",
        "image on CUDA 13 (vLLM from 0.20.0, or -cu13x), driver below 580",
        "refuse",
        "driver {driver} is too old for {image} (CUDA 13 needs branch 580)",
        "install branch 580, or pin an image on CUDA 12: vLLM up to 0.19.1, or a tag with -cu129",
        "NVIDIA data-centre driver page: CUDA 13.x runs on 580 and later; vLLM PR #39878",
        "driver-branch",
        cuda=13,
        driver_below=(580,),
    ),
)

IMAGE_ROWS = (
    Row(
        "version-assumed",
        "tag without a release, moving tag, or digest alone",
        "warn",
        "{image}: {assumed}",
        "pin a release's tag, best with its digest",
        "what Stoker knows of an image is in its tag",
        "unknown-image",
        assumed=True,
    ),
    Row(
        "third-party-image",
        "image of a third party",
        "warn",
        "{image} is not the publisher's image; nobody reviewed it for Stoker, and what is known of the release may not hold for it",
        "use vllm/vllm-openai or ollama/ollama, or make sure of this image yourself",
        "forks for Volta and Pascal (1CatAI/1Cat-vLLM, sasha0552/pascal-pkgs-ci) change kernels and versions",
        "third-party-image",
        fork=True,
    ),
    Row(
        "vllm-below-volta",
        "vLLM, card below 7.0",
        "refuse",
        "vLLM needs compute capability 7.0, and the {card} has {capability}",
        "serve the model with Ollama on this card",
        "vLLM #13202: too old for the Triton compiler",
        "gpu-too-old",
        engine="vllm",
        capability_below=VOLTA,
    ),
    Row(
        "vllm-volta",
        "vLLM from 0.20.0, card from 7.0 to below 7.5",
        "refuse",
        "vLLM {version} has no code for the {card} (compute capability {capability}); v0.19.1 is the last release that has",
        "pin vllm/vllm-openai:v0.19.1",
        "machine code in vLLM's wheels: sm_70 up to 0.19.1, lowest 7.5 from 0.20.0",
        "no-kernel-image",
        engine="vllm",
        version_from="0.20.0",
        capability_from=VOLTA,
        capability_below=TURING,
    ),
    Row(
        "vllm-cuda-13-volta",
        "vLLM up to 0.19.1 in a -cu13x image, card from 7.0 to below 7.5",
        "refuse",
        "{image} is built on CUDA 13, which has no code for the {card} (compute capability {capability})",
        "pin vllm/vllm-openai:v0.19.1, without a suffix",
        "CUDA 13 dropped Maxwell, Pascal and Volta; tag scheme: llm-d/llm-d-kv-cache#542",
        "no-kernel-image",
        engine="vllm",
        version_below="0.20.0",
        cuda=13,
        capability_from=VOLTA,
        capability_below=TURING,
    ),
)

MODEL_ROWS = (
    Row(
        "bfloat16-asked",
        "dtype bfloat16, card below 8.0",
        "refuse",
        "the {card} cannot compute in bfloat16 (compute capability {capability}, needed is 8.0)",
        "write 'dtype': 'half'",
        "vLLM's own check: Bfloat16 is only supported on GPUs with compute capability of at least 8.0",
        "bfloat16-unsupported",
        engine="vllm",
        capability_below=AMPERE,
        dtype=("bfloat16",),
    ),
    Row(
        "bfloat16-cast",
        "checkpoint in bfloat16 with dtype auto, card below 8.0",
        "note",
        "the checkpoint is in bfloat16, which the {card} cannot compute in; vLLM casts it to float16",
        "write 'dtype': 'half' to say so yourself",
        "vLLM: Falling back to torch.float16 for compatibility",
        "bfloat16-unsupported",
        engine="vllm",
        capability_below=AMPERE,
        dtype=("auto",),
        torch_dtype="bfloat16",
    ),
    Row(
        "float16-asked",
        "dtype half with Gemma 2 or 3, GLM-4 or PLaMo 2, vLLM from 0.11",
        "refuse",
        "vLLM does not compute models of this kind in float16: they are numerically unstable in it",
        "write 'dtype': 'bfloat16' on a card from compute capability 8.0 on, else 'float32', which takes twice the memory",
        _NO_FLOAT16_SOURCE,
        "float16-unsupported",
        engine="vllm",
        version_from="0.11.0",
        dtype=("half", "float16"),
        model_types=_NO_FLOAT16,
    ),
    Row(
        "float32-cast",
        "dtype auto with Gemma 2 or 3, GLM-4 or PLaMo 2, vLLM from 0.11, card below 8.0",
        "warn",
        "vLLM does not compute models of this kind in float16, and the {card} has no bfloat16: only float32 is left, in which the "
        "weights and the KV cache take twice as much as the memory plan says",
        "write 'dtype': 'float32', and the plan counts with it; or choose another model or card",
        _NO_FLOAT16_SOURCE,
        "float16-unsupported",
        engine="vllm",
        version_from="0.11.0",
        capability_below=AMPERE,
        dtype=("auto",),
        model_types=_NO_FLOAT16,
    ),
    Row(
        "float32-quantised",
        "dtype float32, GPTQ or AWQ weights",
        "refuse",
        "vLLM does not compute with GPTQ and AWQ weights in float32",
        "write 'dtype': 'half'",
        "vLLM: torch.bfloat16 is not supported for quantization method gptq. Supported dtypes: [torch.float16]",
        "bfloat16-unsupported",
        engine="vllm",
        dtype=("float", "float32"),
        method=("gptq", "gptq_marlin", "awq", "awq_marlin"),
    ),
    Row(
        "fp8-weights",
        "fp8 weights, card below 7.5",
        "refuse",
        "the {card} has no fp8 (compute capability {capability}, needed is 8.9)",
        "choose an unquantised or a GPTQ checkpoint",
        _KERNELS,
        "quantization-unsupported",
        engine="vllm",
        capability_below=TURING,
        method=("fp8", "fbgemm_fp8"),
    ),
    Row(
        "fp8-weights-emulated",
        "fp8 weights, card from 7.5 to below 8.9",
        "warn",
        "the {card} does not compute in fp8 (compute capability {capability}, needed is 8.9); some releases unpack such weights, "
        "which saves memory and no time",
        "choose a GPTQ or AWQ checkpoint, or try it",
        "vLLM: Weight-only FP8 compression will be used leveraging the Marlin kernel",
        "quantization-unsupported",
        engine="vllm",
        capability_from=TURING,
        capability_below=ADA,
        method=("fp8", "fbgemm_fp8"),
    ),
    Row(
        "fp8-cache",
        "fp8 KV cache, card below 7.5",
        "refuse",
        "the {card} has no fp8 for the KV cache (compute capability {capability}, needed is 8.9)",
        "leave kv-cache-dtype out",
        _KERNELS,
        "quantization-unsupported",
        engine="vllm",
        capability_below=TURING,
        argument="kv-cache-dtype",
        values=("fp8", "fp8_e4m3", "fp8_e5m2"),
    ),
    Row(
        "fp8-cache-emulated",
        "fp8 KV cache, card from 7.5 to below 8.9",
        "warn",
        "the {card} does not compute in fp8 (compute capability {capability}, needed is 8.9); whether a cache in fp8 works depends "
        "on the attention backend",
        "leave kv-cache-dtype out, or try it",
        _KERNELS,
        "quantization-unsupported",
        engine="vllm",
        capability_from=TURING,
        capability_below=ADA,
        argument="kv-cache-dtype",
        values=("fp8", "fp8_e4m3", "fp8_e5m2"),
    ),
    Row(
        "gptq-marlin-early",
        "quantization gptq_marlin, vLLM up to 0.11, card below 8.0",
        "refuse",
        "gptq_marlin needs compute capability 8.0 in vLLM {version}, and the {card} has {capability}",
        "leave quantization out, or write 'gptq'",
        _KERNELS,
        "quantization-unsupported",
        engine="vllm",
        version_below="0.12.0",
        capability_below=AMPERE,
        method=("gptq_marlin",),
    ),
    Row(
        "gptq-marlin",
        "quantization gptq_marlin, vLLM from 0.12, card below 7.5",
        "refuse",
        "gptq_marlin needs compute capability 7.5, and the {card} has {capability}",
        "leave quantization out, or write 'gptq'",
        _KERNELS,
        "quantization-unsupported",
        engine="vllm",
        version_from="0.12.0",
        capability_below=TURING,
        method=("gptq_marlin",),
    ),
    Row(
        "awq",
        "AWQ weights, card below 7.5",
        "refuse",
        "AWQ needs compute capability 7.5, and the {card} has {capability}",
        "choose a GPTQ checkpoint",
        _KERNELS,
        "quantization-unsupported",
        engine="vllm",
        capability_below=TURING,
        method=("awq", "awq_marlin"),
    ),
    *(
        Row(
            f"gptq-race-{name}{era}",
            f"GPTQ {words}, {versions}",
            verdict,
            f"{_GPTQ_REASON}: {effect}",
            _GPTQ_REMEDY,
            _GPTQ_RACE,
            "repeated-character",
            engine="vllm",
            version_from=low,
            version_below=high,
            capability_below=below,
            method=("gptq",),
            bits=bits,
        )
        # Where marlin is, vLLM takes it by itself, and the kernel with the race is not used.
        for era, low, high, below, versions in (
            ("-early", "", "0.12.0", AMPERE, "vLLM up to 0.11, card below 8.0"),
            ("", "0.12.0", "0.14.0", TURING, "vLLM 0.12 and 0.13, card below 7.5"),
        )
        for name, words, bits, verdict, effect in _GPTQ_BITS
    ),
    Row(
        "gptq-race-asked",
        "argument quantization gptq, vLLM up to 0.13, card from 8.0",
        "warn",
        f"{_GPTQ_REASON}, because quantization 'gptq' asks for it: answers of '!!!!' were reported",
        "leave quantization out: vLLM then takes gptq_marlin on this card",
        _GPTQ_RACE,
        "repeated-character",
        engine="vllm",
        version_below="0.14.0",
        capability_from=AMPERE,
        argument="quantization",
        values=("gptq",),
    ),
)

ARGUMENT_ROWS = (
    Row(
        "flash-attention",
        "attention backend FLASH_ATTN, card below 8.0",
        "refuse",
        "FLASH_ATTN needs compute capability 8.0, and the {card} has {capability}",
        "leave the attention backend out: vLLM finds one that works",
        _BACKENDS,
        "attention-backend",
        engine="vllm",
        capability_below=AMPERE,
        backend="FLASH_ATTN",
    ),
    Row(
        "flashinfer",
        "attention backend FLASHINFER, card below 7.5",
        "refuse",
        "FLASHINFER needs compute capability 7.5, and the {card} has {capability}",
        "leave the attention backend out: vLLM finds one that works",
        _BACKENDS,
        "attention-backend",
        engine="vllm",
        capability_below=TURING,
        backend="FLASHINFER",
    ),
    Row(
        "xformers",
        "attention backend XFORMERS, vLLM from 0.12.0",
        "refuse",
        "vLLM {version} has no xFormers any more (removed in 0.12.0)",
        "leave the attention backend out: vLLM finds one that works",
        "vLLM's wheels 0.11.2 and 0.12.0",
        "attention-backend",
        engine="vllm",
        version_from="0.12.0",
        backend="XFORMERS",
    ),
    Row(
        "attention-variable",
        "VLLM_ATTENTION_BACKEND in the environment, vLLM from 0.13.0",
        "warn",
        "vLLM {version} takes the attention backend by an argument; VLLM_ATTENTION_BACKEND={value} may have no effect",
        "write 'attention-backend' in `arguments`",
        "vLLM's wheels 0.11.2 to 0.19.1",
        "attention-backend",
        engine="vllm",
        version_from="0.13.0",
        environment="VLLM_ATTENTION_BACKEND",
    ),
    Row(
        "block-size-v0",
        "block-size 64 or 128, vLLM below 0.10, card below 8.0",
        "refuse",
        "vLLM {version} takes a block-size of at most 32 on the {card}, and {value} is asked for",
        "leave block-size out, or use vLLM 0.19.1",
        "vLLM's wheel 0.9.2: block sizes up to 32 on CUDA (V0 engine, xFormers)",
        "argument-of-another-version",
        engine="vllm",
        version_below="0.10.0",
        capability_below=AMPERE,
        argument="block-size",
        values=(64, 128),
    ),
    Row(
        "shutdown-timeout",
        "shutdown-timeout, vLLM below 0.18.0",
        "refuse",
        "vLLM {version} does not know --shutdown-timeout (new in 0.18)",
        "remove it, or use vLLM 0.19.1",
        "vLLM's wheels 0.17.1 and 0.18.1",
        "argument-of-another-version",
        engine="vllm",
        version_below="0.18.0",
        argument="shutdown-timeout",
    ),
    Row(
        "kv-cache-memory-bytes",
        "kv-cache-memory-bytes, vLLM below 0.11.0",
        "refuse",
        "vLLM {version} does not know --kv-cache-memory-bytes (in 0.11.0 and later)",
        "remove it, or use vLLM 0.19.1",
        "vLLM's wheels 0.9.2 and 0.11.0",
        "argument-of-another-version",
        engine="vllm",
        version_below="0.11.0",
        argument="kv-cache-memory-bytes",
    ),
)

OLLAMA_ROWS = (
    Row(
        "ollama-below-maxwell",
        "Ollama, card below 5.0",
        "refuse",
        "Ollama needs compute capability 5.0, and the {card} has {capability}",
        "use another card",
        "Ollama docs/gpu: compute capability 5.0 and later",
        "ollama-on-cpu",
        engine="ollama",
        capability_below=(5, 0),
    ),
    Row(
        "ollama-pascal-driver",
        "Ollama from 0.30.0, card from 5.0 to 6.2, driver below 570",
        "refuse",
        "with driver {driver} Ollama {version} would serve from the CPU instead of the {card}, without an error",
        "install branch 580 (570 is the oldest that works)",
        "Ollama discover/cuda_compat.go; #17290",
        "ollama-driver-too-old",
        engine="ollama",
        version_from="0.30.0",
        capability_from=(5, 0),
        capability_below=(6, 3),
        driver_below=(570,),
    ),
    Row(
        "ollama-driver",
        "Ollama from 0.30.0, card from 7.0, driver below 550",
        "warn",
        "driver {driver} is older than Ollama {version} asks for (550)",
        "install branch 580",
        "Ollama docs/gpu",
        "ollama-driver-too-old",
        engine="ollama",
        version_from="0.30.0",
        capability_from=(7, 0),
        driver_below=(550,),
    ),
    Row(
        "ollama-num-parallel",
        "OLLAMA_NUM_PARALLEL with an embedding model (bge-m3), Ollama from 0.3.7",
        "note",
        "OLLAMA_NUM_PARALLEL={value} has no effect: Ollama serves an embedding model one request at a time",
        "remove it; for more throughput run more instances on the card",
        "Ollama #6467 (server/sched.go)",
        "ollama-num-parallel",
        engine="ollama",
        version_from="0.3.7",
        environment="OLLAMA_NUM_PARALLEL",
        models=("bge-", "embed", "minilm"),
    ),
)


#: Arguments whose last release is known. All of vllm.REMOVED are gone in the release that the list was made for.
_GONE_SINCE = {"task": "0.13.0"}


def removed_arguments() -> Iterator[Row]:
    """A row for each argument that `stoker.spec.vllm` knows as removed."""
    for name, remedy in vllm.REMOVED.items():
        since = _GONE_SINCE.get(name, str(vllm.known()["version"]))
        yield Row(
            f"removed-{name}",
            f"argument {name}, vLLM from {since}",
            "refuse",
            f"vLLM {{version}} does not know --{name}",
            remedy.replace("{", "{{").replace("}", "}}"),
            "vLLM's wheels 0.12.0 and 0.13.0" if name in _GONE_SINCE else f"the parser of vLLM {since}",
            "unknown-argument",
            engine="vllm",
            version_from=since,
            argument=name,
        )


@functools.cache
def all_rows() -> tuple[Row, ...]:
    """The table, and the rows of the engines that have theirs in their own modules."""
    own = (*DRIVER_ROWS, *IMAGE_ROWS, *MODEL_ROWS, *ARGUMENT_ROWS, *removed_arguments(), *OLLAMA_ROWS)
    return (*own, *(row for _, engine in engines() for row in engine.rows()))
