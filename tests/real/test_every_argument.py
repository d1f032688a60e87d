"""stoker/spec/vllm.py against the pinned release's parser: what passes there is understood, what is refused there would be refused."""

from __future__ import annotations

import pytest
from parser_answers import Answer, same
from release_examples import SPECIAL, examples_by_name, wrong_examples_by_name

from stoker.spec.vllm import OURS, known

#: Refused by Stoker although the parser would take it: a bare --hf-token means "the token that is stored here", and an engine of
#: Stoker's asks no hub.
STRICTER = {"hf-token: {'hf-token': True}"}


def test_every_argument_has_an_example() -> None:
    without = {name for name, examples in examples_by_name().items() if not examples}
    assert without == (set(OURS) & set(known()["arguments"])) | {name for name, pairs in SPECIAL.items() if not pairs}


@pytest.mark.parametrize("name", [name for name, examples in examples_by_name().items() if examples])
def test_what_passes_is_understood(pinned_answer: Answer, name: str) -> None:
    for example in examples_by_name()[name]:
        verdict = pinned_answer.verdicts[example.name]
        assert verdict.accepted, (example.line, verdict.error)
        assert same(example.expected, verdict.values[example.destination]), (
            example.line,
            verdict.values[example.destination],
        )


@pytest.mark.parametrize("name", [name for name in wrong_examples_by_name() if name not in OURS])
def test_what_the_parser_refuses_is_refused_before(pinned_answer: Answer, name: str) -> None:
    for example in wrong_examples_by_name()[name]:
        accepted = pinned_answer.verdicts[example.name].accepted
        assert example.refused == (not accepted or example.name in STRICTER), (example.line, accepted)
