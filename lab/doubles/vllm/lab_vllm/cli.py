"""The `vllm` command of the double."""

from __future__ import annotations

import sys
import traceback

from lab_gpu.machine import cuda_gpus, read_machine
from lab_gpu.smi import driver_failure

from lab_vllm import arguments

NO_DEVICE = (
    "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose "
    "logging to help debug the issue."
)


def main() -> int:
    """Run one command line; returns the exit code (0, 1 failure, 2 refused arguments)."""
    gpus = cuda_gpus(read_machine()) if driver_failure() is None else []
    if not gpus:
        # v0.19.1 looks for the device while it builds its parser, so even --help and --version fail without a GPU.
        trace = "".join(traceback.format_stack(limit=1))
        print(f"Traceback (most recent call last):\n{trace}{NO_DEVICE}", file=sys.stderr)
        return 1
    try:
        parsed = arguments.parse(sys.argv[1:])
    except (ValueError, TypeError, OSError, AssertionError, IndexError):
        traceback.print_exc()
        return 1
    if parsed.subparser != "serve":
        print(f"vllm {parsed.subparser or ''}: the lab's double has only `vllm serve`", file=sys.stderr)
        return 1
    from lab_vllm.server import Server

    return Server(parsed, gpus[0]).run()


if __name__ == "__main__":
    sys.exit(main())
