"""nvidia-ctk: `cdi generate`, `cdi list`, `runtime configure`, `--version`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from lab_toolkit import VERSION, cdi

_BOTH = ("index", "uuid")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="nvidia-ctk")
    parser.add_argument("--version", "-v", action="version", version=f"NVIDIA Container Toolkit CLI version {VERSION} (simulated)")
    areas = parser.add_subparsers(dest="area", required=True)
    cdi_verbs = areas.add_parser("cdi").add_subparsers(dest="verb", required=True)
    generate = cdi_verbs.add_parser("generate")
    generate.add_argument("--output", default="")
    generate.add_argument("--device-name-strategy", action="append", choices=_BOTH, default=None)
    cdi_verbs.add_parser("list")
    configure = areas.add_parser("runtime").add_subparsers(dest="verb", required=True).add_parser("configure")
    configure.add_argument("--runtime", default="docker", choices=["docker"])
    configure.add_argument("--config", default="/etc/docker/daemon.json")
    configure.add_argument("--set-as-default", "--nvidia-set-as-default", action="store_true")
    configure.add_argument("--cdi.enabled", "--cdi.enable", dest="cdi_enabled", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.area == "runtime":
            return _configure(Path(chosen.config), chosen.set_as_default, chosen.cdi_enabled)
        if chosen.verb == "list":
            print("\n".join(cdi.names(_BOTH)))
            return 0
        return _generate(chosen.output, tuple(chosen.device_name_strategy or _BOTH))
    except FileNotFoundError as error:
        # As the real one: no driver library, no description.
        print(f"ERRO[0000] failed to generate CDI spec: failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND ({error.filename})", file=sys.stderr)
        return 1


def _generate(output: str, strategies: tuple[str, ...]) -> int:
    text = cdi.specification(strategies)
    if not output:
        print(text, end="")
        return 0
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
    print("INFO[0000] Generated CDI spec with version 0.5.0", file=sys.stderr)
    return 0


def _configure(path: Path, default: bool, with_cdi: bool) -> int:
    """Add the runtime to Docker's settings; like the real one it rewrites the file and keeps the other keys."""
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() and path.read_text().strip() else {}
    settings.setdefault("runtimes", {})["nvidia"] = {"args": [], "path": "nvidia-container-runtime"}
    if default:
        settings["default-runtime"] = "nvidia"
    if with_cdi:
        settings.setdefault("features", {})["cdi"] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=4) + "\n", encoding="utf-8")
    print(f"INFO[0000] Wrote updated config to {path}\nINFO[0000] It is recommended that docker daemon be restarted.", file=sys.stderr)
    return 0
