"""The `ollama` command of the double."""

from __future__ import annotations

import sys

from lab_ollama import VERSION

USAGE = """Large language model runner (simulated by the lab)

Usage:
  ollama [flags]
  ollama [command]

Available Commands:
  serve       Start Ollama
  create      Create a model
  show        Show information for a model
  run         Run a model
  stop        Stop a running model
  pull        Pull a model from a registry
  list        List models
  ps          List running models
  cp          Copy a model
  rm          Remove a model

Flags:
  -h, --help      help for ollama
  -v, --version   Show version information
"""


def main() -> int:
    """Run one command line; returns the exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    command, *rest = arguments
    if command in ("-v", "--version"):
        print(f"ollama version is {VERSION}")
        return 0
    if command in ("serve", "start"):
        from lab_ollama.server import serve

        return serve()
    if command in ("list", "ls", "ps", "pull", "show", "create", "rm", "cp", "run", "stop"):
        from lab_ollama.client import run

        return run(command, rest)
    print(f'Error: unknown command "{command}" for "ollama"', file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
