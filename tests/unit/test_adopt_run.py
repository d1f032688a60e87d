"""`stoker adopt` when one of its deploys fails: what failed goes back to what was there, and nothing else."""

from __future__ import annotations

import pytest
from support.forked import Call, call

GATEWAY = "vllm_nginx"
#: The last deploy is of whatever is not an engine, and has no name.
REST = ""
FAILED = 1


@pytest.mark.parametrize(
    ("fails", "without", "expected"),
    [
        ("vllm_llama_gpu0_1", "", ["vllm_llama_gpu0_1"]),
        (REST, "", [GATEWAY]),
        # go-back.sh without a name would bring everything back, the engines that serve with it.
        (REST, GATEWAY, []),
    ],
    ids=["an engine", "the gateway", "what had no predecessor"],
)
def test_what_fails_goes_back_alone(fails: str, without: str, expected: list[str]) -> None:
    done = call(Call("support.adoption", "went_back", ({fails: FAILED}, without)))
    assert (done.status, done.value) == (0, expected)
