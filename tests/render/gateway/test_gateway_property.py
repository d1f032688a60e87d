"""Generated bodies: each goes to the pool that Python's json finds in it, or is refused cleanly; no other pool, no 500.

What is valid is decided by RFC 8259: UTF-8, and no NaN or Infinity, which Python's json alone takes. The gateway also skips one byte
order mark, as Python's json does.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from gateway_members import Member
from gateway_process import Reply, RunningGateway, pool_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

#: Names that a body may give; some are served, some nearly.
NAMES = [
    "llama3.1-8b",
    "qwen2.5-14b",
    "bge-m3",
    "bge-m3:latest",
    "bge-m3:567m",
    "gpt-4",
    "llama3.1-8b ",
    "__proto__",
    "\ud83d\ude00",
    "",
]
POOL_OF_NAME = {"llama3.1-8b": "llama", "qwen2.5-14b": "qwen", "bge-m3": "ollama", "bge-m3:latest": "ollama"}


@dataclass(frozen=True)
class Path:
    """One path of the unified gateway: its pools, and the one for a body without a model."""

    path: str
    pools: tuple[str, ...]
    default: str
    prefix: bool = False


PATHS = [
    Path("/v1/chat/completions", ("llama", "qwen"), "llama"),
    Path("/v1/completions", ("llama", "qwen"), "llama"),
    Path("/qwen/v1/chat/completions", ("qwen",), "qwen", prefix=True),
    Path("/v1/embeddings", ("ollama",), "ollama"),
    Path("/embed/api/embed", ("ollama",), "ollama", prefix=True),
]

#: The same examples in every run; some hundred requests to a real nginx take a second.
MANY = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)


# --- what is expected ---


class NotJson(ValueError):
    """Not JSON as RFC 8259 has it."""


def _no_constant(name: str) -> object:
    raise NotJson(name)


def read(raw: bytes) -> Any:
    """What Python's json reads, the last of two equal keys included. Raises ValueError for what RFC 8259 does not allow."""
    text = raw.decode("utf-8").removeprefix("\ufeff")
    return json.loads(text, parse_constant=_no_constant, parse_int=float)


def expected(where: Path, raw: bytes) -> tuple[int, str]:
    """(200, pool) or (status, code of the error)."""
    try:
        body = read(raw)
    except ValueError:
        return 400, "invalid_json"
    if not isinstance(body, dict):
        return 400, "invalid_json"
    if where.default == "ollama" and any(key != "model" and key.lower() == "model" for key in body):
        return 400, "invalid_model"
    model = body.get("model")
    if where.default == "ollama" and "model" in body and model is None:
        return 400, "invalid_model"
    if model is None or model == "":
        return 200, where.default
    if not isinstance(model, str):
        return 400, "invalid_model"
    pool = POOL_OF_NAME.get(model)
    if pool in where.pools:
        return 200, pool
    return (404, "model_not_found") if pool is None or where.prefix else (400, "wrong_path")


# --- bodies ---


@st.composite
def written(draw: st.DrawFn, text: str) -> str:
    """A string as JSON: each character as it is, or as an escape in either case of letters."""
    ways = draw(st.lists(st.integers(0, 2), min_size=len(text), max_size=len(text)))
    return '"' + "".join(_character(character, way) for character, way in zip(text, ways, strict=True)) + '"'


def _character(character: str, way: int) -> str:
    short = json.dumps(character)[1:-1]
    if way == 0:
        return (
            character
            if short == character or (ord(character) > 0x7F and not "\ud800" <= character <= "\udfff")
            else short
        )
    units = character.encode("utf-16-be", "surrogatepass")
    escapes = [units[index : index + 2].hex() for index in range(0, len(units), 2)]
    return "".join("\\u" + (escape.upper() if way == 2 else escape) for escape in escapes)


