"""One model on three engines behind one gateway, to compare them: vLLM, Transformers and llama.cpp."""

gpus = {"count": 3, "card": "V100", "memory_gib": 32}

# The same weights twice, and as GGUF with 4 bits, which is what llama.cpp is mostly used with. A name for each engine, so that a
# request says which one it means.
models = {
    "qwen3-4b-vllm": {"repository": "Qwen/Qwen3-4B", "directory": "Qwen3-4B"},
    "qwen3-4b-transformers": {"repository": "Qwen/Qwen3-4B", "directory": "Qwen3-4B"},
    "qwen3-4b-llama-cpp": {
        "repository": "Qwen/Qwen3-4B-GGUF",
        "directory": "Qwen3-4B-GGUF",
        "file": "Qwen3-4B-Q4_K_M.gguf",
    },
}

stacks = [
    {
        "project": "engines",
        "compose_file": "engines.yaml",
        "model_directory": "/data/projects/models",
        "instances": [
            {
                "name": "vllm",
                "engine": "vllm",
                "model": "qwen3-4b-vllm",
                "gpus": [0],
                "port": 8001,
                "arguments": {
                    "dtype": "half",
                    "gpu-memory-utilization": 0.9,
                    "max-model-len": 8192,
                    "max-num-seqs": 16,
                },
            },
            {
                "name": "transformers",
                "engine": "transformers",
                "model": "qwen3-4b-transformers",
                "gpus": [1],
                "port": 8002,
                "arguments": {"dtype": "half", "max-model-len": 8192},
            },
            {
                "name": "llama_cpp",
                "engine": "llama-cpp",
                "model": "qwen3-4b-llama-cpp",
                "gpus": [2],
                "port": 8003,
                "arguments": {"ctx-size": 8192, "parallel": 1},
            },
        ],
        "gateway": {
            "container": "engines_nginx",
            "service": "nginx",
            "port": 11434,
            "config_file": "nginx-engines.conf",
            "allowed_networks": ["192.168.31.0/24"],
            "pools": [
                {"name": "vllm", "model": "qwen3-4b-vllm", "kind": "chat", "prefix": "/vllm", "default": True},
                {"name": "transformers", "model": "qwen3-4b-transformers", "kind": "chat", "prefix": "/transformers"},
                {"name": "llama", "model": "qwen3-4b-llama-cpp", "kind": "chat", "prefix": "/llama-cpp"},
            ],
        },
    },
]
