"""What nvidia-smi prints, in every format, for many cards; tests/data/nvidia-smi/SOURCES.toml says what each output tells."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.smi import MigDevice, read

from stoker.facts.gpus import GPU_FIELDS, Gpu, GpuProcess, bus_id, kernel_module, number, processes, queried, trouble

DATA = Path(__file__).resolve().parents[1] / "data" / "nvidia-smi"
SOURCES: dict[str, dict[str, Any]] = tomllib.loads((DATA / "SOURCES.toml").read_text(encoding="utf-8"))

ROW = "0, GPU-1, Tesla P40, 23040, 6.1, 580.173.02, 00000000:3B:00.0, 312, Enabled, [N/A]"
P40 = Gpu(0, "GPU-1", "Tesla P40", 23040, "6.1", "0000:3b:00.0", 312, True, None)


def text(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


def test_every_output_has_a_source_and_every_source_an_output() -> None:
    files = {path.name for path in DATA.iterdir()} - {"SOURCES.toml"}
    assert files == set(SOURCES)
    assert all(entry["source"].startswith("https://") for entry in SOURCES.values())


def test_enough_outputs_are_of_real_machines() -> None:
    verbatim = {name: entry for name, entry in SOURCES.items() if not entry.get("made")}
    names = {gpu["name"] for entry in verbatim.values() for gpu in entry.get("gpus", ())}
    assert len(verbatim) >= 20
    # A name that was cut may be that of another card here.
    assert len({name.removeprefix("NVIDIA ") for name in names if name and not name.endswith("...")}) >= 12
    assert {name.partition("-")[0] for name in verbatim} == {"csv", "list", "q", "table", "trouble", "x"}
    head = (DATA / "SOURCES.toml").read_text(encoding="utf-8").partition("[")[0]
    assert f"# {len(verbatim)} are verbatim" in head
    assert f"{len(SOURCES) - len(verbatim)} of them" in head


@pytest.mark.parametrize("name", SOURCES)
def test_an_output_says_what_its_source_says(name: str) -> None:
    expected = SOURCES[name]
    report = read(text(name))
    assert report.driver == expected.get("driver", "")
    assert report.cuda == expected.get("cuda", "")
    assert report.trouble == expected.get("trouble", "")
    wanted = [
        Gpu(
            index=index,
            uuid=gpu.get("uuid", ""),
            name=gpu["name"],
            memory_mib=gpu.get("memory_mib", 0),
            compute_capability="",
            bus_id=gpu.get("bus_id", ""),
            used_mib=gpu.get("used_mib"),
            ecc=gpu.get("ecc"),
            mig=gpu.get("mig"),
        )
        for index, gpu in enumerate(expected.get("gpus", ()))
    ]
    assert list(report.gpus) == wanted
    assert len(report.processes) == expected.get("processes", 0)
    assert len(report.mig_devices) == expected.get("mig", 0)


def test_processes_of_a_table() -> None:
    assert read(text("table-l40s.txt")).processes == (
        GpuProcess("0", 35577, "VLLM::Worker_TP0", 43138),
        GpuProcess("1", 35578, "VLLM::Worker_TP1", 43138),
    )
    assert read(text("table-gtx-1080.txt")).processes == (
        GpuProcess("0", 1013, "/usr/lib/xorg/Xorg", 92),
        GpuProcess("0", 1736, "compiz", 63),
        GpuProcess("0", 1893, "fcitx-qimpanel", 6),
    )
    assert (
        GpuProcess("0", 34976, r"...r\frontend\Docker Desktop.exe", None) in read(text("table-windows.txt")).processes
    )


def test_processes_of_a_log() -> None:
    uuid = "GPU-e1f55e56-2016-d918-7dd5-7cd29c440e50"
    assert read(text("q-rtx-4090.txt")).processes == (
        GpuProcess(uuid, 20, "/Xwayland", None),
        GpuProcess(uuid, 20, "/Xwayland", None),
        GpuProcess(uuid, 23, "/Xwayland", None),
    )


def test_processes_of_xml() -> None:
    (plex, hidden) = read(text("x-quadro-p2000.xml")).processes
    assert (plex.pid, plex.name, plex.used_mib) == (31337, "/usr/lib/plexmediaserver/Plex Transcoder", 229)
    assert (hidden.pid, hidden.used_mib) == (31400, None)


def test_parts_of_a_divided_card() -> None:
    assert read(text("table-a100-mig.txt")).mig_devices == (MigDevice(7, 0, memory_mib=4864),)
    assert read(text("list-a100-mig.txt")).mig_devices == (
        MigDevice(0, 0, "3g.40gb", "MIG-dcf43e8e-5d19-5fa8-8b1d-8aaca1e467f0"),
    )
    assert [part.memory_mib for part in read(text("x-a100-mig.xml")).mig_devices] == [9856, 9856]


def test_something_else_has_no_cards() -> None:
    assert read("bash: line 1: hello: command not found\n") == read("")


def test_xml_that_is_cut_short() -> None:
    assert read(text("x-a100-mig.xml")[:900]).gpus == ()


# the probe's own queries


def test_the_query_and_its_columns_go_together() -> None:
    assert len(ROW.split(",")) == len(GPU_FIELDS.split(","))
    assert queried([ROW, "rc=0"]) == ([P40], "580.173.02", "")
    assert queried(["rc=0"]) == ([], "", "nvidia-smi names no card and no reason")


def test_memory_that_a_card_does_not_say() -> None:
    """NVIDIA GB10 shares the machine's memory (csv-gb10.txt)."""
    row = "0, GPU-1, NVIDIA GB10, [N/A], 12.1, 580.173.02, 0000000F:01:00.0, [N/A], [N/A], [N/A]"
    ((gpu,), _, error) = queried([row, "rc=0"])
    assert (gpu.memory_mib, gpu.used_mib, gpu.bus_id, error) == (0, None, "000f:01:00.0", "")


