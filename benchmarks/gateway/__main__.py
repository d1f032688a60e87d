"""What the gateway costs, against the same backend and one after the other in one run: directly, plain nginx, this gateway, HAProxy, LiteLLM.

    .venv/bin/python -m benchmarks.gateway

Root, Debian's package mirror, two cores, some four minutes. The proxies are pinned to one core and what loads them to the other. LiteLLM is
measured when a ``litellm`` is on the PATH. Prints tables, and writes benchmarks/results/gateway.json and gateway.svg.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gateway import report, stream, subjects
from benchmarks.gateway.load import Load, Peak, Sample, best
from benchmarks.gateway.programs import LOAD_CORE, PROXY_CORE, Started, free_port, running, version
from benchmarks.gateway.subjects import MEMBERS, Subject
from benchmarks.lab import RESULTS, ROOT

#: The file's name -> bytes.
SIZES = {"300 B": 300, "1 KB": 1000, "16 KB": 16_000}
LARGE = {"5 MB": 5_000_000}
CONNECTIONS = 32
ROUNDS = 4
BREAK_SECONDS = 0.5
STREAMS = 150
LEAK_REQUESTS = 500_000
LEAK_STEPS = 5

PLAIN, GATEWAY = "nginx proxy_pass", "this gateway"


class Measure:
    """All subjects running, each idle while another is measured."""

    def __init__(self, work: Path, stack: contextlib.ExitStack) -> None:
        self.work, self.stack = work, stack
        self.not_measured: dict[str, str] = {}
        self.load = Load(work / "load", {**SIZES, **LARGE})
        ports = [free_port() for _ in range(MEMBERS)]
        self.started: dict[str, Started] = {}
        self.backend = self._start(subjects.backend(work / "backend", ports), LOAD_CORE, ports[0], "backend")
        self.direct = Subject("direct", ports[0])
        self.subjects = self._started(self._configured(work / "fast", ports, steps=True))

    def _configured(self, directory: Path, ports: list[int], steps: bool) -> list[Subject]:
        found = [subjects.plain(directory / "plain", ports, PLAIN)]
        if steps:
            found += [subjects.plain(directory / name, ports, name, script) for name, script in subjects.STEPS.items()]
        found += [subjects.gateway(directory / "gateway", ports), subjects.haproxy(directory / "haproxy", ports)]
        if other := subjects.litellm(directory / "litellm", ports):
            found.append(other)
        else:
            self.not_measured["LiteLLM"] = subjects.environment_hint()
        return found

    def _started(self, wanted: list[Subject]) -> list[Subject]:
        up = []
        for subject in wanted:
            try:
                log = f"{subject.name}-{subject.port}"
                self.started[subject.name] = self._start(
                    subject.command, PROXY_CORE, subject.port, log, subject.patience
                )
                up.append(subject)
            except RuntimeError as error:
                self.not_measured[subject.name] = str(error)
        return up

    def _start(self, command: list[str], core: int, port: int, name: str, patience: float = 20) -> Started:
        return self.stack.enter_context(running(command, core, port, self.work / f"{name}.log", patience))

    def run(
        self, subject: Subject, size: str, connections: int, seconds: int, pause_ms: float = 0, first: bool = False
    ) -> Sample:
        started, own = self.started.get(subject.name), [self.backend, *self.started.values()]
        return self.load.run(subject, started, own, size, connections, seconds, pause_ms, first)

    # --- the parts ---

    def rates(self) -> dict[str, Any]:
        """Each subject's most, in turns.

        The measure's own programs go before all others here, in bursts of a second with breaks, since a share of a core that others
        take would be missing in one subject's figure and not in another's.
        """
        result: dict[str, Any] = {}
        self._go_first(True)
        for size in SIZES:
            samples: dict[str, list[Sample]] = {}
            for number in range(ROUNDS + 1):
                for subject in [self.direct, *self.subjects]:
                    slow = subject.name.startswith("LiteLLM")
                    if (subject.step and size != "1 KB") or (slow and number > 1):
                        continue
                    sample = self.run(subject, size, CONNECTIONS, 3 if slow else 1, first=True)
                    time.sleep(BREAK_SECONDS)
                    if number:  # the first one warms it up
                        samples.setdefault(subject.name, []).append(sample)
            rows = {name: best(found) for name, found in samples.items()}
            plain = rows[PLAIN]["requests_per_second"]
            result[size] = {
                name: {**row, "of_plain": round(row["requests_per_second"] / plain, 4)} for name, row in rows.items()
            }
        self._go_first(False)
        return result

    def half_load(self, rates: dict[str, Any]) -> dict[str, Any]:
        """Each at half of its own most, and at the same rate directly.

        A time slice of any other program would be the 99th percentile, so the measure's own programs go first here too. At half
        load they leave the others their share.
        """
        result: dict[str, Any] = {}
        self._go_first(True)
        connections = 2 * CONNECTIONS
        for subject in self.subjects:
            if subject.step:
                continue
            pause = connections / (rates["1 KB"][subject.name]["requests_per_second"] / 2) * 1000
            rounds = [
                tuple(self.run(one, "1 KB", connections, 2, pause, first=True) for one in (self.direct, subject))
                for _ in range(ROUNDS)
            ]
            direct, through = best(one for one, _ in rounds), best(one for _, one in rounds)
            added = {
                f"added_{key}": round(through[key] - direct[key], 3) for key in ("p50_ms", "p99_ms", "median_p99_ms")
            }
            result[subject.name] = {**through, **added}
        self._go_first(False)
        return result

    def _go_first(self, first: bool) -> None:
        for started in (self.backend, *self.started.values()):
            started.go_first(first)

    def large(self) -> dict[str, Any]:
        result = {}
        connections = 4
        for subject in self.subjects:
            if subject.name not in (PLAIN, GATEWAY):
                continue
            idle = self.started[subject.name].resident_kib()
            with Peak(self.started[subject.name]) as peak:
                sample = self.run(subject, "5 MB", connections, 2)
            mib = round((peak.kib - idle) / 1024 / connections, 1)
            result[subject.name] = {**best([sample]), "mib_a_connection": mib}
        return result

    def memory(self) -> list[dict[str, float]]:
        gateway = next(subject for subject in self.subjects if subject.name == GATEWAY)
        done, found = 0, []
        for step in range(LEAK_STEPS + 1):
            while done < step * LEAK_REQUESTS / LEAK_STEPS:
                done += self.run(gateway, "300 B", CONNECTIONS, 2).requests
            found.append({"requests": done, "resident_mib": round(self.started[GATEWAY].resident_kib() / 1024, 1)})
        return found

    def first_piece(self) -> dict[str, Any]:
        ports = [free_port() for _ in range(MEMBERS)]
        command = [sys.executable, "-m", "benchmarks.gateway.stream", *map(str, ports)]
        self._start(command, LOAD_CORE, ports[0], "streams")
        direct = Subject("direct", ports[0])
        wanted = self._configured(self.work / "streaming", ports, steps=False)
        return {subject.name: stream.first_piece_ms(subject, direct, STREAMS) for subject in self._started(wanted)}


def aims(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The aims of the gateway's cost, and what came of them."""
    small, first = result["load"]["1 KB"], result["first_piece"][GATEWAY]["added_p50_ms"]
    share, late = small[GATEWAY]["of_plain"], result["half_load"][GATEWAY]["added_p99_ms"]
    found = [
        {"aim": "at least 0.8 of plain proxy_pass at 1 KB", "measured": share, "met": share >= 0.8},
        {"aim": "p99 added at half load below 2 ms", "measured": late, "met": late < 2},
        {"aim": "a stream's first piece less than 1 ms later at the median", "measured": first, "met": first < 1},
    ]
    if other := next((row for name, row in small.items() if name.startswith("LiteLLM")), None):
        times = round(small[GATEWAY]["requests_per_second"] / other["requests_per_second"])
        found.append({"aim": "at least 100 times LiteLLM", "measured": times, "met": times >= 100})
    return found


def main() -> None:
    os.chdir(ROOT)
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="stoker-bench.") as name, contextlib.ExitStack() as stack:
        measure = Measure(Path(name), stack)
        rates = measure.rates()
        result: dict[str, Any] = {
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{subjects.cpu_name()}, {os.cpu_count()} cores, Linux {platform.release()}; proxies on one core, wrk and the backend on another",
            "versions": {"nginx": version("/usr/sbin/nginx", "-v"), "haproxy": version("/usr/sbin/haproxy", "-v")},
            "connections": CONNECTIONS,
            "load": rates,
            "half_load": measure.half_load(rates),
            "large_bodies": measure.large(),
            "memory": measure.memory(),
            "first_piece": measure.first_piece(),
            "not_measured": measure.not_measured,
        }
    result["aims"] = aims(result)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gateway.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    report.write_plot(result, RESULTS / "gateway.svg")
    report.print_table(result)


if __name__ == "__main__":
    main()