NUMBERS = st.sampled_from(
    ["0", "-0", "1", "-12.5", "1e5", "1E+400", "1e-400", "9" * 400, "0.1", "123456789012345678901234567890"]
)
TEXTS = st.text(max_size=8)  # lone surrogates included: escaped they are valid JSON
SPACE = st.text(alphabet=" \t\r\n", max_size=2)
WORDS = st.sampled_from(["true", "false", "null"])
VALUES: st.SearchStrategy[str] = st.recursive(
    st.one_of(NUMBERS, WORDS, TEXTS.flatmap(written), st.sampled_from(NAMES).flatmap(written)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(st.tuples(TEXTS.flatmap(written), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
KEYS = st.one_of(
    st.sampled_from(["messages", "models", "model ", "Model", "__proto__", "constructor", "stream"]), TEXTS
).flatmap(written)
NAMED = st.one_of(
    st.sampled_from(NAMES).map(json.dumps),
    st.sampled_from(NAMES).flatmap(written),
    st.sampled_from(["null", "true", "0", "[]", "{}", '["qwen2.5-14b"]']),
)
MODELS = st.one_of(NAMED, VALUES)
PAIRS = st.one_of(st.tuples(st.just('"model"'), MODELS), st.tuples(written("model"), MODELS), st.tuples(KEYS, VALUES))


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """A JSON object with none to four ``model`` keys in any place, in UTF-8, perhaps behind a byte order mark."""
    pairs = draw(st.lists(PAIRS, max_size=3))
    if draw(st.integers(0, 4)):  # mostly a model, and it the last of its key
        pairs.append(('"model"', draw(NAMED)))
    if draw(st.booleans()):
        pairs.append((draw(KEYS), draw(VALUES)))
    spaces = [draw(SPACE) for _ in range(3)]
    inside = f"{spaces[0]},{spaces[1]}".join(f"{key}{spaces[0]}:{spaces[2]}{value}" for key, value in pairs)
    mark = draw(st.sampled_from(["", "", "", "\ufeff"]))
    return f"{mark}{spaces[1]}{{{spaces[2]}{inside}{spaces[0]}}}{spaces[2]}".encode()


GARBAGE = st.one_of(
    st.sampled_from(
        [
            b",",
            b"}",
            b"{}",
            b"\0",
            b"NaN",
            b"-Infinity",
            b"\xff",
            b"\xef\xbb\xbf",
            b"//x",
            b"'",
            b"\\",
            b'"',
            b"01",
            b"\x0b",
            b"\xc2\xa0",
        ]
    ),
    st.binary(max_size=3),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An object with a few bytes cut out of it or put into it, anywhere or at its end."""
    raw = draw(objects())
    start = draw(st.one_of(st.integers(0, len(raw)), st.just(len(raw))))
    end = min(len(raw), start + draw(st.integers(0, 3)))
    return raw[:start] + draw(GARBAGE) + raw[end:]


# --- the checks ---


def outcome(reply: Reply) -> tuple[int, str]:
    return (200, pool_of(reply)) if reply.status == 200 else (reply.status, reply.error["code"])


def check(gateway: RunningGateway, members: list[Member], where: Path, raw: bytes, sent: object = None) -> None:
    for member in members:
        member.forget()
    reply = gateway.ask(where.path, raw=raw if sent is None else sent)  # type: ignore[arg-type]
    assert outcome(reply) in allowed(where, raw), raw
    received = [request.body for member in members for request in member.received]
    assert received == ([raw] if reply.status == 200 else []), "one member gets the body, byte for byte"


def allowed(where: Path, raw: bytes) -> set[tuple[int, str]]:
    """The one right outcome. For bytes that are not UTF-8 also that of reading them with U+FFFD in their place, as the engines refuse them."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return {(400, "invalid_json"), expected(where, raw.decode("utf-8", "replace").encode())}
    return {expected(where, raw)}


@MANY
@given(where=st.sampled_from(PATHS), raw=objects())
def test_a_valid_body_goes_where_pythons_json_says(
    shared_gateway: RunningGateway, all_members: list[Member], where: Path, raw: bytes
) -> None:
    read(raw)
    check(shared_gateway, all_members, where, raw)


@MANY
@given(
    where=st.sampled_from(PATHS),
    raw=st.one_of(damaged(), st.binary(max_size=40), VALUES.map(lambda text: text.encode("utf-8", "replace"))),
)
def test_any_other_body_goes_there_too_or_is_refused(
    shared_gateway: RunningGateway, all_members: list[Member], where: Path, raw: bytes
) -> None:
    check(shared_gateway, all_members, where, raw)


@settings(MANY, max_examples=100)
@given(raw=st.one_of(objects(), damaged()), cuts=st.lists(st.integers(1, 200), max_size=5))
def test_a_body_in_chunks_is_decided_as_a_whole(
    shared_gateway: RunningGateway, all_members: list[Member], raw: bytes, cuts: list[int]
) -> None:
    check(shared_gateway, all_members, PATHS[0], raw, sent=_pieces(raw, sorted(cuts)))


def _pieces(raw: bytes, cuts: list[int]) -> Iterator[bytes]:
    bounds = [0, *(cut for cut in cuts if cut < len(raw)), len(raw)]
    for start, end in itertools.pairwise(bounds):
        if end > start:
            yield raw[start:end]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_refused(gateway: RunningGateway, all_members: list[Member], encoding: str) -> None:
    """Python's json guesses them; RFC 8259 wants UTF-8, and so does the gateway."""
    raw = '{"model": "qwen2.5-14b"}'.encode(encoding)
    assert json.loads(raw)["model"] == "qwen2.5-14b"
    assert outcome(gateway.ask(PATHS[0].path, raw=raw)) == (400, "invalid_json")
    assert not any(member.received for member in all_members)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_only_python_calls_a_number_is_refused(gateway: RunningGateway, constant: str) -> None:
    raw = f'{{"temperature": {constant}, "model": "qwen2.5-14b"}}'
    assert json.loads(raw)["model"] == "qwen2.5-14b"
    assert outcome(gateway.ask(PATHS[0].path, raw=raw.encode())) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("opened", "closed"), [("[", "]"), ('{"a":', "}"), ('[{"model":', "}]")], ids=["arrays", "objects", "both"]
)
def test_deep_nesting_ends_no_worker(
    gateway: RunningGateway, all_members: list[Member], opened: str, closed: str
) -> None:
    """As deep as Python's json reads (some 990), the decision is its own; deeper, a body may also be refused."""

    def ask(depth: int) -> tuple[int, str]:
        raw = f'{{"deep": {opened * depth}1{closed * depth}, "model": "qwen2.5-14b"}}'.encode()
        return outcome(gateway.ask(PATHS[0].path, raw=raw))

    assert ask(450) == (200, "qwen")
    assert {ask(depth) for depth in (1_000, 3_000, 10_000, 100_000, 1_000_000)} <= {
        (200, "qwen"),
        (400, "invalid_json"),
    }
    assert "exited on signal" not in gateway.output()
    assert gateway.ask("/health").status == 200
