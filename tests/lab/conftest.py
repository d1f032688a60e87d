"""The lab's fleet for the tests that deploy: made bare once, deployed once, and served again after each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import ROOT, run
from support.machine import GPU10, GPU40, GPU65, HOSTS, INTERNET, Machine
from support.project import CHECKOUT, Project, Served, changed, copy_to

#: A simulated load that is long enough to be seen and short enough for many tests.
LOAD_SECONDS = 1.0

_LAB_SECONDS = 600  # from nothing it downloads packages
_DEPLOY_SECONDS = 180


@pytest.fixture(scope="session")
def _lab() -> None:
    """The lab is up. A test of the lab that cannot run has failed: nothing is skipped."""
    done = run(str(ROOT / "lab/up"), seconds=_LAB_SECONDS)
    if done.code:
        said = (done.err.strip() or done.out.strip()).splitlines()
        pytest.fail(
            f"the lab cannot come up: {said[-1] if said else f'exit status {done.code}'} (run lab/up to see more)",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def served(_lab: None, request: pytest.FixtureRequest) -> Served:
    """Two bare hosts, brought to serving by one command. Fault tests alone take the hosts as they are: they do not ask how it went."""
    if any(item.get_closest_marker("fault") is None for item in request.session.items):
        bare = run(str(ROOT / "lab/up"), "--fresh", seconds=_LAB_SECONDS)
        if bare.code:
            pytest.fail(f"the lab's hosts cannot be made bare:\n{bare}", pytrace=False)
    for host in HOSTS:
        host.set_load_seconds(LOAD_SECONDS)
    deploy = CHECKOUT.deploy(seconds=_DEPLOY_SECONDS)
    if deploy.code:
        pytest.fail(f"the first deploy failed, no test that needs the fleet can run:\n{deploy}", pytrace=False)
    return Served(deploy, CHECKOUT.stoker("smoke", seconds=60))


@pytest.fixture(scope="session")
def third_host(_lab: None) -> None:
    """The lab's host on demand, with whatever an earlier test has left there."""
    up = run(str(ROOT / "lab/up"), "--with", "gpu40", seconds=_LAB_SECONDS)
    assert up.code == 0, str(up)
    GPU40.set_load_seconds(LOAD_SECONDS / 2)


@pytest.fixture
def fleet(served: Served) -> Iterator[None]:
    """The fleet serves when the test begins, and again when it has ended, whatever it did."""
    yield
    for host in HOSTS:
        host.set_load_seconds(LOAD_SECONDS)
    healed = CHECKOUT.deploy(seconds=_DEPLOY_SECONDS)
    if healed.code or changed(healed):
        again = CHECKOUT.check()
        if healed.code or again.code:
            pytest.fail(
                f"after this test a deploy of the unchanged description does not bring the fleet back:\n{healed}\n{again}",
                pytrace=False,
            )


@pytest.fixture
def project(fleet: None, tmp_path: Path) -> Project:
    """A copy of the description, to be edited."""
    return copy_to(tmp_path)


@pytest.fixture
def reader(served: Served, tmp_path: Path) -> Project:
    """The same for a test that changes nothing on any host."""
    return copy_to(tmp_path)


@pytest.fixture
def gpu10(fleet: None) -> Machine:
    return GPU10


@pytest.fixture
def gpu65(fleet: None) -> Machine:
    return GPU65


@pytest.fixture
def internet(fleet: None) -> Iterator[Machine]:
    """The machine that stands for the internet; its faults are cleared afterwards."""
    yield INTERNET
    INTERNET.sh("rm -f /run/lab-internet/faults.json")
