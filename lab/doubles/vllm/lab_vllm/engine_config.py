"""The engine's configuration, derived and checked as `create_engine_config` of v0.19.1 does before anything is loaded."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass

from lab_gpu.machine import Gpu

from lab_vllm.log import Log
from lab_vllm.model import Model, ModelError, NotARepository, read_model

_DTYPES = {"half": "float16", "float16": "float16", "bfloat16": "bfloat16", "float": "float32", "float32": "float32"}

# Smallest compute capability of a quantisation method's kernels (get_min_capability in v0.19.1).
_MIN_CAPABILITY = {
    "gptq": 60,
    "gptq_marlin": 75,
    "awq": 75,
    "awq_marlin": 75,
    "fp8": 75,
    "compressed-tensors": 70,
    "bitsandbytes": 70,
}
_ACT_DTYPES = {
    "gptq": ["float16"],
    "awq": ["float16"],
    "gptq_marlin": ["float16", "bfloat16"],
    "awq_marlin": ["float16", "bfloat16"],
}


class ConfigError(Exception):
    """The configuration was refused; `title` is the object that pydantic names, or empty for a plain exception `kind`."""

    def __init__(self, title: str, message: str, kind: str = "ValueError") -> None:
        super().__init__(message)
        self.title, self.kind = title, kind

    def text(self) -> str:
        """The exception line as it appears at the end of the traceback."""
        if not self.title:
            return f"{self.kind}: {self}"
        return (
            f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {self.title}\n"
            f"  Value error, {self} [type=value_error, input_value=ArgsKwargs((), {{'model': ...}}), input_type=ArgsKwargs]\n"
            "    For further information visit https://errors.pydantic.dev/2.12/v/value_error"
        )


@dataclass(frozen=True)
class EngineConfig:
    """What an engine runs with."""

    model: Model
    served_names: list[str]
    dtype: str
    runner: str
    quantization: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    utilization: float
    kv_cache_memory_bytes: int
    kv_dtype_bytes: int
    blocks_override: int
    eager: bool
    prefix_caching: bool
    chunked_prefill: bool
    tensor_parallel: int
    shutdown_timeout: int
    auto_tool_choice: bool


def configure(arguments: argparse.Namespace, gpu: Gpu, log: Log) -> EngineConfig:
    """Derive and check; logs the lines of this stage. Raises ConfigError."""
    try:
        model = read_model(arguments.model)
    except NotARepository as error:
        raise ConfigError("", str(error), "huggingface_hub.errors.HFValidationError") from error
    except ModelError as error:
        raise ConfigError("ModelConfig", str(error)) from error
    log.info("model.py:549", f"Resolved architecture: {model.architecture}")
    capability = int(gpu["compute_cap"].replace(".", ""))
    runner = _runner(arguments, model)
    dtype = _dtype(arguments.dtype, model, gpu, capability, log)
    length = _length(arguments.max_model_len, model)
    log.info("model.py:1678", f"Using max model len {length}")
    quantization = _quantization(arguments.quantization, model, dtype, capability, log)
    batched = arguments.max_num_batched_tokens or min(2048, length * (arguments.max_num_seqs or 256))
    if runner == "pooling" and not arguments.max_num_batched_tokens:
        batched = max(batched, length)
    if not 0 < arguments.gpu_memory_utilization <= 1:
        below = arguments.gpu_memory_utilization <= 0
        bound = "greater than 0" if below else "less than or equal to 1"
        raise ConfigError("CacheConfig", f"Input should be {bound}")
    if arguments.tensor_parallel_size > 1:
        raise ConfigError(
            "ParallelConfig",
            f"World size ({arguments.tensor_parallel_size}) is larger than the number of available GPUs (1) in this node.",
        )
    if runner == "generate":
        log.info("scheduler.py:239", f"Chunked prefill is enabled with max_num_batched_tokens={batched}.")
        log.info("vllm.py:791", "Asynchronous scheduling is enabled.")
    elif arguments.enable_prefix_caching is None:
        log.info("vllm.py:791", "Asynchronous scheduling is disabled.")
    return EngineConfig(
        model=model,
        served_names=arguments.served_model_name or [arguments.model],
        dtype=dtype,
        runner=runner,
        quantization=quantization,
        max_model_len=length,
        max_num_seqs=arguments.max_num_seqs or 256,
        max_num_batched_tokens=batched,
        block_size=_block_size(arguments.block_size, gpu),
        utilization=arguments.gpu_memory_utilization,
        kv_cache_memory_bytes=arguments.kv_cache_memory_bytes or 0,
        kv_dtype_bytes=1 if str(arguments.kv_cache_dtype).startswith("fp8") else 2,
        blocks_override=arguments.num_gpu_blocks_override or 0,
        eager=bool(arguments.enforce_eager),
        prefix_caching=arguments.enable_prefix_caching
        if arguments.enable_prefix_caching is not None
        else runner == "generate",
        chunked_prefill=arguments.enable_chunked_prefill
        if arguments.enable_chunked_prefill is not None
        else runner == "generate",
        tensor_parallel=arguments.tensor_parallel_size,
        shutdown_timeout=arguments.shutdown_timeout,
        auto_tool_choice=bool(arguments.enable_auto_tool_choice),
    )


def _runner(arguments: argparse.Namespace, model: Model) -> str:
    runner: str = arguments.runner
    if runner == "auto":
        return "pooling" if model.pooling else "generate"
    if runner == "generate" and model.pooling:
        raise ConfigError("ModelConfig", "This model does not support `--runner generate`.")
    return runner


def _dtype(wanted: str, model: Model, gpu: Gpu, capability: int, log: Log) -> str:
    config_dtype = _DTYPES.get(model.dtype, "float16")
    if wanted == "auto":
        dtype = "float16" if config_dtype == "float32" else config_dtype
        if dtype == "bfloat16" and capability < 80:
            device = f"{gpu['name']!r} (with compute capability {gpu['compute_cap']})"
            log.warning(
                "model.py:1963",
                f"Your device {device} doesn't support torch.bfloat16. Falling back to torch.float16 for compatibility.",
            )
            dtype = "float16"
    else:
        dtype = _DTYPES[wanted]
    if dtype != config_dtype:
        if dtype == "float32":
            log.info("model.py:2009", f"Upcasting torch.{config_dtype} to torch.{dtype}.")
        elif config_dtype == "float32":
            log.info("model.py:2012", f"Downcasting torch.{config_dtype} to torch.{dtype}.")
        else:
            log.warning("model.py:2016", f"Casting torch.{config_dtype} to torch.{dtype}.")
    return dtype


def _length(wanted: int | None, model: Model) -> int:
    if wanted is None or wanted == -1:
        return model.derived_length
    if wanted > model.derived_length and os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") not in ("1", "true"):
        raise ConfigError(
            "ModelConfig",
            f"User-specified max_model_len ({wanted}) is greater than the derived max_model_len ({model.length_key}="
            f"{model.derived_length} or model_max_length=None in model's config.json). To allow overriding this maximum, set the env "
            "var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with extreme caution. If the model uses "
            "relative position encoding (RoPE), positions exceeding derived_max_model_len lead to nan. If the model uses absolute "
            "position encoding, positions exceeding derived_max_model_len will cause a CUDA array out-of-bounds error.",
        )
    return wanted


def _quantization(wanted: str | None, model: Model, dtype: str, capability: int, log: Log) -> str:
    method = wanted or model.quantization
    if not method:
        return ""
    if wanted and model.quantization and wanted not in (model.quantization, f"{model.quantization}_marlin"):
        raise ConfigError(
            "ModelConfig",
            f"Quantization method specified in the model config ({model.quantization}) does not match the quantization method "
            f"specified in the `quantization` argument ({wanted}).",
        )
    if method == "gptq" and capability >= _MIN_CAPABILITY["gptq_marlin"] and not wanted:
        log.info(
            "gptq_marlin.py:229", "The model is convertible to gptq_marlin during runtime. Using gptq_marlin kernel."
        )
        method = "gptq_marlin"
    minimum = _MIN_CAPABILITY.get(method, 70)
    if capability < minimum:
        raise ConfigError(
            "VllmConfig",
            f"The quantization method {method} is not supported for the current GPU. Minimum capability: {minimum}. "
            f"Current capability: {capability}.",
        )
    supported = _ACT_DTYPES.get(method)
    if supported and dtype not in supported:
        shown = "[" + ", ".join(f"torch.{name}" for name in supported) + "]"
        raise ConfigError(
            "VllmConfig", f"torch.{dtype} is not supported for quantization method {method}. Supported dtypes: {shown}"
        )
    if method == "gptq" and model.quantization_bits == 4:
        log.warning(
            "gptq.py:99", "Currently, the 4-bit gptq_gemm kernel for GPTQ is buggy. Please switch to gptq_marlin."
        )
    return method


def _block_size(wanted: int | None, gpu: Gpu) -> int:
    if wanted is None:
        return 16
    if wanted % 16:
        raise ConfigError(
            "VllmConfig",
            f"No valid attention backend found for cuda with block_size={wanted}. Reasons: {{TRITON_ATTN: [block_size not supported]}}.",
        )
    return wanted


def describe(config: EngineConfig) -> str:
    """The configuration as the engine's first line shows it (shortened)."""
    return (
        f"model='{config.model.name}', speculative_config=None, tokenizer='{config.model.name}', skip_tokenizer_init=False, "
        f"tokenizer_mode=auto, revision=None, trust_remote_code=False, dtype=torch.{config.dtype}, max_seq_len={config.max_model_len}, "
        f"download_dir=None, load_format=auto, tensor_parallel_size={config.tensor_parallel}, pipeline_parallel_size=1, "
        f"quantization={config.quantization or None}, enforce_eager={config.eager}, kv_cache_dtype=auto, device_config=cuda, seed=0, "
        f"served_model_name={config.served_names[0]}, enable_prefix_caching={config.prefix_caching}, "
        f"enable_chunked_prefill={config.chunked_prefill}"
    )


def to_json(config: EngineConfig, gpu: Gpu, load_started: float) -> str:
    """What the engine process is given on its command line; it reads the model directory itself."""
    plain = {name: value for name, value in vars(config).items() if name != "model"}
    return json.dumps({"model": config.model.name, "gpu": gpu, "load_started": load_started, "config": plain})


def from_json(text: str) -> tuple[EngineConfig, Gpu, float]:
    """The inverse of to_json."""
    content = json.loads(text)
    config = EngineConfig(model=read_model(content["model"]), **content["config"])
    return config, content["gpu"], content["load_started"]
