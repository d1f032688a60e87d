"""The checks of one instance, asked directly at its own port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from stoker.smoke import answers, curl, curl_there, texts
from stoker.smoke.check import Check, CheckFailed, CheckSkipped, Trace
from stoker.smoke.checks_host import ACCESS, HostWitness
from stoker.smoke.ssh import AccessError
from stoker.smoke.target import Member, base_url, kind_of
from stoker.spec.fleet import Fleet

CHAT_PATH = "/v1/chat/completions"
EMBEDDINGS_PATH = "/v1/embeddings"

Evaluation = Callable[[curl.Answer], str]


def checks(fleet: Fleet, member: Member, witness: HostWitness, seconds: int) -> Iterator[Check]:
    """``seconds`` bounds each request. An instance whose port is closed to this machine is asked by its own host."""
    closed = member.host.settings.firewall == "engines"
    url = base_url("127.0.0.1", member.instance.port) if closed else member.url
    by = witness if closed else None

    def check(name: str, path: str, body: dict[str, object] | None, evaluate: Evaluation) -> Check:
        request = curl.Request(url + path, body, member.key, seconds)
        return Check(name, member.host.name, member.instance.name, lambda trace: evaluate(ask(request, trace, by)))

    model = member.instance.model
    yield check("models", "/v1/models", None, lambda answer: answers.models(answer, [model]))
    if kind_of(fleet, member.instance) == "chat":
        for name, question in (("chat", texts.SHORT_QUESTION), ("longer chat", texts.LONG_QUESTION)):
            yield check(name, CHAT_PATH, chat_body(model, question), lambda answer: answers.chat(answer, model))
        return
    yield check("embeddings", EMBEDDINGS_PATH, embeddings_body(model), lambda answer: two_texts(answer, member))
    yield long_texts("long text", member, curl.Request(url + EMBEDDINGS_PATH, key=member.key, seconds=seconds), by=by)
    if member.instance.engine == "ollama" and member.host.profile_of(member.instance).uses_cards:
        yield check("on the GPU", "/api/ps", None, lambda answer: answers.resident(answer, model))


def ask(request: curl.Request, trace: Trace, by: HostWitness | None = None) -> curl.Answer:
    """Run a request and note it; from the host ``by`` where one is given."""
    if by is None:
        trace.commands.append(curl.printed(request))
        answer = curl.run(request)
    else:
        shell = by.usable()
        trace.commands.append(curl_there.printed(request, shell))
        try:
            answer = curl_there.run(request, shell)
        except AccessError as error:
            if by.reached:
                raise CheckFailed("an answer of the host", error.reason, error.remedy) from error
            raise CheckSkipped(
                f"the port is closed to this machine, and the host itself cannot be asked: see the check {ACCESS!r}"
            ) from error
    if answer.request_id:
        trace.request_ids.append(answer.request_id)
    return answer


def chat_body(model: str, question: str, tokens: int = 24, stream: bool = False) -> dict[str, object]:
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    return {**body, "stream": True} if stream else body


def plain_chat_body(model: str) -> dict[str, object]:
    """Without `max_tokens` and `temperature`, which some of OpenAI's own models refuse."""
    return {"model": model, "messages": [{"role": "user", "content": texts.SHORT_QUESTION}]}


def embeddings_body(model: str) -> dict[str, object]:
    return {"model": model, "input": list(texts.PAIR)}


def two_texts(answer: curl.Answer, member: Member) -> str:
    first, second = answers.embeddings(answer, member.instance.model, 2, member.dimensions)
    found = answers.differ(
        first, second, "two texts", "the engine does not look at the text; read its log (docker logs)"
    )
    return f"{len(first)} finite values, {found}"


def long_texts(
    name: str,
    member: Member,
    request: curl.Request,
    of: tuple[str, str] | None = None,
    gateway: tuple[str, str] | None = None,
    by: HostWitness | None = None,
) -> Check:
    """A text of 6000 words and its first 2500 have different vectors: the engine reads past Ollama's usual 2048 tokens.

    ``request`` lacks the texts. ``of`` is host and subject when the check is not the member's own but a gateway's.
    """
    model = member.instance.model

    def run(trace: Trace) -> str:
        if member.context is not None and member.context < texts.LONG_TOKENS:
            raise CheckSkipped(
                f"{model} takes {member.context} tokens by its description; the text needs {texts.LONG_TOKENS}"
            )
        body: dict[str, object] = {"model": model, "input": [texts.long_text(), texts.cut_text()]}
        answer = ask(replace(request, body=body), trace, by)
        long, cut = answers.embeddings(answer, model, 2, member.dimensions)
        return answers.differ(
            long,
            cut,
            f"{texts.LONG_WORDS} words and their first {texts.CUT_WORDS}",
            f"the engine cuts long texts: {model} must be served with num_ctx and num_batch 8192 (deploy again)",
        )

    host, subject = of or (member.host.name, member.instance.name)
    return Check(name, host, subject, run, gateway=gateway)
