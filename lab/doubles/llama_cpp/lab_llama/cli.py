"""The `llama-server` program of the double."""

from __future__ import annotations

import os
import sys

from lab_gpu import accounting
from lab_gpu.machine import Gpu, cuda_gpus, read_machine
from lab_gpu.smi import driver_failure

from lab_llama import BUILD, COMMIT, VERSION
from lab_llama.arguments import Ends, Refused, parse
from lab_llama.log import plain

MIB = 1024**2
NO_CARD = (
    "warning: no usable GPU found, --gpu-layers option will be ignored",
    "warning: one possible reason is that llama.cpp was compiled without GPU support",
    "warning: consult docs/build.md for compilation instructions",
)
NO_MODEL = "the lab's double has no router mode: give --model"


def main() -> int:
    """Run one command line; returns the exit code (1: refused, or the model cannot be loaded)."""
    arguments = sys.argv[1:]
    cards = cuda_gpus(read_machine()) if driver_failure() is None else []
    if not cards:
        plain("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected")
    try:
        options = parse(arguments, os.environ)
    except Refused as refusal:
        plain(str(refusal))
        return 1
    except Ends as asked:
        _show(str(asked), cards)
        return 0
    if options.gpu_layers is not None and not cards:
        plain("\n".join(NO_CARD))
    if not options.model:
        plain(NO_MODEL)
        return 1
    from lab_llama.server import serve

    return serve(options, cards)


def _show(option: str, cards: list[Gpu]) -> None:
    if option == "--version":
        plain(
            f"version: {VERSION} (build {BUILD}, commit {COMMIT})\nbuilt with GNU 14.2.0 for Linux x86_64 (simulated by the Stoker lab)"
        )
    elif option == "--list-devices":
        rows = [
            f"  CUDA{number}: {card['name']} ({card['usable_mib']} MiB, {accounting.free_bytes(card) // MIB} MiB free)"
            for number, card in enumerate(cards)
        ]
        print("\n".join(["Available devices:", *(rows or ["  (none)"])]))
    else:
        print("llama-server (simulated by the Stoker lab); the options are in arguments.json")


if __name__ == "__main__":
    sys.exit(main())
