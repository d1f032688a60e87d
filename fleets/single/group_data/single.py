"""One vLLM service for an application, with a model from a directory on the host; settings come from the environment."""

from pathlib import Path as _Path

from stoker.given import arguments as _arguments
from stoker.given import number as _number
from stoker.given import share as _share
from stoker.given import text as _text

# OWNER/NAME is downloaded from the hub and verified; a plain name is a directory that you put below /data/models yourself.
_MODEL_NAME = _text("MODEL_NAME", "Qwen3-4B")
_SERVED_AS = _text("SERVED_NAME", "Qwen3-4B-I-chat")
# Each on cards of its own, behind the gateway.
_REPLICAS = _number("REPLICAS", 1)

# Arguments of vLLM, one a line: the place of the `--config` of a container that was made by hand. The environment stands above it.
_CONFIG = _arguments(_Path(__file__).parents[1] / "vllm_config.yaml")

_TENSOR_PARALLEL_SIZE = _number("TENSOR_PARALLEL_SIZE", _CONFIG.get("tensor-parallel-size", 1))

gpus = {"count": 2, "card": "RTX", "memory_gib": 24}
models = {
    _SERVED_AS: {"repository": _MODEL_NAME, "directory": _MODEL_NAME.rpartition("/")[2]}
    if "/" in _MODEL_NAME
    else {"directory": _MODEL_NAME},
}

stacks = [
    {
        "project": "single",
        "compose_file": "single.yaml",
        "model_directory": "/data/models",
        # Another model is another instance: one container serves one model.
        "instances": [
            {
                "name": "vllm" if number == 0 else f"vllm-{number + 1}",
                "engine": "vllm",
                "model": _SERVED_AS,
                "gpus": list(range(number * _TENSOR_PARALLEL_SIZE, (number + 1) * _TENSOR_PARALLEL_SIZE)),
                "port": 8000 + number,
                "arguments": {
                    **_CONFIG,
                    "max-model-len": _number("MAX_MODEL_LEN", _CONFIG.get("max-model-len", 2048)),
                    "gpu-memory-utilization": _share(
                        "GPU_MEMORY_UTILIZATION", _CONFIG.get("gpu-memory-utilization", 0.9)
                    ),
                    "tensor-parallel-size": _TENSOR_PARALLEL_SIZE,
                },
            }
            for number in range(_REPLICAS)
        ],
        "gateway": {
            "container": "single_nginx",
            "service": "nginx",
            "port": 8080,
            "config_file": "nginx-single.conf",
            "allowed_networks": ["192.168.31.0/24", "172.16.0.0/12"],
            "pools": [{"name": "chat", "model": _SERVED_AS, "kind": "chat", "default": True}],
        },
    },
]
