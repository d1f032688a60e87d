"""The gateways of the default fleet, read from group_data, and members that stand for its instances."""

from __future__ import annotations

import runpy
from pathlib import Path

from gateway_members import Member

from stoker.render.gateway import Backend
from stoker.render.gateway import Member as EndPoint
from stoker.spec.gateway import Gateway

GROUP_DATA = Path(__file__).resolve().parents[3] / "group_data"


def unified() -> Gateway:
    return _gateway("embedding")


def llm_only() -> Gateway:
    return _gateway("llm")


def unified_with(**fields: object) -> Gateway:
    """The unified gateway with some fields as a person would write them."""
    return Gateway.model_validate(_entry("embedding") | fields)


def _gateway(group: str) -> Gateway:
    return Gateway.model_validate(_entry(group))


def _entry(group: str) -> dict[str, object]:
    stacks = runpy.run_path(str(GROUP_DATA / f"{group}.py"))["stacks"]
    return next(dict(stack["gateway"]) for stack in stacks if "gateway" in stack)


def default_backends(gateway: Gateway) -> list[Backend]:
    """The members as the default inventory has them."""
    served = {
        "bge-m3": ("ollama", tuple(EndPoint(f"ollama_bge_{n}", f"192.168.31.65:{11434 + n}") for n in range(2))),
        "llama3.1-8b": ("vllm", tuple(EndPoint(f"llama_{n}", f"192.168.31.10:{11401 + n}") for n in range(4))),
        "qwen2.5-14b": ("vllm", (EndPoint("vllm_qwen_gpu2", "192.168.31.10:11405"),)),
    }
    return [Backend(pool, *served[pool.model]) for pool in gateway.pools]  # type: ignore[arg-type]


def members() -> list[Member]:
    return [
        Member("ollama_0", "bge-m3", "ollama"),
        Member("ollama_1", "bge-m3", "ollama"),
        *(Member(f"llama_{number}", "llama3.1-8b") for number in range(4)),
        Member("qwen", "qwen2.5-14b"),
    ]
