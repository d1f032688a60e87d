"""What of an engine's service stands elsewhere in a description, or is not needed: arguments and variables with the reason. Facts: v0.19.1."""

from __future__ import annotations

#: Arguments that Stoker does not take over -> why.
DROPPED = {
    "trust-remote-code": "it runs code from the model's repository, and vLLM has this model's own; add it again if the repository "
    "holds code that the model needs, and you have read it",
    "enable-prefix-caching": "it is the default in v0.19.1",
    "enable-chunked-prefill": "it is the default in v0.19.1",
    "host": "the engine listens inside its container, where Stoker publishes it",
    "port": "the engine listens inside its container, where Stoker publishes it",
    "download-dir": "Stoker brings the files into the stack's model_directory and verifies them",
    "api-key": "an argument shows in the process list; keys belong to the gateway (stoker key new), and `strict` closes the engine's own port",
    "hf-token": "an argument shows in the process list; models are fetched before: `keys` in all.py names a variable of this machine",
}

#: Values of the removed argument `task` that mean an embedding model.
POOLING_TASKS = ("embed", "embedding", "score", "classify", "reward", "token_embed")

#: Variables that nothing in vLLM's image reads, and that people took for settings -> the argument that they mean.
MEANT = {
    "MAX_MODEL_LEN": "max-model-len",
    "GPU_MEMORY_UTILIZATION": "gpu-memory-utilization",
    "TENSOR_PARALLEL_SIZE": "tensor-parallel-size",
    "MAX_NUM_SEQS": "max-num-seqs",
    "DTYPE": "dtype",
    "QUANTIZATION": "quantization",
}
MEANT_MODEL = "MODEL_NAME"

_CARDS = "the instance's cards stand in `gpus`, and Stoker hands over those"
_SECRET = "secrets are never in group_data; `keys` in all.py names the variable of this machine that holds it"
_PROXY = "it is the setting `proxy` of all.py"

#: Variables that Stoker sets itself or that stand elsewhere -> why. For every engine.
VARIABLES = {
    "NVIDIA_VISIBLE_DEVICES": _CARDS,
    "CUDA_VISIBLE_DEVICES": _CARDS,
    "NVIDIA_DRIVER_CAPABILITIES": "how a card is handed over is Stoker's",
    "HF_TOKEN": _SECRET,
    "HUGGING_FACE_HUB_TOKEN": _SECRET,
    "HUGGINGFACE_HUB_TOKEN": _SECRET,
    "VLLM_API_KEY": "keys belong to the gateway (stoker key new), and `strict` closes the engine's own port",
    "HF_ENDPOINT": "it is the setting `mirrors`['hub'] of all.py",
    "HF_HOME": "the files lie in the stack's model_directory",
    "HF_HUB_OFFLINE": "Stoker sets it: the files are there and verified before an engine starts",
    "TRANSFORMERS_OFFLINE": "Stoker sets HF_HUB_OFFLINE: the files are there and verified before an engine starts",
    "HTTP_PROXY": _PROXY,
    "HTTPS_PROXY": _PROXY,
    "ALL_PROXY": _PROXY,
    "NO_PROXY": _PROXY,
    "OLLAMA_HOST": "the engine listens inside its container, where Stoker publishes it",
    "OLLAMA_MODELS": "the files lie in the stack's model_directory",
    "OLLAMA_NOPRUNE": "Stoker sets it",
    "OLLAMA_NUM_PARALLEL": "Ollama serves an embedding model one request at a time (server/sched.go)",
}

#: Only with several cards.
ONE_CARD = {"NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "NCCL_SHM_DISABLE", "NCCL_SOCKET_IFNAME", "NCCL_DEBUG"}
WHY_ONE_CARD = "it has no effect with one card an instance"
