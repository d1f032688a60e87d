"""nvidia-smi of the driver double: the commands and formats of branch 580 that people and programs use."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from lab_gpu import paths, settings
from lab_gpu.machine import Gpu, Machine, read_machine, visible_gpus
from lab_gpu.smi_query import APP_FIELDS, GPU_FIELDS, UnknownFieldError, app_rows, gpu_rows, render_csv
from lab_gpu.smi_table import full_report, summary_table

USAGE = """NVIDIA System Management Interface -- v{version} (simulated by the lab)

Usage: nvidia-smi [-L] [-q] [-i ID] [-pm 0|1] [-l SEC]
       nvidia-smi --query-gpu=FIELD,... --format=csv[,noheader][,nounits] [-i ID]
       nvidia-smi --query-compute-apps=FIELD,... --format=csv[,noheader][,nounits] [-i ID]
"""

# Exit codes of the real program (man nvidia-smi, RETURN VALUE).
INVALID_ARGUMENT, NOT_FOUND, DRIVER_NOT_LOADED, OTHER_ERROR = 2, 6, 9, 255
VERSION_MISMATCH = 18

DRIVER_FAULTS = {
    "not-loaded": (
        DRIVER_NOT_LOADED,
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
        "Make sure that the latest NVIDIA driver is installed and running.\n",
    ),
    "version-mismatch": (
        VERSION_MISMATCH,
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.173\n",
    ),
    "unknown-error": (OTHER_ERROR, "Failed to initialize NVML: Unknown Error"),
}


def main(arguments: list[str]) -> int:
    """Run one nvidia-smi command line; returns its exit code."""
    failure = driver_failure()
    if failure:
        code, text = failure
        print(text)
        return code
    machine = read_machine()
    if machine is None:
        code, text = DRIVER_FAULTS["not-loaded"]
        print(text)
        return code
    try:
        return _command(arguments, machine)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def driver_failure() -> tuple[int, str] | None:
    """(exit code, message) when the driver is told to fail, or this container lost its GPUs to a daemon-reload."""
    name, _ = settings.fault("driver")
    if name in DRIVER_FAULTS:
        return DRIVER_FAULTS[name]
    if os.path.exists(paths.needs_reboot_file()):
        return DRIVER_FAULTS["not-loaded"]
    try:
        if os.stat(paths.LEGACY_MARKER).st_mtime < os.stat(paths.daemon_reload_file()).st_mtime:
            return DRIVER_FAULTS["unknown-error"]
    except FileNotFoundError:
        pass
    return None


def _command(arguments: list[str], machine: Machine) -> int:
    options = _parse(arguments)
    if isinstance(options, str):
        print(options)
        return INVALID_ARGUMENT
    if "-h" in options or "--help" in options:
        print(USAGE.format(version=machine["driver_version"]))
        return 0
    if "--version" in options:
        version = machine["driver_version"]
        short = ".".join(version.split(".")[:2])
        print(f"NVIDIA-SMI version  : {version}\nNVML version        : {short}")
        print(f"DRIVER version      : {version}\nCUDA Version        : {machine['cuda_version']}")
        return 0
    gpus = visible_gpus(machine)
    if not gpus:
        print("No devices were found")
        return NOT_FOUND
    if "-i" in options:
        gpus = _pick(gpus, options["-i"])
        if not gpus:
            print("No devices were found")
            return NOT_FOUND
    if "-l" in options:
        while not (failure := driver_failure()):
            _show(options, machine, gpus)
            sys.stdout.flush()
            time.sleep(float(options["-l"] or 5))
        print(failure[1])
        return failure[0]
    return _show(options, machine, gpus)


def _show(options: dict[str, str], machine: Machine, gpus: list[Gpu]) -> int:
    if "-pm" in options:
        return _set_persistence(options["-pm"] in ("1", "ENABLED"), gpus)
    if "-L" in options:
        for gpu in gpus:
            print(f"GPU {gpu['index']}: {gpu['name']} (UUID: {gpu['uuid']})")
        return 0
    if "-q" in options:
        print(full_report(machine, gpus))
        return 0
    queries: tuple[tuple[str, Mapping[str, tuple[str, object]]], ...]
    queries = (("--query-gpu", GPU_FIELDS), ("--query-compute-apps", APP_FIELDS))
    for option, known in queries:
        if option not in options:
            continue
        if "--format" not in options:
            print(f'"{option}=" switch is missing the required "--format=" switch.')
            return INVALID_ARGUMENT
        fields = [field.strip() for field in options[option].split(",")]
        try:
            rows = gpu_rows(fields, machine, gpus) if known is GPU_FIELDS else app_rows(fields, gpus)
        except UnknownFieldError as unknown:
            print(f'Field "{unknown}" is not a valid field to query.\n')
            return INVALID_ARGUMENT
        sys.stdout.write(render_csv(fields, rows, known, options["--format"].split(",")))
        return 0
    print(summary_table(machine, gpus))
    return 0


def _set_persistence(wanted: bool, gpus: list[Gpu]) -> int:
    path = paths.persistence_file()
    try:
        if wanted:
            open(path, "w").close()
        elif os.path.exists(path):
            os.unlink(path)
    except OSError:
        print("Unable to set persistence mode: Insufficient Permissions\nTerminating early due to previous errors.")
        return OTHER_ERROR
    for gpu in gpus:
        print(f"{'Enabled' if wanted else 'Disabled'} persistence mode for GPU {gpu['bus_id']}.")
    print("All done.")
    return 0


def _parse(arguments: list[str]) -> dict[str, str] | str:
    """Options by name, or the message that refuses them."""
    aliases = {"--list-gpus": "-L", "--query": "-q", "--id": "-i", "--loop": "-l", "--persistence-mode": "-pm"}
    with_value = {"-i", "-l", "-pm", "-d", "--query-gpu", "--query-compute-apps", "--format", "-lms"}
    plain = {"-L", "-q", "-h", "--help", "--version"}
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, has_value, value = rest.pop(0).partition("=")
        name = aliases.get(name, name)
        if name in plain:
            options[name] = ""
        elif name in with_value:
            if not has_value and rest:
                value = rest.pop(0)
            options[name] = value
        else:
            return f"Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\nOption \"{name}\" is not recognized."
    return options


def _pick(gpus: list[Gpu], wanted: str) -> list[Gpu]:
    names = [name.strip() for name in wanted.split(",")]
    return [gpu for gpu in gpus if {str(gpu["index"]), gpu["uuid"], gpu["bus_id"], gpu["serial"]} & set(names)]
