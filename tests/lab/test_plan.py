"""The memory plan beside a fleet that is served: what the engines' logs say of the same figures."""

from __future__ import annotations

import json
import re

from support.machine import GPU10, GPU65
from support.project import Project, Served

ENGINES = {"vllm_llama_gpu0_0", "vllm_llama_gpu0_1", "vllm_llama_gpu1_0", "vllm_llama_gpu1_1", "vllm_qwen_gpu2"}


def test_the_plan_of_a_served_fleet_shows_each_log_beside_its_prediction(served: Served, reader: Project) -> None:
    before = [(host.containers(), host.written()) for host in (GPU10, GPU65)]
    shown, data = reader.at_once(["stoker", "plan", "--live"], ["stoker", "plan", "--live", "--json"])
    assert (shown.code, data.code) == (0, 0), str(shown)
    said = set(
        re.findall(r"log of (\w+): KV cache of [\d,]+ tokens, [\d.]+x at [\d,]+ each; predicted were [\d,]+", shown.out)
    )
    assert said == ENGINES, str(shown)
    assert "Tesla V100-SXM2-32GB, 31.68 GiB for programs (found there)" in shown.out
    instances = {one["name"]: one for host in json.loads(data.out)["hosts"] for one in host["instances"]}
    for name in ENGINES:
        logged = re.search(r"GPU KV cache size: ([\d,]+) tokens", GPU10.sh(f"docker logs {name} 2>&1"))
        assert logged
        assert instances[name]["measured"]["tokens"] == int(logged[1].replace(",", "")), name
        assert abs(instances[name]["measured"]["gap"]) < 0.1
    assert [(host.containers(), host.written()) for host in (GPU10, GPU65)] == before


def test_the_first_deploy_showed_each_log_beside_its_prediction(served: Served) -> None:
    for name in ENGINES:
        assert re.search(rf"{name}: KV cache of [\d,]+ tokens, .* predicted were ", served.deploy.err), str(
            served.deploy
        )
