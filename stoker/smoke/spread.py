"""Is the load spread over all instances of a pool? Many requests at once through the gateway, and then its log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from stoker.smoke import gateway_log
from stoker.smoke.check import Check, CheckFailed, CheckSkipped, Trace
from stoker.smoke.checks_host import ACCESS, HostWitness
from stoker.smoke.checks_instance import CHAT_PATH, EMBEDDINGS_PATH, chat_body, embeddings_body
from stoker.smoke.curl import CONNECT_SECONDS, Request
from stoker.smoke.pinned import CA_VARIABLE, pinned, trusted
from stoker.smoke.ssh import AccessError
from stoker.smoke.target import Entrance, Member
from stoker.smoke.texts import COUNT
from stoker.spec.gateway import Kind, Pool

#: least_conn gives each member the next request while the others are busy; three rounds leave room for other clients.
_ROUNDS = 3
_MOST_REQUESTS = 64
#: The gateway leaves a member that failed out for 5 s (templates/gateway), for instance one that a client asked while it was loading.
_LEFT_OUT_SECONDS = 6
_AGAIN_SECONDS = 1.5
#: nginx writes its log at once and Docker within milliseconds.
_LOG_SECONDS = 5


class _Idle(CheckFailed):
    """A member got none of the requests."""


@dataclass(frozen=True)
class Load:
    """Equal requests, sent at once."""

    request: Request
    count: int


@dataclass(frozen=True)
class Reply:
    status: int
    request_id: str
    #: Beginning of the body, or the network's error.
    text: str


def check(entrance: Entrance, pool: Pool, members: Sequence[Member], witness: HostWitness, seconds: int) -> Check:
    """Every member of the pool answers some of the requests."""
    path, body = _request(pool.kind, pool.model)
    request = Request(entrance.url + path, body, members[0].key, seconds, entrance.connect)
    load = Load(request, min(_ROUNDS * len(members), _MOST_REQUESTS))
    container = entrance.gateway.container

    def run(trace: Trace) -> str:
        patience = time.monotonic() + _LEFT_OUT_SECONDS
        while True:
            try:
                return once(trace)
            except _Idle:
                if time.monotonic() > patience:
                    raise
            time.sleep(_AGAIN_SECONDS)

    def once(trace: Trace) -> str:
        started = time.monotonic()
        replies = send(load)
        trace.request_ids += [reply.request_id for reply in replies if reply.status != 200 and reply.request_id]
        if witness.shell is not None:
            command = witness.shell.line(f"docker logs --since 1m {container}", sudo=True)
            trace.commands[:] = [*dict.fromkeys([*trace.commands, command])]
        all_answered(replies)
        try:
            counts = _counts(witness, container, [reply.request_id for reply in replies], started)
        except AccessError as error:
            raise CheckSkipped(
                f"all {len(replies)} requests were answered, but the gateway's log cannot be read: see {ACCESS!r}"
            ) from error
        return evaluate(counts, [member.instance.name for member in members], len(replies))

    return Check(
        f"spread over {pool.name}", entrance.host.name, container, run, gateway=(entrance.host.name, container)
    )


def send(load: Load) -> list[Reply]:
    """All requests at once, each bounded by its own seconds."""
    request = load.request
    to = pinned(request.url, request.connect)
    headers = {**to.headers, **({"Authorization": f"Bearer {request.key.value}"} if request.key else {})}
    limits = httpx.Limits(max_connections=load.count)
    try:
        authorities = trusted()
    except OSError as error:
        return [Reply(0, "", f"{CA_VARIABLE}: {error}")] * load.count
    with httpx.Client(
        trust_env=False,
        timeout=httpx.Timeout(request.seconds, connect=CONNECT_SECONDS),
        limits=limits,
        verify=authorities,
    ) as client:

        def one(_: int) -> Reply:
            try:
                response = client.post(
                    to.url, json=dict(request.body or {}), headers=headers, extensions=dict(to.extensions)
                )
            except httpx.HTTPError as error:
                return Reply(0, "", f"{type(error).__name__}: {error}")
            return Reply(response.status_code, response.headers.get("x-request-id", ""), response.text[:300])

        with ThreadPoolExecutor(load.count) as pool:
            return list(pool.map(one, range(load.count)))


def all_answered(replies: Sequence[Reply]) -> None:
    """Raises CheckFailed when a request was not answered with 200."""
    bad = [reply for reply in replies if reply.status != 200]
    if bad:
        kinds = Counter(f"HTTP {reply.status}: {reply.text}" if reply.status else reply.text for reply in bad)
        raise CheckFailed(
            f"{len(replies)} answers with HTTP 200",
            "\n".join(f"{count} x {text}" for text, count in kinds.most_common(3)),
            "the checks of the pool's instances say which one fails",
        )


def evaluate(counts: Mapping[str, int], names: Sequence[str], sent: int) -> str:
    """Requests by instance; every one of ``names`` has some. Raises CheckFailed."""
    shown = ", ".join(f"{name} {counts.get(name, 0)}" for name in dict.fromkeys([*names, *counts]))
    idle = [name for name in names if not counts.get(name)]
    if idle:
        raise _Idle(
            f"{sent} requests at once reach all {len(names)} instances",
            f"none reached {', '.join(idle)} ({shown})",
            "the gateway leaves out a member that failed: see that instance's own checks; if they pass, deploy the gateway again",
        )
    return shown


def _counts(witness: HostWitness, container: str, request_ids: Sequence[str], started: float) -> Counter[str]:
    wanted = set(request_ids) - {""}
    deadline = time.monotonic() + _LOG_SECONDS
    while True:
        found = gateway_log.answering(witness.log(container, time.monotonic() - started), wanted)
        if len(found) == len(wanted) and wanted:
            return Counter(member or "(none)" for member in found.values())
        if time.monotonic() > deadline or not wanted:
            raise CheckFailed(
                "each answer's X-Request-ID in the gateway's log",
                f"{len(found)} of {len(request_ids)} are there",
                "the answers do not come from this gateway, or it is older than the description: deploy again",
            )
        time.sleep(0.1)


def _request(kind: Kind, model: str) -> tuple[str, dict[str, object]]:
    return (CHAT_PATH, chat_body(model, COUNT)) if kind == "chat" else (EMBEDDINGS_PATH, embeddings_body(model))