@pytest.mark.parametrize("cell", ["[Unknown Error]", "[GPU is lost]", "ERR!"])
def test_a_card_that_has_failed_fails_the_query(cell: str) -> None:
    gpus, _, error = queried([ROW, ROW.replace("23040", cell), "rc=0"])
    assert gpus == []
    assert cell in error


@pytest.mark.parametrize(("status", "gpus"), [(0, 1), (14, 1), (15, 0), (9, 0), (124, 0)])
def test_exit_statuses(status: int, gpus: int) -> None:
    found, _, error = queried([ROW, "WARNING: infoROM is corrupted at gpu 0000:3B:00.0", f"rc={status}"])
    assert len(found) == gpus
    assert bool(error) == (gpus == 0)


def test_an_empty_line_is_no_card() -> None:
    assert queried(["", ROW, "rc=0"])[0] == [P40]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch NVML library version: 580.200", "mismatch"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "not-loaded"),
        ("Failed to initialize NVML: Driver Not Loaded", "not-loaded"),
        ("No devices were found", "no-devices"),
        ("Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.  Reboot the system", "lost"),
        ("Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error", "unknown-error"),
        ("Failed to initialize NVML: Insufficient Permissions", "no-rights"),
        ('Field "compute_cap" is not a valid field to query.', "old-program"),
        ("sh: 1: nvidia-smi: not found", "not-installed"),
        ("nvidia-smi is not installed", "not-installed"),
        ("nvidia-smi did not answer within 60 s", "hung"),
        ("Tesla P40, 23040", ""),
    ],
)
def test_trouble(words: str, kind: str) -> None:
    assert trouble(words) == kind


@pytest.mark.parametrize(
    ("printed", "plain"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:03:00.0", "0000:03:00.0"),
        ("000052CE:00:00.0", "52ce:00:00.0"),
        ("3b:00.0", "0000:3b:00.0"),
        ("3b:00", "0000:3b:00.0"),
        ("00000000:", ""),
        ("[N/A]", ""),
        ("GPU-6f3c1e0a", ""),
        ("0", ""),
    ],
)
def test_bus_ids_in_one_form(printed: str, plain: str) -> None:
    assert bus_id(printed) == plain


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("23040", 23040),
        ("23040 MiB", 23040),
        ("0.00", 0),
        ("7 %", 7),
        ("[N/A]", None),
        ("[Not Supported]", None),
        ("ERR!", None),
    ],
)
def test_numbers(cell: str, value: int | None) -> None:
    assert number(cell) == value


def test_processes_of_the_query() -> None:
    lines = [
        "GPU-1, 4711, /usr/bin/python3, 20481",
        "GPU-1, 12, train.py --sizes 1, 2, 3, [N/A]",
        "GPU-2, 13, [Insufficient Permissions], [Insufficient Permissions]",
        "No running processes found",
        "WARNING: infoROM is corrupted at gpu 0000:3B:00.0",
    ]
    assert processes(lines) == [
        GpuProcess("GPU-1", 4711, "/usr/bin/python3", 20481),
        GpuProcess("GPU-1", 12, "train.py --sizes 1, 2, 3", None),
        GpuProcess("GPU-2", 13, "[Insufficient Permissions]", None),
    ]


@pytest.mark.parametrize(
    ("lines", "flavour"),
    [
        (["NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  610.43.02  Release Build"], "open"),
        (
            ["NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.173.02  Wed Oct  8 2025", "GCC version:  gcc 12.2.0"],
            "proprietary",
        ),
        (["Dual MIT/GPL"], "open"),
        (["NVIDIA"], "proprietary"),
        ([], ""),
        (["modinfo: ERROR: Module nvidia not found."], ""),
    ],
)
def test_the_flavour_of_the_kernel_module(lines: list[str], flavour: str) -> None:
    assert kernel_module(lines) == flavour
