"""Stoker: bare Linux machines with NVIDIA GPUs to a working, verified LLM service, over SSH."""

__version__ = "0.1.0"
