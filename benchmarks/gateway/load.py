"""One run of wrk against a subject, and what it cost."""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.programs import LOAD_CORE, Started, inside, machine_busy_seconds
from benchmarks.gateway.subjects import MODEL, PATH, Subject

_SCRIPT = """
local file = assert(io.open("/bench/" .. os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
for line in os.getenv("HEADERS"):gmatch("[^\\n]+") do
    local name, value = line:match("^(.-): (.*)$")
    wrk.headers[name] = value
end
local pause = tonumber(os.getenv("PAUSE_MS"))
if pause > 0 then
    delay = function() return math.random(0, 2 * pause) end
end
done = function(summary, latency)
    local failed = summary.errors
    io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        failed.connect + failed.read + failed.write + failed.timeout + failed.status))
end
"""


@dataclass(frozen=True)
class Sample:
    """What one run of wrk showed."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int
    #: CPU time of the subject's processes for each request, microseconds; 0 without a proxy.
    cpu_us: float
    #: Cores that programs other than the measure's kept busy meanwhile.
    others: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class Load:
    """wrk with its script and its bodies."""

    def __init__(self, directory: Path, sizes: Mapping[str, int]) -> None:
        self._directory = directory
        directory.mkdir(parents=True)
        (directory / "post.lua").write_text(_SCRIPT)
        for name, size in sizes.items():
            (directory / name).write_bytes(body(size))

    def run(
        self,
        subject: Subject,
        started: Started | None,
        own: Iterable[Started],
        size: str,
        connections: int,
        seconds: int,
        pause_ms: float = 0,
        first: bool = False,
    ) -> Sample:
        """``own``: all programs of the measure, to tell their load from that of others."""
        headers = "\n".join(f"{name}: {value}" for name, value in subject.headers.items())
        environment = {**os.environ, "BODY": size, "HEADERS": headers, "PAUSE_MS": f"{pause_ms:.0f}"}
        url = f"http://127.0.0.1:{subject.port}{PATH}"
        wrk = [
            "/usr/bin/wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "30s",
            "-s",
            "/bench/post.lua",
            url,
        ]
        own = list(own)
        busy, ours, spent = machine_busy_seconds(), _ours(own), started.cpu_seconds() if started else 0.0
        done = subprocess.run(
            [
                *(["chrt", "--fifo", "1"] if first else []),
                "taskset",
                "-c",
                str(LOAD_CORE),
                *inside(self._directory, *wrk),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        spent = (started.cpu_seconds() if started else 0.0) - spent
        others = (machine_busy_seconds() - busy) - (_ours(own) - ours)
        found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
        if not found:
            raise RuntimeError(f"wrk said nothing of {subject.name}: {done.stdout}{done.stderr}")
        requests, duration, p50, p99, failed = map(int, found.groups())
        return Sample(
            requests,
            duration / 1e6,
            p50 / 1e3,
            p99 / 1e3,
            failed,
            spent / max(1, requests) * 1e6,
            max(0.0, others / seconds),
        )


def _ours(own: list[Started]) -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(one.ru_utime + one.ru_stime for one in usage) + sum(one.cpu_seconds() for one in own)


def body(size: int) -> bytes:
    """A chat request of so many bytes, its model last as the OpenAI client writes it."""
    head, tail = '{"messages": [{"role": "user", "content": "', f'"}}], "model": "{MODEL}"}}'
    text = 'The quick \\"brown\\" fox. ' * (size // 20 + 1)
    filling = text[: size - len(head) - len(tail)]
    filling = filling.rstrip("\\") + " " * (len(filling) - len(filling.rstrip("\\")))
    whole = (head + filling + tail).encode()
    assert (len(whole), json.loads(whole)["model"]) == (size, MODEL)
    return whole


def best(samples: Iterable[Sample]) -> dict[str, float]:
    """The best of each figure: whatever else runs on the machine can only make them worse."""
    samples = list(samples)
    return {
        "requests_per_second": round(max(sample.rate for sample in samples), 1),
        "p50_ms": round(min(sample.p50_ms for sample in samples), 3),
        "p99_ms": round(min(sample.p99_ms for sample in samples), 3),
        "median_p99_ms": round(statistics.median(sample.p99_ms for sample in samples), 3),
        "cpu_us": round(min(sample.cpu_us for sample in samples), 1),
        "failed": sum(sample.failed for sample in samples),
        "other_load_cores": round(statistics.median(sample.others for sample in samples), 2),
    }


class Peak:
    """The most resident memory of a program while the block runs, KiB."""

    def __init__(self, started: Started) -> None:
        self._started, self._end = started, threading.Event()
        self.kib = started.resident_kib()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.kib = max(self.kib, self._started.resident_kib())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
