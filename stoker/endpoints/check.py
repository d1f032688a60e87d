"""The checks of the endpoints: each is called once, from here or from inside a container."""

from __future__ import annotations

from collections.abc import Iterator

from stoker.endpoints.endpoint import Endpoint, Endpoints
from stoker.endpoints.inside import Container
from stoker.smoke import answers, curl, texts
from stoker.smoke.check import Check, CheckFailed, Trace
from stoker.smoke.checks_instance import chat_body, embeddings_body, plain_chat_body
from stoker.smoke.plan import REQUEST_SECONDS

#: Where the requests come from, if from no container.
HERE = "this machine"


def checks(found: Endpoints, container: Container | None = None, seconds: int = REQUEST_SECONDS) -> Iterator[Check]:
    """One for the gateway and one for each model; ``seconds`` bounds each request."""
    place = f"{container.name}@{container.host}" if container else HERE

    def health(trace: Trace) -> str:
        answer = _ask(curl.Request(f"{found.unified_url}/health", seconds=seconds), container, trace)
        if answer.status != 200:
            raise _explained(CheckFailed("HTTP 200", answer.excerpt(), _UNREACHABLE), answer, found, container)
        return "200"

    if found.unified_url:
        yield Check(found.unified_url, place, "gateway", health)
    for endpoint in found.endpoints:
        yield _of(endpoint, found, container, place, seconds)


def _of(endpoint: Endpoint, found: Endpoints, container: Container | None, place: str, seconds: int) -> Check:
    def run(trace: Trace) -> str:
        if endpoint.key and not endpoint.key.value:
            raise CheckFailed(
                f"one of the gateway's keys in ${endpoint.key.variable}",
                "none of them is there",
                f"export {endpoint.key.variable}=...; `stoker key new NAME` makes a key, and a deploy lets it in",
            )
        answer = _ask(_request(endpoint, seconds), container, trace)
        try:
            return _evaluate(endpoint, answer)
        except CheckFailed as failure:
            raise _explained(failure, answer, found, container) from None

    return Check(f"{endpoint.model} at {endpoint.base_url}", place, endpoint.name, run)


def _request(endpoint: Endpoint, seconds: int) -> curl.Request:
    if endpoint.kind == "chat":
        body = plain_chat_body(endpoint.model) if endpoint.foreign else chat_body(endpoint.model, texts.SHORT_QUESTION)
        return curl.Request(f"{endpoint.base_url}/chat/completions", body, endpoint.key, seconds)
    return curl.Request(f"{endpoint.base_url}/embeddings", embeddings_body(endpoint.model), endpoint.key, seconds)


def _evaluate(endpoint: Endpoint, answer: curl.Answer) -> str:
    if endpoint.kind == "chat":
        return answers.chat(answer, endpoint.model, endpoint.foreign)
    first, _ = answers.embeddings(answer, endpoint.model, 2, endpoint.dimensions, endpoint.foreign)
    return f"{len(first)} finite values"


def _ask(request: curl.Request, container: Container | None, trace: Trace) -> curl.Answer:
    trace.commands.append(container.printed(request) if container else curl.printed(request))
    return container.run(request) if container else curl.run(request)


_UNREACHABLE = "see whether the gateway runs (stoker status), and whether a firewall stands between"


def _explained(failure: CheckFailed, answer: curl.Answer, found: Endpoints, container: Container | None) -> CheckFailed:
    """What is different for a container."""
    if container is None:
        return failure
    remedy = failure.remedy
    if "network_not_allowed" in answer.body:
        remedy = (
            f"containers of the gateway's own host come to it from Docker's addresses (docker network inspect {found.network or 'NETWORK'} "
            "shows the subnet), those of other hosts from their host's: add it to allowed_networks and deploy; "
            "docs/endpoints.md says whom that lets in"
        )
    elif "Could not resolve host" in answer.error and found.network:
        remedy = f"put the container into the network: docker network connect {found.network} {container.name}"
    return CheckFailed(failure.expected, failure.found, remedy)
