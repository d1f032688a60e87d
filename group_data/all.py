"""Settings of every host: versions, models, and where downloads come from."""

# Every version is pinned here and nowhere else. `latest` is refused.
versions = {
    # The last release with code for the V100 (compute capability 7.0); v0.20.0 and later have none.
    "vllm": "vllm/vllm-openai:v0.19.1",
    # Runs the P40 (6.1) with its CUDA 12 library; needs driver 570 or newer there.
    "ollama": "ollama/ollama:0.32.15",
    # Further engines, for fleets that use them (docs/engines.md). Built on the hosts from images/transformers.
    "transformers": "stoker/transformers:5.19.0-1",
    # CUDA 12, with code for all cards from compute capability 5.0 on.
    "llama-cpp": "ghcr.io/ggml-org/llama.cpp:server-cuda-b11312",
    # From Ampere on only (8.0).
    "sglang": "lmsysorg/sglang:v0.5.6-cu126",
    "tensorrt-llm": "nvcr.io/nvidia/tensorrt-llm/release:1.1.0",
    # A page for managing Ollama's models, where a stack has a `web_ui`.
    "open_webui": "ghcr.io/open-webui/open-webui:v0.11.3",
    # Stable branch with the fixes of 1.30.6 and njs 1.0.1 or newer (CVE-2026-18329 in older njs).
    "nginx": "nginx:1.30.6-alpine",
    # 28.2 and later hand GPUs to containers by CDI, which a `systemctl daemon-reload` does not undo.
    "docker": "28.5.2",
    # The last of the 2.x line.
    "compose": "2.40.3",
    "container_toolkit": "1.20.0-1",
    # The last driver branch for Volta and Pascal (V100, P40); supported to June 2028. Held on every host that has it.
    "driver_branch": 580,
}

# Models by the name under which they are served.
models = {
    "llama3.1-8b": {
        "repository": "hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4",
        "directory": "Meta-Llama-3.1-8B-Instruct-GPTQ-INT4",
    },
    "qwen2.5-14b": {
        "repository": "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8",
        "directory": "Qwen2.5-14B-Instruct-GPTQ-Int8",
    },
    "bge-m3": {
        # Pulled as bge-m3:567m, served as bge-m3 with a context of 8192 tokens: Ollama would cut texts at 2048.
        "library": "bge-m3:567m",
        "parameters": {"num_ctx": 8192, "num_batch": 8192},
        "dimensions": 1024,
    },
}

# Where downloads come from; the defaults are the publishers' own addresses (stoker/spec/settings.py lists all).
# Behind a slow or closed network, for instance:
# mirrors = {"images": {"ghcr.io": "ghcr.example.org"}, "hub": "https://hf-mirror.com", "registries": ["https://registry.example.org"]}
# proxy = {"http": "http://proxy.example.org:3128", "https": "http://proxy.example.org:3128"}

# Bring the driver to hosts that have none, with at most one reboot (docs/operations.md):
# nvidia = {"install_driver": True}

# Names of environment variables on this machine that hold secrets, for instance a token for gated models:
# keys = {"hub": "HF_TOKEN"}
