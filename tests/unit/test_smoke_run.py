"""The whole smoke against stand-ins: all passes, and each fault fails the checks that concern it and no other."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from smoke_fleet import Rack, rack
from smoke_stand_in import as_json
from support.certificates import write_pair

from stoker.smoke import spread
from stoker.smoke.check import Check, CheckFailed, CheckSkipped, Result, Trace
from stoker.smoke.gateway_log import answering
from stoker.smoke.plan import EVERYTHING, NothingToCheck, Selection, plan
from stoker.smoke.report import Report
from stoker.smoke.run import run, run_check
from stoker.smoke.spread import Reply


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def smoked(one: Rack, selection: Selection = EVERYTHING) -> Report:
    return run(one.plan(selection))


def failed(report: Report) -> dict[str, Result]:
    return {f"{result.check.subject}: {result.check.name}": result for result in report.of("fail")}


def test_everything_works() -> None:
    seen: list[Result] = []
    with rack() as one:
        report = run(one.plan(), seen.append)
    assert failed(report) == {}
    assert report.of("skip") == []
    assert report.passed
    assert len(seen) == len(report.results)
    assert one.shell.closed
    names = {f"{result.check.subject}: {result.check.name}" for result in report.results}
    assert names == {
        "box: docker",
        "GPU 0: memory",
        "GPU 1: memory",
        *(f"llama_{i}: {name}" for i in (0, 1) for name in ("container", "GPU", "models", "chat", "longer chat")),
        *(f"bge_0: {name}" for name in ("container", "GPU", "models", "embeddings", "long text", "on the GPU")),
        *(
            f"nginx_0: {name}"
            for name in (
                "container",
                "/health",
                "/v1/models",
                "/v1/chat/completions llama",
                "/llama/v1/chat/completions llama",
                "stream of llama",
                "spread over llama",
                "/v1/embeddings bge-m3",
                "long text by embed",
            )
        ),
    }
    assert all(result.commands for result in report.results)


def test_an_index_means_the_card_that_the_host_noted_for_it() -> None:
    with rack() as one:
        rows = one.shell.smi.splitlines()
        one.shell.smi = f"0{rows[1][1:]}\n1{rows[0][1:]}\n"  # they have changed places
        assert set(failed(smoked(one))) == {"llama_0: GPU", "llama_1: GPU", "bge_0: GPU", "GPU 0: memory"}
        one.shell.record = "0 GPU-0\n1 GPU-1\n"
        report = smoked(one)
    assert failed(report) == {}


def test_repeated_characters_fail_the_instance_alone() -> None:
    with rack() as one:
        one.engines["llama_1"].content = "!!!!!!!!"
        report = smoked(one)
    assert set(failed(report)) == {"llama_1: chat", "llama_1: longer chat"}


def test_a_gateway_by_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its certificate's name, though that name resolves nowhere; with an authority that only the variable names."""
    certificate = write_pair(tmp_path / "tls")
    with rack(certificate=certificate) as one:
        port = one.engines["nginx_0"].port
        refused = failed(smoked(one))
        monkeypatch.setenv("CURL_CA_BUNDLE", str(certificate))
        report = smoked(one)
    assert {result.check.subject for result in refused.values()} == {"nginx_0"}
    assert "CURL_CA_BUNDLE=" in refused["nginx_0: /health"].remedy
    assert failed(report) == {}
    assert report.passed
    (health,) = [result for result in report.results if result.check.name == "/health"]
    assert f"--connect-to ::127.0.0.1:{port}" in health.commands[0]
    assert f"https://gateway.test:{port}/health" in health.commands[0]


def test_a_dead_instance_fails_its_checks_and_the_spread() -> None:
    with rack() as one:
        dead = one.engines["llama_1"]
        dead.replies = {path: as_json({"error": "engine dead"}, 503) for path in ("/v1/models", "/v1/chat/completions")}
        one.shell.client.containers["llama_1"]["State"] = {"Status": "exited", "ExitCode": 1}
        one.engines["nginx_0"].members = one.engines["nginx_0"].members[:1]
        report = smoked(one)
    assert set(failed(report)) == {
        "llama_1: container",
        "llama_1: models",
        "llama_1: chat",
        "llama_1: longer chat",
        "nginx_0: spread over llama",
    }
    assert "none reached llama_1" in failed(report)["nginx_0: spread over llama"].found
    assert [result.check.name for result in report.of("skip")] == ["GPU"]


