"""What looks like a secret is masked wherever a log's words are shown, and numbers that tell why are not."""

from __future__ import annotations

import pytest

from stoker.ready.diagnosis import diagnose_text
from stoker.ready.shown_line import without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--api-key sk-abc --port 1", "--api-key *** --port 1"),
        ("Authorization: Basic dXNlcg==", "Authorization: Basic ***"),
        ("{'api_key': ['sk-1'], 'max_num_batched_tokens': 8192}", "{'api_key': ***, 'max_num_batched_tokens': 8192}"),
        ("hub_token=abc tokens: [x]", "hub_token=*** tokens: ***"),
        ("http://user:pw@proxy.lan:3128", "http://***@proxy.lan:3128"),
    ],
)
def test_secrets_and_no_numbers(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "log",
    [
        "OSError: cannot connect to proxy http://user:sk-99@proxy.lan:3128",
        "vllm: error: unrecognized arguments: --foo --api-key=sk-99",
    ],
)
def test_a_diagnosis_holds_none(log: str) -> None:
    found = diagnose_text("vllm", log)
    assert found
    assert "sk-99" not in f"{found.cause}{found.remedy}{found.evidence}"
    assert "***" in found.evidence
