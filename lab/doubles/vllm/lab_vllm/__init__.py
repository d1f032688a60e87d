"""vLLM double: imitates the observable behaviour of `vllm serve` v0.19.1 without a model or a GPU. Standard library only."""

VERSION = "0.19.1"