def test_a_failure_behind_the_gateway_names_the_member() -> None:
    with rack() as one:
        one.engines["nginx_0"].content = "!!!!"
        report = smoked(one)
    found = failed(report)["nginx_0: /v1/chat/completions llama"].found
    assert "one repeated character" in found
    assert "answered by llama_" in found


def test_a_stream_that_a_busy_computer_reads_late_is_tried_again() -> None:
    with rack() as one:
        one.engines["nginx_0"].late_streams = 2
        assert smoked(one).passed


def test_a_stream_that_is_collected_each_time() -> None:
    with rack() as one:
        one.engines["nginx_0"].pause = None
        report = smoked(one)
    assert set(failed(report)) == {"nginx_0: stream of llama"}
    streams = [body for _, _, body in one.engines["nginx_0"].requests if body and body.get("stream")]
    # A small model may write the first before anybody reads; a proxy that collects does it with the long ones too.
    assert [body["max_tokens"] for body in streams] == [64, 256, 1024]


def test_cut_texts() -> None:
    with rack() as one:
        whole = one.engines["bge_0"].embed
        one.engines["bge_0"].embed = lambda text: whole(" ".join(text.split()[:2048]))
        report = smoked(one)
    assert set(failed(report)) == {"bge_0: long text"}
    assert "num_batch 8192" in failed(report)["bge_0: long text"].remedy


def test_a_host_without_ssh_fails_once() -> None:
    with rack() as one:
        one.shell.unreachable = "no SSH connection within 3 s"
        report = smoked(one)
    assert set(failed(report)) == {"box: docker"}
    assert {result.check.name for result in report.of("skip")} == {"container", "GPU", "memory", "spread over llama"}
    assert not report.passed


def test_a_restart_during_the_smoke() -> None:
    with rack() as one:
        checks = one.plan()
        containers = one.shell.client.containers

        def restart(result: Result) -> None:
            if result.check.name == "chat" and result.check.subject == "llama_0":
                containers["llama_0"] = {
                    **containers["llama_0"],
                    "State": {"Status": "running", "StartedAt": "t1"},
                    "RestartCount": 1,
                }

        report = run(checks, restart)
    assert set(failed(report)) == {"llama_0: container"}


def test_selection() -> None:
    with rack() as one:
        report = smoked(one, Selection(names=frozenset({"llama_0"})))
        assert {result.check.subject for result in report.results} == {"box", "GPU 0", "llama_0"}
        assert len(smoked(one, Selection(hosts=frozenset({"box"}))).results) == len(one.plan().checks)
        with pytest.raises(
            NothingToCheck, match=r"no instance or gateway lama_0\. It has: llama_0, llama_1, bge_0, nginx_0"
        ):
            plan(one.fleet, {}, Selection(names=frozenset({"lama_0"})))
        with pytest.raises(NothingToCheck, match="no host other"):
            plan(one.fleet, {}, Selection(hosts=frozenset({"other"})))


def test_an_api_key_is_sent_and_not_shown() -> None:
    with rack({"VLLM_API_KEY": "s3cret-value"}) as one:
        report = smoked(one)
    assert report.passed
    assert all("s3cret-value" not in " ".join(result.commands) + result.summary for result in report.results)
    sent = [
        headers.get("Authorization") for path, headers, _ in one.engines["llama_0"].requests if path.startswith("/v1")
    ]
    assert set(sent) == {"Bearer s3cret-value"}
    streams = [headers for _, headers, body in one.engines["nginx_0"].requests if body and body.get("stream")]
    assert {headers.get("Authorization", headers.get("authorization")) for headers in streams} == {
        "Bearer s3cret-value"
    }


def test_checks_run_side_by_side() -> None:
    with rack() as one:
        for engine in one.engines.values():
            engine.pause = 0.05
        report = smoked(one)
    assert report.seconds < sum(result.seconds for result in report.results)


def test_an_unexpected_exception_is_a_failure_of_that_check() -> None:
    def broken(_: Trace) -> str:
        raise ZeroDivisionError("division by zero")

    result = run_check(Check("c", "h", "s", broken))
    assert result.status == "fail"
    assert result.found == "ZeroDivisionError: division by zero"


def test_skips_carry_their_reason() -> None:
    def skipped(_: Trace) -> str:
        raise CheckSkipped("not here")

    assert run_check(Check("c", "h", "s", skipped)).summary == "not here"


