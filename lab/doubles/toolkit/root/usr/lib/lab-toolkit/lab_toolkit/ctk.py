"""nvidia-ctk: runtime configure, cdi generate, cdi list, system create-device-nodes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from lab_gpu.machine import read_machine
from lab_gpu.smi import driver_failure

from lab_toolkit import COMMIT, VERSION
from lab_toolkit.cdi import device_names, specification

USAGE = """NAME:
   nvidia-ctk - Tools to configure the NVIDIA Container Toolkit (simulated by the lab)

USAGE:
   nvidia-ctk [global options] command [command options]

COMMANDS:
   runtime  A collection of runtime-related utilities for the NVIDIA Container Toolkit
   cdi      Provide tools for interacting with Container Device Interface specifications
   system   A collection of system-related utilities for the NVIDIA Container Toolkit
"""


class CtkError(Exception):
    """What the command ends with: exit code 1 and this text."""


def main(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if arguments[0] in ("-v", "--version"):
        print(f"NVIDIA Container Toolkit CLI version {VERSION}\ncommit: {COMMIT}")
        return 0
    commands: dict[tuple[str, ...], Callable[[dict[str, str]], None]] = {
        ("runtime", "configure"): configure_runtime,
        ("cdi", "generate"): generate,
        ("cdi", "list"): list_devices,
        ("system", "create-device-nodes"): lambda options: None,
    }
    command = commands.get(tuple(arguments[:2]))
    if command is None:
        print(USAGE)
        return 0
    try:
        command(_options(arguments[2:]))
    except CtkError as error:
        _log("ERRO", str(error))
        return 1
    return 0


def configure_runtime(options: dict[str, str]) -> None:
    """Add the nvidia runtime to daemon.json and keep everything else in it."""
    runtime = options.get("runtime", "docker")
    if runtime != "docker":
        raise CtkError(f"unrecognized runtime '{runtime}' (the lab has docker only)")
    path = options.get("config") or "/etc/docker/daemon.json"
    _log("INFO", f"Loading config from {path}")
    try:
        with open(path, encoding="utf-8") as handle:
            text = handle.read()
        config = json.loads(text) if text.strip() else {}
    except FileNotFoundError:
        _log("INFO", "Config file does not exist; using empty config")
        config = {}
    except ValueError as error:
        raise CtkError(f"unable to load config for runtime docker: unable to read config: {error}") from error
    name = options.get("nvidia-runtime-name", "nvidia")
    program = options.get("nvidia-runtime-path") or options.get("runtime-path") or "nvidia-container-runtime"
    config.setdefault("runtimes", {})[name] = {"args": [], "path": program}
    if _flag(options, "nvidia-set-as-default", "set-as-default"):
        config["default-runtime"] = name
    if _flag(options, "cdi.enabled", "cdi.enable", "enable-cdi"):
        config.setdefault("features", {})["cdi"] = True
    shown = json.dumps(config, indent=4, sort_keys=True)
    if _flag(options, "dry-run"):
        print(shown)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(shown)
    _log("INFO", f"Wrote updated config to {path}")
    _log("INFO", "It is recommended that docker daemon be restarted.")


def generate(options: dict[str, str]) -> None:
    """Write the CDI specification of this host's GPUs."""
    failure = driver_failure()
    machine = read_machine()
    if failure or machine is None:
        reason = failure[1].strip() if failure else "ERROR_LIBRARY_NOT_FOUND"
        raise CtkError(f"failed to generate CDI spec: failed to initialize NVML: {reason}")
    _log("INFO", "Using /usr/lib/x86_64-linux-gnu/libnvidia-ml.so." + machine["driver_version"])
    _log("INFO", "Auto-detected mode as 'nvml'")
    for gpu in machine["gpus"]:
        _log("INFO", f"Selecting /dev/nvidia{gpu['index']} as /dev/nvidia{gpu['index']}")
    text = specification(machine)
    path = options.get("output") or os.environ.get("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", "")
    if path:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8") as handle:
            handle.write(text)
        os.replace(path + ".new", path)
    else:
        print(text, end="")
    _log("INFO", "Generated CDI spec with version 0.5.0")


def list_devices(options: dict[str, str]) -> None:
    """Names of the devices in the specifications on this host."""
    names: set[str] = set()
    for directory in options.get("spec-dir", "/etc/cdi,/var/run/cdi").split(","):
        path = os.path.join(directory, "nvidia.yaml")
        try:
            with open(path, encoding="utf-8") as handle:
                names |= set(device_names(handle.read()))
        except FileNotFoundError:
            continue
    _log("INFO", f"Found {len(names)} CDI devices")
    for name in sorted(names):
        print(name)


def _options(words: list[str]) -> dict[str, str]:
    """--name=value, --name value and --name as a dictionary; a flag has the value "true"."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).lstrip("-").partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("-") else "true"
        options[name] = value
    return options


def _flag(options: dict[str, str], *names: str) -> bool:
    return any(options.get(name, "false") != "false" for name in names)


def _log(level: str, text: str) -> None:
    print(f"{level}[0000] {text}", file=sys.stderr)
