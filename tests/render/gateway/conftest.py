"""The default fleet's two gateways, running in front of small members."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_fleet
import pytest
from gateway_members import Member, running_members
from gateway_process import RunningGateway, Start, StartProtected, running_gateway

from stoker.spec.gateway import Limits


@pytest.fixture(scope="module")
def all_members() -> Iterator[list[Member]]:
    members = gateway_fleet.members()
    with running_members(members):
        yield members


@pytest.fixture(scope="module")
def shared_gateway(all_members: list[Member], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    directory = tmp_path_factory.mktemp("unified") / "etc"
    with running_gateway(gateway_fleet.unified(), all_members, directory) as running:
        yield running


@pytest.fixture
def gateway(shared_gateway: RunningGateway, all_members: list[Member]) -> RunningGateway:
    """The unified gateway; its members have forgotten what earlier tests did."""
    for member in all_members:
        member.forget()
    return shared_gateway


@pytest.fixture(scope="module")
def llm_gateway(all_members: list[Member], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    directory = tmp_path_factory.mktemp("llm") / "etc"
    with running_gateway(gateway_fleet.llm_only(), all_members, directory) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a gateway of its own for a test that makes members fail: nginx remembers failures for seconds."""
    with contextlib.ExitStack() as stack:

        def start_one(members: list[Member], **limits: int) -> RunningGateway:
            gateway = gateway_fleet.unified().model_copy(update={"limits": Limits(**limits)})
            return stack.enter_context(running_gateway(gateway, members, tmp_path / "etc"))

        yield start_one


@pytest.fixture
def protected(tmp_path: Path, all_members: list[Member]) -> Iterator[StartProtected]:
    """Starts the unified gateway with other words on who may use it, in front of members that have forgotten everything."""
    with contextlib.ExitStack() as stack:

        def start_one(**fields: Any) -> RunningGateway:
            for member in all_members:
                member.forget()
            gateway = gateway_fleet.unified_with(**fields)
            return stack.enter_context(running_gateway(gateway, all_members, tmp_path / "etc"))

        yield start_one
