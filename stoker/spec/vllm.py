"""vLLM's command-line arguments as they stand in group_data: what cannot work is refused here.

Facts are those of vLLM v0.19.1 (its released wheel), the last version with code for V100.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator


def _single(value: object) -> object:
    """One message instead of one for each type that it might have been."""
    if value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError("an argument has one value; write a text, a number, True or False; anything else as JSON text")
    return value


Argument = Annotated[str | int | float | bool | None, BeforeValidator(_single)]

#: Removed before v0.19.1 -> what to write instead.
REMOVED = {
    "task": "vLLM removed it in 0.13; write runner = 'pooling' for an embedding model, nothing for a chat model",
    "swap-space": "the V1 engine has no CPU swap; remove it",
    "use-v2-block-manager": "there is only one block manager; remove it",
    "num-lookahead-slots": "use speculative-config",
    "guided-decoding-backend": "use structured-outputs-config",
    "enable-reasoning": "reasoning-parser alone is enough",
    "disable-log-requests": "requests are not logged by default; enable-log-requests turns it on",
    "device": "the image decides the device; remove it",
    "worker-use-ray": "use distributed-executor-backend = 'ray'",
}

#: Set by Stoker from other fields of the instance.
OURS = {
    "model": "give the model's name in the instance's field `model`; one instance serves one model",
    "served-model-name": "it is the instance's field `model`",
    "host": "the engine listens inside its container; publish it with the instance's field `port`",
    "port": "the engine listens inside its container; publish it with the instance's field `port`",
    "api-key": "an argument shows in the process list",
}


def problems_of(arguments: Mapping[str, Argument]) -> list[tuple[str, str, str]]:
    """Each argument that cannot be used as ``(name, reason, remedy)``."""
    found = []
    for name, value in arguments.items():
        head, dot, key = name.partition(".")  # of a JSON argument, one key: compilation-config.cudagraph_mode
        plain = head.lstrip("-").replace("_", "-") + dot + key
        if plain in REMOVED:
            found.append((name, f"vLLM v0.19.1 does not know --{plain}", REMOVED[plain]))
        elif plain in OURS:
            found.append((name, "Stoker sets this argument itself", OURS[plain]))
        elif name != plain:
            found.append(
                (name, "arguments are written without dashes in front and with - between words", f"write {plain!r}")
            )
        elif plain == "config" and not str(value).endswith((".yaml", ".yml")):
            found.append(
                (
                    name,
                    "vLLM reads a configuration file only when its name ends in .yaml or .yml",
                    "convert it to YAML, or better write its keys as arguments here",
                )
            )
    utilization = arguments.get("gpu-memory-utilization")
    number = isinstance(utilization, int | float) and not isinstance(utilization, bool)
    if utilization is not None and not (number and 0 < float(utilization) <= 1):
        found.append(
            ("gpu-memory-utilization", "it is a share of the GPU's memory, above 0 and at most 1", "write 0.9 for 90 %")
        )
    return found


def to_argv(arguments: Mapping[str, Argument]) -> list[str]:
    """The arguments as a command line: True is a bare flag, False its ``--no-`` form, None leaves it out."""
    argv: list[str] = []
    for name, value in arguments.items():
        if value is None:
            continue
        if value is True:
            argv.append(f"--{name}")
        elif value is False:
            argv.append(f"--no-{name}")
        else:
            argv += [f"--{name}", str(value)]
    return argv
