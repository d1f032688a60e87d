"""The checks of one gateway: its own paths, every route to every pool, streaming, spread, long texts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from stoker.smoke import answers, curl, spread, stream, texts
from stoker.smoke.check import Check, CheckFailed, Trace
from stoker.smoke.checks_host import HostWitness
from stoker.smoke.checks_instance import (
    CHAT_PATH,
    EMBEDDINGS_PATH,
    ask,
    chat_body,
    embeddings_body,
    long_texts,
    plain_chat_body,
    two_texts,
)
from stoker.smoke.pinned import CA_VARIABLE
from stoker.smoke.target import GATEWAY_KEY, Entrance, Member
from stoker.spec.external import External
from stoker.spec.fleet import Fleet
from stoker.spec.gateway import Pool

#: Tokens of the stream, and of those that are asked for when it came all at once: a small model writes 64 tokens before a busy
#: computer has read the first (seen with real vLLM on a CPU). A proxy that collects answers collects the long ones too.
_STREAM_TOKENS = (64, 256, 1024)


def checks(fleet: Fleet, entrance: Entrance, witness: HostWitness, seconds: int) -> Iterator[Check]:
    """``seconds`` bounds each request."""
    pools = entrance.gateway.pools
    yield _check(entrance, "/health", _request(entrance, "/health", seconds), _health)
    if entrance.gateway.keys and not entrance.key:
        yield Check("key", entrance.host.name, entrance.gateway.container, _no_key, gateway=_id(entrance))
        return
    names = [pool.model for pool in pools]
    key = entrance.key or next(
        (member.key for pool in pools for member in entrance.members(fleet, pool) if member.key), None
    )
    request = _request(entrance, "/v1/models", seconds, key)
    yield _check(entrance, "/v1/models", request, lambda answer: answers.models(answer, names))
    for pool in pools:
        if pool.external:
            yield from _service(entrance, pool, pool.external, seconds)
            continue
        members = entrance.members(fleet, pool)
        yield from _routes(entrance, pool, members[0], seconds)
        if pool.kind == "chat":
            yield _stream(entrance, pool, members[0], seconds)
        else:
            yield long_texts(
                f"long text by {pool.name}",
                members[0],
                _request(entrance, EMBEDDINGS_PATH, seconds, members[0].key),
                (entrance.host.name, entrance.gateway.container),
                _id(entrance),
            )
        if len(members) > 1:
            yield spread.check(entrance, pool, members, witness, seconds)


def _routes(entrance: Entrance, pool: Pool, member: Member, seconds: int) -> Iterator[Check]:
    """The route by the body's model, and the one by the pool's prefix. The answer's `model` proves both."""
    path = CHAT_PATH if pool.kind == "chat" else EMBEDDINGS_PATH
    body = chat_body(pool.model, texts.SHORT_QUESTION) if pool.kind == "chat" else embeddings_body(pool.model)

    def evaluate(answer: curl.Answer) -> str:
        return answers.chat(answer, pool.model) if pool.kind == "chat" else two_texts(answer, member)

    for prefix in ("", pool.prefix):
        if prefix is not None:
            request = _request(entrance, prefix + path, seconds, member.key, body)
            yield _check(entrance, f"{prefix}{path} {pool.model}", request, evaluate)


def _service(entrance: Entrance, pool: Pool, external: External, seconds: int) -> Iterator[Check]:
    """One small request: it is somebody else's service, and each costs."""
    path = CHAT_PATH if pool.kind == "chat" else EMBEDDINGS_PATH
    body = plain_chat_body(pool.model) if pool.kind == "chat" else embeddings_body(pool.model)

    def evaluate(answer: curl.Answer) -> str:
        if pool.kind == "chat":
            return answers.chat(answer, pool.model, foreign=True)
        first, _ = answers.embeddings(answer, pool.model, 2, external.dimensions, foreign=True)
        return f"{len(first)} finite values"

    request = _request(entrance, path, seconds, entrance.key, body)
    yield _check(entrance, f"{path} {pool.model} by {external.host}", request, evaluate)


def _stream(entrance: Entrance, pool: Pool, member: Member, seconds: int) -> Check:
    def run(trace: Trace) -> str:
        *first, last = (chat_body(pool.model, texts.COUNT, tokens=tokens, stream=True) for tokens in _STREAM_TOKENS)
        for body in first:
            with contextlib.suppress(stream.NotInPieces):
                return once(body, trace)
        return once(last, trace)

    def once(body: dict[str, object], trace: Trace) -> str:
        # Not what ran, but what shows the same to a person: curl -N prints each piece as it comes.
        request = _request(entrance, CHAT_PATH, seconds, member.key, body)
        trace.commands.append(curl.printed(request).replace("curl -q", "curl -N -q", 1))
        found = stream.read(request)
        trace.request_ids += [found.request_id] if found.request_id else []
        return stream.evaluate(found, pool.model)

    return Check(f"stream of {pool.model}", entrance.host.name, entrance.gateway.container, run, gateway=_id(entrance))


def _request(
    entrance: Entrance,
    path: str,
    seconds: int,
    key: curl.Key | None = None,
    body: Mapping[str, object] | None = None,
) -> curl.Request:
    return curl.Request(entrance.url + path, body, key, seconds, entrance.connect)


def _check(entrance: Entrance, name: str, request: curl.Request, evaluate: Callable[[curl.Answer], str]) -> Check:
    return Check(
        name,
        entrance.host.name,
        entrance.gateway.container,
        lambda trace: evaluate(ask(request, trace)),
        gateway=_id(entrance),
    )


def _health(answer: curl.Answer) -> str:
    if "certificate" in answer.error:
        raise CheckFailed(
            "a certificate that curl trusts here",
            answer.excerpt(),
            f"an authority of your own: {CA_VARIABLE}=ITS-CERTIFICATE.pem stoker smoke; another name: `tls.domain` in group_data",
        )
    if answer.status != 200 or answer.body.strip() != "OK":
        raise CheckFailed(
            "HTTP 200 with the text OK", answer.excerpt(), "see whether the gateway runs (docker ps -a, docker logs)"
        )
    return "200 OK"


def _no_key(trace: Trace) -> str:
    raise CheckFailed(
        f"one of the gateway's keys in ${GATEWAY_KEY}",
        f"${GATEWAY_KEY} holds another one" if os.environ.get(GATEWAY_KEY) else f"${GATEWAY_KEY} is not set",
        f"make a key for yourself (stoker key new smoke), deploy, and export {GATEWAY_KEY}=...",
    )


def _id(entrance: Entrance) -> tuple[str, str]:
    return entrance.host.name, entrance.gateway.container
