"""A gateway with keys is asked with the one in this machine's environment, which nothing shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from smoke_fleet import Rack, rack

from stoker.keys.make import hash_of, new_key
from stoker.smoke.report import Report
from stoker.smoke.run import run
from stoker.spec.fleet import Fleet
from stoker.spec.gateway_access import Key


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("STOKER_KEY", raising=False)


def with_keys(one: Rack, *keys: str) -> Report:
    """Smoke, the gateway having these keys."""
    described = tuple(Key(name=f"key-{number}", sha256=hash_of(key)) for number, key in enumerate(keys))
    (host,) = one.fleet.hosts
    (stack,) = host.stacks
    assert stack.gateway
    gateway = stack.gateway.model_copy(update={"keys": described})
    one.fleet = Fleet((replace(host, stacks=(stack.model_copy(update={"gateway": gateway}),)),))
    return run(one.plan())


def test_the_key_is_sent_to_the_gateway_alone_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    monkeypatch.setenv("STOKER_KEY", key)
    with rack() as one:
        report = with_keys(one, new_key(), key)
    assert report.passed
    assert all(key not in " ".join(result.commands) + result.summary for result in report.results)
    assert any("$STOKER_KEY" in command for result in report.results for command in result.commands)

    def sent(engine: str) -> set[str | None]:
        found = [headers for path, headers, _ in one.engines[engine].requests if path.startswith("/v1")]
        return {headers.get("Authorization", headers.get("authorization")) for headers in found}

    assert sent("nginx_0") == {f"Bearer {key}"}
    assert sent("llama_0") == {None}


@pytest.mark.parametrize(("given", "said"), [("", "is not set"), ("sk-another-one", "holds another one")])
def test_without_a_key_one_check_says_so(monkeypatch: pytest.MonkeyPatch, given: str, said: str) -> None:
    if given:
        monkeypatch.setenv("STOKER_KEY", given)
    with rack() as one:
        report = with_keys(one, new_key())
    (failure,) = report.of("fail")
    assert (failure.check.subject, failure.check.name) == ("nginx_0", "key")
    assert said in failure.summary
    assert [path for path, _, _ in one.engines["nginx_0"].requests] == ["/health"]
