"""The `transformers` command of the double: `transformers serve MODEL [options]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from lab_gpu import accounting, settings
from lab_gpu.machine import Gpu, cuda_gpus, read_machine
from lab_gpu.smi import driver_failure
from lab_serve.http import HttpServer

from lab_transformers.api import Api

GIB = 1024**3
CONTEXT_BYTES = 400 * 1024**2  # of a CUDA context, as in the double of vLLM
LOAD_SECONDS = 2.0


def main() -> int:
    """Run one command line; returns the exit code (1 failure, 2 refused arguments)."""
    parser = argparse.ArgumentParser(prog="transformers")
    serve = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("serve")
    serve.add_argument("model")
    serve.add_argument("--host", default="localhost")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--device", default="auto")
    serve.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    directory = Path(options.model)
    fault, _ = settings.fault(directory.name)
    try:
        held = _load(directory, options.device, fault)
        code = asyncio.run(_serve(options, Api(options.model, directory.name)))
    except (RuntimeError, OSError, ImportError) as error:
        print(f"Traceback (most recent call last):\n{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    if held:
        held.close()
    return code


def _gpu(device: str) -> Gpu | None:
    if device == "cpu":
        return None
    gpus = cuda_gpus(read_machine()) if driver_failure() is None else []
    if not gpus and device.startswith("cuda"):
        raise RuntimeError(
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from "
            "http://www.nvidia.com/Download/index.aspx"
        )
    return gpus[0] if gpus else None


def _load(directory: Path, device: str, fault: str) -> accounting.Allocation | None:
    """Before the server is made, as in 5.19.0: nothing listens until the model is in memory."""
    if not (directory / "config.json").is_file():
        raise OSError(f"{directory} does not appear to have a file named config.json. (simulated)")
    print(f"Loading {directory}@main", file=sys.stderr, flush=True)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if (config.get("quantization_config") or {}).get("quant_method") == "gptq":
        raise ImportError("Loading a GPTQ quantized model requires optimum (`pip install optimum`)")
    try:
        note = json.loads((directory / "lab-weights.json").read_text(encoding="utf-8"))
        size = int((note["weights_gib"] + note.get("other_gib", 1.0)) * GIB)
    except FileNotFoundError:
        size = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    gpu = _gpu(device)
    held = accounting.Allocation(gpu, "/opt/stoker/venv/bin/python3") if gpu else None
    if held and gpu:
        held.set(CONTEXT_BYTES)
    for step in range(1, 11):
        if fault == "crash-loading" and step == 5:
            raise RuntimeError("CUDA error: unspecified launch failure (simulated)")
        while fault == "hang-loading" and step == 5:
            time.sleep(1)
        if held and gpu:
            wanted = CONTEXT_BYTES + size * step // 10
            free = accounting.free_bytes(gpu)
            if fault == "oom-start" or wanted - held.size > free:
                print("Traceback (most recent call last):", file=sys.stderr)
                kind = "torch.OutOfMemoryError: CUDA out of memory."
                about = f"GPU 0 has a total capacity of {gpu['usable_mib'] / 1024:.2f} GiB of which {max(free, 0) / GIB:.2f} GiB is free."
                print(
                    f"{kind} Tried to allocate {(wanted - held.size) / GIB:.2f} GiB. {about}",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)
            held.set(wanted)
        time.sleep(settings.number("load_seconds", LOAD_SECONDS) / 10)
        print(f"Loading weights: {step * 10:3d}%", file=sys.stderr, flush=True)
    return held


async def _serve(options: argparse.Namespace, api: Api) -> int:
    def log(_path: str, line: str) -> None:
        print(line, flush=True)

    http = HttpServer(api.handle, log, name="uvicorn")
    log("", f"INFO:     Started server process [{os.getpid()}]")
    server = await asyncio.start_server(http.connection, options.host, options.port)
    log("", f"INFO:     Uvicorn running on http://{options.host}:{options.port} (Press CTRL+C to quit)")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()
    await http.finish()
    # uvicorn ends by the signal that it got.
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    return 0


if __name__ == "__main__":
    sys.exit(main())
