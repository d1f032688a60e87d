"""`stoker init`: what is proposed for which cards."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from smoke_sshd import ssh_server
from support.commands import run
from support.description import PROJECT, Description
from support.forked import Call, call

from stoker.draft.cards import KINDS, CardKind, HostCards, UnknownCards, of_state, parse
from stoker.draft.objections import objections
from stoker.draft.shipped import shipped
from stoker.draft.write import files
from stoker.facts.gpus import Gpu
from stoker.facts.state import HostState
from stoker.plan.memory_plan import plan_host
from stoker.plan.memory_view import level
from stoker.propose import command
from stoker.propose.command import Wishes
from stoker.propose.look import CannotLook
from stoker.propose.machine import Machine
from stoker.propose.proposal import NoProposal, Proposal, propose
from stoker.spec.fleet import Fleet

PINS = shipped()


def proposal_for(*cards: str) -> Proposal:
    return propose([Machine(f"10.0.0.{n}", parse(words)) for n, words in enumerate(cards, 1)], PINS)


def fleet_for(*cards: str) -> Fleet:
    return proposal_for(*cards).draft.fleet(PINS.versions)


def models(fleet: Fleet) -> list[tuple[str, str, str]]:
    return [(host.name, one.engine, one.model) for host in fleet.hosts for _, one in host.instances()]


def test_the_cards_of_the_default_fleet_get_its_models_names_and_ports() -> None:
    default = Description(PROJECT).load()
    found = fleet_for("3 x V100-32GB", "2 x P40")

    def instances(fleet: Fleet) -> list[list[tuple[object, ...]]]:
        return [
            [
                (one.name, one.engine, one.model, one.gpus, one.port, one.arguments.get("max-model-len"))
                for _, one in host.instances()
            ]
            for host in fleet.hosts
        ]

    assert instances(found) == instances(default)
    shares = {
        one.arguments["gpu-memory-utilization"] for _, one in found.hosts[0].instances() if one.model == "llama3.1-8b"
    }
    assert shares == {0.45}
    entry, default_entry = found.hosts[1].stacks[0].gateway, default.hosts[1].stacks[0].gateway
    assert entry is not None
    assert default_entry is not None
    assert (entry.port, entry.pools) == (default_entry.port, default_entry.pools)


@pytest.mark.parametrize("card", ["V100-32GB", "V100-16GB", "T4", "RTX 3060", "RTX 3090", "H100"])
def test_one_card_that_runs_vllm_gets_both(card: str) -> None:
    assert {engine for _, engine, _ in models(fleet_for(card))} == {"vllm", "ollama"}


def test_an_old_card_gets_embeddings_and_says_that_there_is_no_chat() -> None:
    proposal = proposal_for("2 x P40")
    assert models(proposal.draft.fleet(PINS.versions)) == [("10.0.0.1", "ollama", "bge-m3")] * 2
    assert "no chat model is proposed" in " ".join(proposal.notes)


def test_a_model_that_is_too_large_for_one_card_is_spread_over_two_of_several() -> None:
    (host,) = fleet_for("3 x V100-16GB").hosts
    spread = [one for _, one in host.instances() if len(one.gpus) > 1]
    assert [(one.model, one.gpus, one.arguments["tensor-parallel-size"]) for one in spread] == [
        ("qwen2.5-14b", (1, 2), 2)
    ]


def test_bfloat16_is_not_left_to_chance_on_old_cards() -> None:
    dtypes = {
        card: {one.arguments.get("dtype") for _, one in fleet_for(card).hosts[0].instances() if one.engine == "vllm"}
        for card in ("T4", "A10")
    }
    assert dtypes == {"T4": {"half"}, "A10": {None}}


def test_hosts_that_are_alike_share_a_group() -> None:
    proposal = proposal_for("2 x V100-32GB", "2 x V100-32GB", "P40")
    assert {group.name: [*group.hosts] for group in proposal.draft.groups} == {
        "llm": ["10.0.0.1", "10.0.0.2"],
        "embedding": ["10.0.0.3"],
    }


def test_cards_that_serve_nothing() -> None:
    old = Machine("10.0.0.1", HostCards(1, CardKind("K80", 12, (3, 7))))
    with pytest.raises(NoProposal, match=r"K80 12 GiB\) is not used"):
        propose([old], PINS)


real_cards = st.sampled_from(KINDS)
other_cards = st.builds(
    CardKind,
    st.just("GPU"),
    st.integers(1, 200),
    st.sampled_from([(3, 7), (5, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 9), (9, 0)]),
)
hosts = st.lists(st.builds(HostCards, st.integers(1, 16), real_cards | other_cards), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(hosts)
def test_every_proposal_is_a_valid_fleet_that_fits(cards: list[HostCards]) -> None:
    machines = [Machine(f"10.0.0.{number}", one) for number, one in enumerate(cards, 1)]
    try:
        proposal = propose(machines, PINS)
    except NoProposal:
        return
    assert propose(machines, PINS) == proposal
    fleet = proposal.draft.fleet(PINS.versions)  # raises where `stoker check-description` would
    assert level([plan_host(host, PINS.cards) for host in fleet.hosts]) in ("fit", "warn")
    told = " ".join(proposal.notes)
    by_address = {machine.address: machine for machine in machines}
    for host in fleet.hosts:
        assert [
            reason for reason in objections(host, by_address[host.name].seen, PINS.cards) if reason.severity == "refuse"
        ] == []
    served = {host.name for host in fleet.hosts}
    assert all(address in served or f"{address} (" in told for address in by_address)
    (gateway,) = [stack.gateway for host in fleet.hosts for stack in host.stacks if stack.gateway]
    assert {pool.model for pool in gateway.pools} == {one.model for host in fleet.hosts for _, one in host.instances()}


@pytest.mark.parametrize(
    ("words", "count", "card", "gib"),
    [
        ("3 x V100-32GB", 3, "V100", 32),
        ("2 P40", 2, "P40", 24),
        ("Tesla V100 16 GB", 1, "V100", 16),
        ("4x rtx4090", 4, "RTX 4090", 24),
        ("RTX 2080 Ti", 1, "RTX 2080 Ti", 11),
        ("T4-16GB", 1, "T4", 15),
        ("8 × A100", 8, "A100", 80),
    ],
)
def test_cards_in_words(words: str, count: int, card: str, gib: int) -> None:
    found = parse(words)
    assert (found.count, found.kind.card, found.kind.memory_gib) == (count, card, gib)


@pytest.mark.parametrize("words", ["", "3 x", "V100-24GB", "0 x P40", "17 x P40", "3 x Arc"])
def test_words_that_name_no_cards(words: str) -> None:
    with pytest.raises(UnknownCards):
        parse(words)


def gpu(index: int, name: str, mib: int, capability: str) -> Gpu:
    return Gpu(index, f"GPU-{index:08x}-0000-0000-0000-000000000000", name, mib, capability, f"0000:{index:02x}:00.0")


def test_what_a_host_shows_is_described_so_that_a_deploy_accepts_it() -> None:
    """ECC takes a part of a P40's memory; of cards of two kinds the common words are described."""
    ecc = of_state([gpu(0, "Tesla P40", 23040, "6.1")])
    assert (ecc.hardware.card, ecc.hardware.memory_gib) == ("P40", 24)
    mixed = of_state([gpu(0, "NVIDIA GeForce RTX 3090", 24576, "8.6"), gpu(1, "NVIDIA GeForce RTX 4090", 24564, "8.9")])
    assert (mixed.count, mixed.hardware.card, mixed.kind.capability) == (2, "NVIDIA GeForce RTX", (8, 6))
    with pytest.raises(UnknownCards, match="several kinds"):
        of_state([gpu(0, "Tesla V100-SXM2-32GB", 32768, "7.0"), gpu(1, "Tesla P40", 23040, "6.1")])


