"""What nvidia-smi prints for people: its table, -L, -q, -q -x, and any CSV with a header. Pure.

Stoker itself asks by its own queries (stoker/facts/gpus.py). By this the tests read outputs of real machines (tests/data/nvidia-smi)
and those of the lab's double, which so has to print as the real program does. A table has no UUIDs and cuts names; nothing but a query
tells the compute capability.
"""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from stoker.facts.gpus import Gpu, GpuProcess, Trouble, bus_id, number, switch, trouble


@dataclass(frozen=True)
class MigDevice:
    """A part of a divided card. ``profile`` is empty where only the table was printed."""

    gpu: int  #: index of the card
    index: int
    profile: str = ""  #: for instance 1g.5gb
    uuid: str = ""
    memory_mib: int = 0


@dataclass(frozen=True)
class Report:
    """Everything that one output says. Empty: it does not say."""

    driver: str = ""
    cuda: str = ""  #: newest CUDA that the driver can do
    gpus: tuple[Gpu, ...] = ()
    mig_devices: tuple[MigDevice, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    trouble: Trouble = ""


def read(text: str) -> Report:
    """An output of nvidia-smi, whatever its format. One that tells of nothing may tell of trouble."""
    report = _read(text)
    # Beside cards the same words stand in a cell, of one process or one value.
    return report if report.gpus or report.processes else replace(report, trouble=trouble(text))


def _read(text: str) -> Report:
    if "<nvidia_smi_log>" in text:
        return _xml(text)
    if "NVSMI LOG" in text or re.search(r"^Attached GPUs\s*:", text, re.MULTILINE):
        return _log(text)
    if re.search(r"^\| NVIDIA-SMI ", text, re.MULTILINE):
        return _table(text)
    if re.search(r"^GPU \d+: .*\(UUID: ", text, re.MULTILINE):
        return _list(text)
    header = text.lstrip().partition("\n")[0].split(", ")
    if {_plain(cell) for cell in header} & {"name", "gpu_name", "process_name", "uuid"}:
        return _csv(text)
    return Report()


def _gpu(
    index: int, uuid: str, name: str, total: str, address: str, used: str, ecc: bool | None, mig: bool | None
) -> Gpu:
    return Gpu(index, uuid, name, number(total) or 0, "", bus_id(address), number(used), ecc, mig)


# nvidia-smi -L

_LISTED = re.compile(r"^GPU (\d+): (.+?) \(UUID: (\S*?)\)")
_LISTED_MIG = re.compile(r"^\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (\S+?)\)")


def _list(text: str) -> Report:
    gpus: list[Gpu] = []
    parts: list[MigDevice] = []
    for line in text.splitlines():
        if found := _LISTED.match(line):
            gpus.append(_gpu(int(found[1]), found[3], found[2], "", "", "", None, None))
        elif (found := _LISTED_MIG.match(line)) and gpus:
            gpus[-1] = replace(gpus[-1], mig=True)
            parts.append(MigDevice(gpus[-1].index, int(found[2]), found[1], found[3]))
    return Report(gpus=tuple(gpus), mig_devices=tuple(parts))


# nvidia-smi

#: Branch 610 writes KMD Version and CUDA UMD Version.
_DRIVER = re.compile(r"(?:Driver|KMD) Version: (\S+)")
_CUDA = re.compile(r"CUDA (?:UMD )?Version: (\d\S*)")
#: Where Linux shows the persistence mode, Windows shows the driver model.
_FIRST = re.compile(r"^\|\s+(\d+)\s+(\S.*?)\s+(?:On|Off|N/A|WDDM|TCC|MCDM)\s*\|\s+(\S+)(?:\s+\S+)?\s+\|\s+(\S+)\s+\|")
_SECOND = re.compile(r"^\|.*\|\s+(\S+|Not Supported)(?: / +(\S+))?\s+\|.*\|$")
_MIG_ROW = re.compile(r"^\|\s+(\d+)\s+\d+\s+\d+\s+(\d+)\s+\|\s+(\d+)MiB / +(\d+)MiB")
#: GPU, since branch 450 GI and CI, then PID, type, name and memory. A long name pushes the memory against the edge.
_PROCESS = re.compile(r"^\|\s+(\d+)\s+(?:(?:N/A|\d+)\s+(?:N/A|\d+)\s+)?(\d+)\s+([CGM+]+)\s+(.+?)\s+(\d+MiB|N/A)\s*\|$")


def _table(text: str) -> Report:
    gpus: list[Gpu] = []
    parts: list[MigDevice] = []
    processes: list[GpuProcess] = []
    lines = text.splitlines()
    below = ""  # heading of the lower half: MIG devices, Processes, Compute processes
    for position, line in enumerate(lines):
        if found := re.match(r"^\| (MIG devices|(?:Compute p|P)rocesses):", line):
            below = found[1]
        elif below == "MIG devices" and (found := _MIG_ROW.match(line)):
            parts.append(MigDevice(int(found[1]), int(found[2]), memory_mib=int(found[4])))
        elif below and (found := _PROCESS.match(line)):
            processes.append(GpuProcess(found[1], int(found[2]), found[4], number(found[5])))
        elif not below and (found := _FIRST.match(line)):
            gpus.append(_row(found, lines[position + 1 : position + 3]))
    driver, cuda = _DRIVER.search(text), _CUDA.search(text)
    return Report(
        driver[1] if driver else "",
        cuda[1] if cuda else "",
        tuple(gpus),
        tuple(parts),
        # In a table a process names its card by the index.
        tuple(processes),
    )


def _row(first: re.Match[str], rest: Sequence[str]) -> Gpu:
    """A card from its two lines, or three since branch 450."""
    second = _SECOND.match(rest[0]) if rest else None
    used, total = (second[1], second[2] or "") if second else ("", "")
    third = rest[1].rpartition("|")[0].rpartition("|")[2].strip() if len(rest) > 1 else ""
    ecc = {"N/A": None, "Off": False}.get(first[4], True)  # when it is on, the number of errors stands there
    return _gpu(int(first[1]), "", first[2], total, first[3], used, ecc, switch(third))


# nvidia-smi -q


def _log(text: str) -> Report:
    head, *blocks = re.split(r"^GPU (?=[0-9A-Fa-f:.]+$)", text, flags=re.MULTILINE)
    found = _fields(head.splitlines())
    gpus: list[Gpu] = []
    processes: list[GpuProcess] = []
    for index, block in enumerate(blocks):
        address, _, body = block.partition("\n")
        fields = _fields(body.splitlines())
        uuid = fields.get("GPU UUID", "")
        gpus.append(
            _gpu(
                index,
                uuid,
                fields.get("Product Name", ""),
                fields.get("FB Memory Usage/Total", ""),
                address,
                fields.get("FB Memory Usage/Used", ""),
                switch(fields.get("ECC Mode/Current", fields.get("Ecc Mode/Current", ""))),
                switch(fields.get("MIG Mode/Current", "")),
            )
        )
        processes += _logged_processes(uuid, body)
    return Report(
        # Branch 610 has these names beside the old ones, whose values it follows by a warning.
        found.get("KMD Version", found.get("Driver Version", "")),
        found.get("CUDA UMD Version", found.get("CUDA Version", "")).replace("Not Found", ""),
        tuple(gpus),
        processes=tuple(processes),
    )


def _fields(lines: Sequence[str]) -> dict[str, str]:
    """``Name : value`` by its name, or by ``Section/Name`` below a section. The first of a name counts."""
    fields: dict[str, str] = {}
    section, outer = "", 0
    for line in lines:
        name, colon, value = line.strip().partition(" : ")
        depth = len(line) - len(line.lstrip())
        if not colon:
            section, outer = name, depth
            continue
        key = f"{section}/{name.strip()}" if section and depth > outer else name.strip()
        fields.setdefault(key, value.strip())
    return fields


def _logged_processes(uuid: str, body: str) -> Iterator[GpuProcess]:
    for block in re.split(r"^\s+Process ID\s+: ", body, flags=re.MULTILINE)[1:]:
        pid, _, rest = block.partition("\n")
        fields = _fields(rest.splitlines())
        yield GpuProcess(uuid, int(pid), fields.get("Name", ""), number(fields.get("Used GPU Memory", "")))


# nvidia-smi -q -x


def _xml(text: str) -> Report:
    try:
        # Without its DOCTYPE, which names a file that is not there.
        log = ElementTree.fromstring(text[text.index("<nvidia_smi_log>") :])
    except ElementTree.ParseError:
        return Report()
    gpus, parts, processes = [], [], []
    for index, gpu in enumerate(log.findall("gpu")):
        uuid = gpu.findtext("uuid", "")
        gpus.append(
            _gpu(
                index,
                uuid,
                gpu.findtext("product_name", ""),
                gpu.findtext("fb_memory_usage/total", ""),
                gpu.get("id", ""),
                gpu.findtext("fb_memory_usage/used", ""),
                switch(gpu.findtext("ecc_mode/current_ecc", "")),
                switch(gpu.findtext("mig_mode/current_mig", "")),
            )
        )
        for part in gpu.findall("mig_devices/mig_device"):
            total = number(part.findtext("fb_memory_usage/total", "")) or 0
            parts.append(MigDevice(index, int(part.findtext("index", "0")), memory_mib=total))
        for info in gpu.findall("processes/process_info"):
            used = number(info.findtext("used_memory", ""))
            processes.append(GpuProcess(uuid, int(info.findtext("pid", "0")), info.findtext("process_name", ""), used))
    driver, cuda = log.findtext("driver_version", ""), log.findtext("cuda_version", "")
    return Report(driver, cuda, tuple(gpus), tuple(parts), tuple(processes))


# nvidia-smi --query-gpu=... and --query-compute-apps=... --format=csv


def _plain(cell: str) -> str:
    """A column's name without its unit: ``memory.total [MiB]``."""
    return cell.partition("[")[0].strip()


def _csv(text: str) -> Report:
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.strip().splitlines(), skipinitialspace=True)]
    columns = [_plain(cell) for cell in rows[0]]
    records = [dict(zip(columns, row, strict=True)) for row in rows[1:] if len(row) == len(columns)]
    if "process_name" in columns or "pid" in columns:
        return Report(processes=tuple(_process(record) for record in records))
    gpus = [
        replace(
            _gpu(
                number(record.get("index", "")) or position,
                record.get("uuid", record.get("gpu_uuid", "")),
                record.get("name", record.get("gpu_name", "")),
                record.get("memory.total", ""),
                record.get("pci.bus_id", ""),
                record.get("memory.used", ""),
                switch(record.get("ecc.mode.current", "")),
                switch(record.get("mig.mode.current", "")),
            ),
            compute_capability=record.get("compute_cap", ""),
        )
        for position, record in enumerate(records)
    ]
    driver = next((record["driver_version"] for record in records if "driver_version" in record), "")
    return Report(driver, gpus=tuple(gpus))


def _process(record: dict[str, str]) -> GpuProcess:
    used = number(record.get("used_gpu_memory", record.get("used_memory", "")))
    return GpuProcess(
        record.get("gpu_uuid", ""), number(record.get("pid", "")) or 0, record.get("process_name", ""), used
    )