def test_nothing_checked_is_nothing_proven() -> None:
    assert not Report((), datetime.now(UTC), 0.0).passed


def test_spread() -> None:
    assert spread.evaluate({"a": 2, "b": 1}, ["a", "b"], 3) == "a 2, b 1"
    with pytest.raises(CheckFailed, match="none reached b"):
        spread.evaluate({"a": 3}, ["a", "b"], 3)
    with pytest.raises(CheckFailed, match="2 x HTTP 503: busy"):
        spread.all_answered([Reply(200, "", ""), Reply(503, "", "busy"), Reply(503, "", "busy")])


def test_a_spread_that_fails_names_who_failed() -> None:
    with rack() as one:
        one.engines["nginx_0"].replies["/v1/chat/completions"] = as_json({"error": "x"}, 500)
        found = failed(smoked(one))["nginx_0: spread over llama"].found
    assert found.splitlines()[0] == '6 x HTTP 500: {"error": "x"}'
    assert "answered by llama_0, llama_1" in found


def test_the_gateways_log() -> None:
    log = '{"id": "1", "member": "a, b"}\nnot json\n["x"]\n{"id": "2", "member": "c"}\n{"id": "4", "member": "a, d@host"}\n{"id": "3", "member": ""}\n'
    assert answering(log, {"1", "3", "4"}) == {"1": "b", "3": "", "4": "d"}


def test_a_log_without_our_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_LOG_SECONDS", 0.2)
    with rack() as one:
        one.shell.client.logs = lambda name, **_: b""  # type: ignore[method-assign]
        started = time.monotonic()
        report = smoked(one)
    assert set(failed(report)) == {"nginx_0: spread over llama"}
    assert "0 of 6 are there" in failed(report)["nginx_0: spread over llama"].found
    assert time.monotonic() - started < 5


def test_a_member_that_the_gateway_leaves_out_is_given_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client asked it while it was loading; for 5 s nginx sends it nothing."""
    rounds = iter([Counter(a=3), Counter(a=2, b=1)])
    monkeypatch.setattr(spread, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(spread, "_counts", lambda *_: next(rounds))
    monkeypatch.setattr(spread, "send", lambda load: [Reply(200, "id", "")] * load.count)
    gateway = SimpleNamespace(container="nginx")
    entrance = SimpleNamespace(url="http://127.0.0.1", connect="", gateway=gateway, host=SimpleNamespace(name="box"))
    members = [SimpleNamespace(instance=SimpleNamespace(name=name), key=None) for name in ("a", "b")]
    pool = SimpleNamespace(kind="chat", model="m", name="pool")
    check = spread.check(
        cast(Any, entrance), cast(Any, pool), cast(Any, members), cast(Any, SimpleNamespace(shell=None)), 5
    )
    assert check.run(Trace()) == "a 2, b 1"


def test_closed_ports_are_asked_by_their_own_host() -> None:
    with rack({"VLLM_API_KEY": "s3cret-value"}, firewall="engines") as one:
        report = smoked(one)
    assert failed(report) == {}
    assert report.of("skip") == []
    of_instances = [result for result in report.results if result.check.name in ("models", "chat", "embeddings")]
    assert len(of_instances) == 6
    for result in of_instances:
        assert "ssh box '" in result.commands[0]
    for name, engine in one.engines.items():
        ports = [command for command in one.shell.outcomes if f":{engine.port}/" in command]
        assert bool(ports) == (name != "nginx_0"), "the gateway is asked from here, each engine by its host"
    assert not any("s3cret-value" in command for command in one.shell.outcomes)


def test_closed_ports_of_a_broken_engine_fail_and_of_a_host_without_ssh_are_left_out() -> None:
    with rack(firewall="engines") as one:
        one.engines["llama_1"].content = "!!!!!!!!"
        assert set(failed(smoked(one))) == {"llama_1: chat", "llama_1: longer chat"}
        one.shell.unreachable = "no route"
        report = smoked(one)
    assert set(failed(report)) == {"box: docker"}
    skipped = {f"{result.check.subject}: {result.check.name}" for result in report.of("skip")}
    assert {"llama_0: models", "llama_1: chat", "bge_0: embeddings", "bge_0: long text"} <= skipped
    assert "nginx_0: /health" not in skipped