def init(
    output: Path,
    *,
    hosts: tuple[str, ...] = (),
    cards: tuple[str, ...] = (),
    login: dict[str, object] | None = None,
    yes: bool = False,
) -> int:
    return command.init(Wishes(hosts, cards, login or {}, output, yes))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the person answers, in order; a question without an answer fails."""
    given: list[object] = []
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: given.pop(0))
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: given.pop(0))
    return given


def test_the_written_files_are_the_proposal(tmp_path: Path) -> None:
    """By the command as a program; then the files as every other command reads them."""
    words = (
        "--cards",
        "3 x V100-32GB",
        "--cards",
        "2 x P40",
        "--user",
        "ops",
        "--sudo",
        "--yes",
        "--output",
        str(tmp_path),
    )
    done = run(sys.executable, "-m", "stoker", "init", *words, cwd=PROJECT)
    assert done.code == 0, str(done)
    assert re.search(r"gpu-host-2 .*stoker_gateway +- +11436", done.out)
    assert "3.84x at 16,384" in done.out
    fleet = Description(tmp_path).load()
    machines = [Machine(f"gpu-host-{n}", parse(words)) for n, words in enumerate(("3 x V100-32GB", "2 x P40"), 1)]
    assert fleet == propose(machines, PINS).draft.fleet(PINS.versions)
    assert '("gpu-host-1", {"ssh_user": "ops", "_sudo": True})' in (tmp_path / "inventory.py").read_text(
        encoding="utf-8"
    )


def test_nothing_is_replaced_without_a_question(tmp_path: Path, answers: list[object]) -> None:
    (tmp_path / "inventory.py").write_text("mine = []\n", encoding="utf-8")
    for yes, said in ((True, []), (False, [False]), (False, [True, False])):
        answers[:] = said
        assert init(tmp_path, cards=("P40",), yes=yes) == 1
        assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [
            ("inventory.py", "mine = []\n")
        ]
        assert answers == []
    answers[:] = [True, True]
    assert init(tmp_path, cards=("P40",)) == 0
    assert "gpu-host-1" in (tmp_path / "inventory.py").read_text(encoding="utf-8")


def test_group_data_of_another_fleet_does_not_become_a_part_of_this_one(
    tmp_path: Path, answers: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data/old.py").touch()
    answers[:] = [True]
    assert init(tmp_path, cards=("P40",)) == 1
    assert "holds group_data/old.py" in capsys.readouterr().err


def test_hosts_are_asked_for_and_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, object]] = []

    def look(hosts: dict[str, object]) -> dict[str, HostState]:
        asked.append(hosts)
        return {host: HostState(driver="580.1", gpus=(gpu(0, "Tesla V100-PCIE-32GB", 32768, "7.0"),)) for host in hosts}

    monkeypatch.setattr(command, "look", look)
    answers[:] = ["192.168.31.10 192.168.31.11", True]
    assert init(tmp_path, login={"ssh_user": "ops"}) == 0
    assert asked == [{"192.168.31.10": {"ssh_user": "ops"}, "192.168.31.11": {"ssh_user": "ops"}}]
    assert "(found there)" in capsys.readouterr().out
    assert [host.gpus.card for host in Description(tmp_path).load().hosts] == ["V100", "V100"]


def test_a_host_that_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        command, "look", lambda hosts: {host: CannotLook(f"{host}: no SSH connection") for host in hosts}
    )
    assert init(tmp_path, hosts=("192.168.31.10",), yes=True) == 3
    assert "192.168.31.10: no SSH connection" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("hosts", "cards", "reason"),
    [
        ((), (), "no host is named"),
        (("a", "a"), (), "named twice"),
        (("a",), ("P40", "P40"), "given 2 times for 1 hosts"),
        ((), ("3 x Arc",), "names no card that is known"),
        ((), ("RTX 3060", "V100-24GB"), "a V100 has 32 or 16 GiB"),
    ],
)
def test_options_that_cannot_be_used(
    hosts: tuple[str, ...], cards: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, hosts=hosts, cards=cards, yes=True) == 3
    assert reason in capsys.readouterr().err


def test_the_files_are_formatted_as_the_project_is(tmp_path: Path) -> None:
    for name, text in files(proposal_for("3 x V100-32GB", "P40").draft, PINS).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = run(
        sys.executable, "-m", "ruff", "format", "--check", "--config", str(PROJECT / "pyproject.toml"), str(tmp_path)
    )
    assert done.code == 0, str(done)


def test_cards_are_looked_at_over_ssh_with_sudo(tmp_path: Path) -> None:
    """A real connection, and the probe's own script; nvidia-smi is a stand-in that answers root only."""
    row = "0, GPU-5a1d3c2e-7b64-4f0e-9d21-6c0f8e3b1a47, Tesla V100-SXM2-32GB, 32768, 7.0, 580.65, 00000000:3B:00.0, 4, Enabled, [N/A]"
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        f'#!/bin/sh\n[ "$AS_ROOT" ] || exit 4\ncase $1 in --query-gpu=*) echo "{row}" ;; esac\n', encoding="utf-8"
    )
    smi.chmod(0o755)
    with ssh_server(tmp_path) as port:
        login = {
            "ssh_port": port,
            "ssh_user": "operator",
            "ssh_password": "x",
            "ssh_known_hosts_file": str(tmp_path / "known"),
            "_sudo": True,
        }
        found = call(
            Call("stoker.propose.look", "look", ({"127.0.0.1": login},), environment={"HOME": str(tmp_path)})
        ).value
    state = found["127.0.0.1"]
    assert isinstance(state, HostState), state
    assert (state.driver, of_state(state.gpus).words) == ("580.65", "1 x V100 32 GiB")
