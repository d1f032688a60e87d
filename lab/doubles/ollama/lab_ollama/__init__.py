"""Ollama double: imitates the observable behaviour of Ollama 0.32.15 with an embedding model. Standard library only."""

VERSION = "0.32.15"
