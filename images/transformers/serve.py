#!/usr/bin/env python3
"""`transformers serve` as an engine of Stoker: under the model's names, ready when it answers, gone when it has died.

    serve.py --model DIRECTORY [--served-model-name NAME ...] [--dtype half] [--device cuda:0] [--max-model-len N]

It starts `transformers serve` (5.19.0, of which all that is said here was seen) on a port that only this container reaches, and
answers on port 8000 for it:

* /health: 503 while the model loads, 200 from then on, 503 when the engine has died. Then this program ends too, with the engine's exit
  status or 1, so that Docker starts the container anew.
* /v1/models: the served names. The engine itself lists what lies in a Hugging Face cache, and fails where there is none.
* /v1/chat/completions, /v1/completions: under a served name; the engine knows the model by its path only, and answers 400 to any other
  name. Another name is a 404. A stream ends with `data: [DONE]`, and has `usage` when `stream_options.include_usage` asks for it.
  Errors have OpenAI's form.
* /metrics: requests that run and wait, tokens, in Prometheus' text format.

The engine computes one request at a time; others wait here, in the order in which they came. The engine is always asked for a stream, which
is put together where the client did not want one: so a request ends when its client has gone, and does not keep the next one waiting.

Fields that the engine would silently ignore and that change the answer (n, logprobs, response_format, ...) are refused with 400.
top_k, min_p, repetition_penalty, min_tokens and ignore_eos are given to it as it takes them; a temperature above 0 samples, whatever
the model's own generation_config.json says. frequency_penalty is used by the engine as a repetition penalty of 1 + its value.

Code that comes with a model is never run (no --trust-remote-code), and nothing is downloaded.
SIGTERM: new requests are refused, the running one has STOP_SECONDS to end, then both end; exit status 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send
from tokenizers import Tokenizer

POLL_SECONDS = 0.2  # how often the engine is asked while it loads
LINGER_SECONDS = 1.0  # how long /health says 503 after the engine's death, before this program ends
STOP_SECONDS = 5.0  # what a running request gets when the container is stopped
DEFAULT_TOKENS = (
    1024  # of an answer whose length the request does not limit: the engine's own default (5.19.0, serving/utils.py)
)

PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions"}
#: Handed to the engine as they are.
PASSED = {
    "chat": ("messages", "tools", "chat_template_kwargs", "logit_bias", "stop", "seed", "top_p", "frequency_penalty"),
    "text": ("prompt", "suffix", "stop", "seed", "top_p", "frequency_penalty"),
}
#: Used here, or without influence on the answer.
USED = {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "ignore_eos"} | {
    *("user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key")
}
#: Request field -> the same in a generation_config.
GENERATION = {
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "min_tokens": "min_new_tokens",
}
#: Values of other fields that ask for nothing.
NEUTRAL = {
    "n": 1, "best_of": 1, "logprobs": False, "top_logprobs": 0, "echo": False, "presence_penalty": 0, "tool_choice": "auto",
    "response_format": {"type": "text"}, "logit_bias": {},
}  # fmt: skip
TYPES = {400: "BadRequestError", 404: "NotFoundError", 503: "ServiceUnavailableError"}


class Refused(Exception):
    """The request is answered with this status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def say(text: str) -> None:
    print(f"serve.py: {text}", flush=True)


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error as OpenAI's and vLLM's clients expect it."""
    kind = TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


class Model:
    """What the files of a model say: its context, its special tokens, and how many tokens a text has."""

    def __init__(self, directory: Path, names: list[str], limit: int | None) -> None:
        self.directory, self.names = directory, names
        config = _read(directory / "config.json")
        inner = config.get("text_config") or config
        self.limit: int | None = limit or inner.get("max_position_embeddings")
        tokens = {
            key: inner[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if inner.get(key) is not None
        }
        own = _read(directory / "generation_config.json")
        # The engine takes a generation_config instead of the model's own, not beside it (5.19.0, _build_generation_config).
        self.generation = {
            key: value for key, value in (tokens | own).items() if key != "transformers_version" and key[0] != "_"
        }
        file = directory / "tokenizer.json"
        self.tokenizer = Tokenizer.from_file(str(file)) if file.exists() else None
        self.created = int(time.time())

    def listing(self) -> dict[str, Any]:
        common = {
            "object": "model",
            "created": self.created,
            "owned_by": "stoker",
            "root": str(self.directory),
            "max_model_len": self.limit,
        }
        return {"object": "list", "data": [{"id": name, **common} for name in self.names]}

    def tokens_of(self, text: str) -> int:
        """Tokens of the text alone, without those of a chat template; 0 where the model has no tokenizer.json."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids) if self.tokenizer else 0


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


class Wanted:
    """A client's request in the engine's words."""

    def __init__(self, kind: str, body: Any, model: Model) -> None:
        if not isinstance(body, dict):
            raise Refused(400, "The body must be a JSON object.")
        self.kind = kind
        self.name = body.get("model") or model.names[0]
        if self.name not in model.names:
            raise Refused(404, f"The model `{self.name}` does not exist; this engine serves {', '.join(model.names)}.")
        known = {*PASSED[kind], *USED, *GENERATION}
        for field, value in body.items():
            if field not in known and value is not None and (field not in NEUTRAL or value != NEUTRAL[field]):
                raise Refused(400, f"`{field}` = {json.dumps(value)[:80]} is not supported by this engine.")
        self.stream = bool(body.get("stream"))
        self.usage = bool((body.get("stream_options") or {}).get("include_usage"))
        stop = body.get("stop") or []
        self.stop: list[str] = [stop] if isinstance(stop, str) else list(stop)
        self.body = {key: body[key] for key in PASSED[kind] if body.get(key) is not None}
        self.body |= {"model": str(model.directory), "stream": True}
        generation = model.generation | {GENERATION[key]: body[key] for key in GENERATION if body.get(key) is not None}
        if generation.get("top_k") == -1:  # vLLM's word for "off"
            generation["top_k"] = 0
        if body.get("temperature") is not None:
            generation |= {"temperature": body["temperature"], "do_sample": body["temperature"] > 0}
            if not generation["do_sample"]:
                generation = {
                    key: value
                    for key, value in generation.items()
                    if key not in ("temperature", "top_p", "top_k", "min_p")
                }
        generation["max_new_tokens"] = self._length(body, model)
        if body.get("ignore_eos"):
            generation["min_new_tokens"] = generation["max_new_tokens"]
        self.body["generation_config"] = json.dumps(generation)

    def _length(self, body: dict[str, Any], model: Model) -> int:
        """Tokens that the answer may have. Refuses what cannot fit."""
        there = model.tokens_of(self._text(body))
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        if asked is not None and (not isinstance(asked, int) or asked < 1):
            raise Refused(400, f"max_tokens must be at least 1, got {asked}.")
        if model.limit is None:
            return asked or DEFAULT_TOKENS
        room = model.limit - there
        if room < (asked or 1):
            raise Refused(
                400,
                f"This model's maximum context length is {model.limit} tokens. The request has at least {there} tokens and asks for "
                f"{asked or 1} more. Reduce the length of the prompt or of the answer.",
            )
        return asked or min(DEFAULT_TOKENS, room)

    def _text(self, body: dict[str, Any]) -> str:
        if self.kind == "text":
            prompt = body.get("prompt")
            if isinstance(prompt, list) and len(prompt) == 1:
                prompt = self.body["prompt"] = prompt[0]
            if not isinstance(prompt, str) or not prompt:
                raise Refused(
                    400,
                    "`prompt` must be one text that is not empty; this engine takes no list of prompts and no token numbers.",
                )
            return prompt
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
            raise Refused(400, "`messages` must be a list of at least one message.")
        return "".join(_content(message.get("content")) for message in messages)


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


class Stop:
    """Cuts a text at the first stop string, which the engine leaves in (5.19.0); OpenAI's interface does not."""

    def __init__(self, strings: list[str]) -> None:
        self._strings = [text for text in strings if text]
        self._kept = ""
        self.met = False

    def feed(self, text: str, last: bool = False) -> str:
        """What may be shown of the text so far. The beginning of a stop string is kept back until more has come."""
        text = self._kept + text
        found = [at for stop in self._strings if (at := text.find(stop)) >= 0]
        self._kept = ""
        if self.met or found:
            shown = "" if self.met else text[: min(found)]
            self.met = True
            return shown
        if not last:
            longest = max((len(stop) - 1 for stop in self._strings), default=0)
            for length in range(min(longest, len(text)), 0, -1):
                if any(stop.startswith(text[-length:]) for stop in self._strings):
                    self._kept, text = text[-length:], text[:-length]
                    break
        return text


class Engine:
    """The process of `transformers serve`, and the queue before it."""

    def __init__(self, options: argparse.Namespace) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._command = ["transformers", "serve", str(options.model), "--host", "127.0.0.1", "--port", str(self._port)]
        self._command += ["--device", options.device, "--dtype", options.dtype]
        self._client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=None, trust_env=False)
        self._turn = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.ready = self.stopping = False
        self.waiting = self.running = 0
        self.prompt_tokens = self.generation_tokens = 0

    def start(self) -> None:
        say(f"starts {' '.join(self._command)}")
        self._process = subprocess.Popen(
            self._command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdin=subprocess.DEVNULL
        )

    @property
    def ended(self) -> int | None:
        return self._process.poll() if self._process else None

    @property
    def trouble(self) -> str:
        """Why it answers nothing now; empty when it does."""
        if self.stopping:
            return "The engine is being stopped."
        if self.ended is not None:
            return "The engine has died."
        return "" if self.ready else "The model is being loaded."

    async def watch(self) -> int:
        """Until it has ended; its exit status as a shell shows it."""
        begun = time.monotonic()
        while self.ended is None:
            if not self.ready:
                with contextlib.suppress(httpx2.TransportError):
                    # It listens when it has loaded the model, not before (5.19.0: the model is loaded before the server is made).
                    self.ready = (await self._client.get("/health", timeout=5)).status_code == 200
                    if self.ready:
                        say(f"ready after {time.monotonic() - begun:.1f} s")
            await asyncio.sleep(POLL_SECONDS)
        code = self.ended
        return 128 - code if code < 0 else code

    async def end(self) -> None:
        self.stopping = True
        if self._process and self.ended is None:
            self._process.terminate()
            until = time.monotonic() + STOP_SECONDS
            while self.ended is None and time.monotonic() < until:
                await asyncio.sleep(0.05)
            if self.ended is None:
                self._process.kill()

    async def ask(self, wanted: Wanted) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of its answer, when its turn has come. Raises Refused."""
        self.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            if self.trouble:
                raise Refused(503, self.trouble)
            async with self._client.stream("POST", PATHS[wanted.kind], json=wanted.body) as answer:
                if answer.status_code != 200:
                    raise Refused(answer.status_code, _reason(await answer.aread(), answer.status_code))
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        yield self._chunk(line.removeprefix("data: "))
        except httpx2.TransportError as error:
            raise Refused(
                503 if self.stopping else 500, f"The engine broke off: {error or type(error).__name__}"
            ) from error
        finally:
            self.running -= 1
            self._turn.release()

    def _chunk(self, data: str) -> dict[str, Any]:
        try:
            chunk = json.loads(data)
        except ValueError:  # it does not escape the text of an error (5.19.0, sse_gen)
            raise Refused(500, data.removeprefix('{"error": "').removesuffix('"}')) from None
        if "error" in chunk:
            raise Refused(500, str(chunk["error"]))
        usage = chunk.get("usage")
        if usage:
            self.prompt_tokens += usage["prompt_tokens"]
            self.generation_tokens += usage["completion_tokens"]
        return chunk  # type: ignore[no-any-return]

    def metrics(self) -> str:
        rows = (
            ("gauge", "num_requests_running", "Requests that are computed, at most one.", self.running),
            ("gauge", "num_requests_waiting", "Requests that wait for their turn.", self.waiting),
            ("counter", "prompt_tokens_total", "Tokens of the prompts that were answered.", self.prompt_tokens),
            ("counter", "generation_tokens_total", "Tokens that were generated.", self.generation_tokens),
        )
        return "".join(
            f"# HELP transformers:{name} {text}\n# TYPE transformers:{name} {kind}\ntransformers:{name} {value}\n"
            for kind, name, text, value in rows
        )


def _reason(body: bytes, status: int) -> str:
    """The engine's words: FastAPI's `detail`, or a plain text."""
    text = body.decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["detail"]
    return f"{text} (the engine answered {status})"


class Answer(Response):
    """The answer to a request: a stream, or one JSON object. Ends the computing when the client has gone."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        super().__init__()
        self._engine, self._wanted, self._stop = engine, wanted, Stop(wanted.stop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._answer(scope, receive, send))
        gone = asyncio.create_task(_until_gone(receive))
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        for task in (work, gone):
            task.cancel()
        for result in await asyncio.gather(work, gone, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        try:
            async with contextlib.aclosing(self._chunks()) as chunks:
                if not self._wanted.stream:
                    response = JSONResponse(_whole(self._wanted.kind, [chunk async for chunk in chunks]))
                    await response(scope, receive, send)
                    return
                async for chunk in chunks:
                    if not begun:
                        headers = [
                            (b"content-type", b"text/event-stream; charset=utf-8"),
                            (b"cache-control", b"no-cache"),
                        ]
                        await send({"type": "http.response.start", "status": 200, "headers": headers})
                        begun = True
                    await _event(send, json.dumps(chunk))
        except Refused as refused:
            if not begun:
                await refusal(refused)(scope, receive, send)
                return
            await _event(send, json.dumps(error_body(refused.status, str(refused))))
        await _event(send, "[DONE]")
        await send({"type": "http.response.body", "body": b""})

    async def _chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        """The engine's chunks as a client expects them: the name that it asked for, no text after a stop string, `usage` in a chunk of its own."""
        wanted = self._wanted
        number = f"{'chatcmpl' if wanted.kind == 'chat' else 'cmpl'}-{os.urandom(12).hex()}"
        async with contextlib.aclosing(self._engine.ask(wanted)) as chunks:
            async for chunk in chunks:
                chunk |= {"id": number, "model": wanted.name}
                usage = chunk.pop("usage", None)
                for choice in chunk["choices"]:
                    self._cut(choice)
                if not all(_is_empty(choice) for choice in chunk["choices"]):
                    yield chunk
                if usage and (wanted.usage or not wanted.stream):
                    yield {**chunk, "choices": [], "usage": usage}

    def _cut(self, choice: dict[str, Any]) -> None:
        last = choice.get("finish_reason") is not None
        holder, key = (choice["delta"], "content") if self._wanted.kind == "chat" else (choice, "text")
        text = self._stop.feed(holder.get(key) or "", last)
        if text or key in holder:
            holder[key] = text
        if last and self._stop.met:
            choice["finish_reason"] = "stop"


def _is_empty(choice: dict[str, Any]) -> bool:
    """Nothing is left of it to be told."""
    delta = choice.get("delta", choice)
    told = ("content", "text", "role", "tool_calls", "reasoning_content")
    return not choice.get("finish_reason") and not any(delta.get(key) for key in told)


def _whole(kind: str, chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """One answer from the chunks of a stream."""
    deltas = [choice for chunk in chunks for choice in chunk["choices"]]
    usage = next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), None)
    finish = next((choice["finish_reason"] for choice in reversed(deltas) if choice.get("finish_reason")), None)
    if finish is None:
        raise Refused(500, "The engine ended its answer without saying that it is complete.")
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish}
    if kind == "text":
        choice["text"] = "".join(delta.get("text") or "" for delta in deltas)
    else:
        parts = [delta["delta"] for delta in deltas]
        message: dict[str, Any] = {"role": "assistant", "content": "".join(part.get("content") or "" for part in parts)}
        reasoning = "".join(part.get("reasoning_content") or "" for part in parts)
        calls = [
            {key: value for key, value in call.items() if key != "index"}
            for part in parts
            for call in part.get("tool_calls") or ()
        ]
        choice["message"] = (
            message | ({"reasoning_content": reasoning} if reasoning else {}) | ({"tool_calls": calls} if calls else {})
        )
    head = {key: chunks[0][key] for key in ("id", "created", "model")}
    return {
        **head,
        "object": "chat.completion" if kind == "chat" else "text_completion",
        "choices": [choice],
        "usage": usage,
    }


async def _event(send: Send, data: str) -> None:
    await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})


async def _until_gone(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


def refusal(refused: Refused) -> JSONResponse:
    return JSONResponse(error_body(refused.status, str(refused)), refused.status)


def application(engine: Engine, model: Model) -> Starlette:
    """The interface to the outside; anything else is a 404."""

    async def health(_: Request) -> Response:
        return refusal(Refused(503, engine.trouble)) if engine.trouble else Response()

    async def models(_: Request) -> Response:
        return JSONResponse(model.listing())

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(engine.metrics())

    def generates(kind: str) -> Any:
        async def generate(request: Request) -> Response:
            try:
                if engine.trouble:
                    raise Refused(503, engine.trouble)
                try:
                    body = await request.json()
                except ValueError:
                    raise Refused(400, "The body is not JSON.") from None
                return Answer(engine, Wanted(kind, body, model))
            except Refused as refused:
                return refusal(refused)

        return generate

    async def unknown(request: Request, _: Exception) -> Response:
        return refusal(Refused(404, f"There is no {request.method} {request.url.path} here."))

    routes = [Route("/health", health), Route("/v1/models", models), Route("/metrics", metrics)]
    routes += [Route(path, generates(kind), methods=["POST"]) for kind, path in PATHS.items()]
    return Starlette(routes=routes, exception_handlers={404: unknown, 405: unknown})


class Server(uvicorn.Server):
    """uvicorn without its own handling of signals, which would end the program by the signal and not with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(options: argparse.Namespace) -> int:
    """Serve until the engine has ended or a signal has come; the exit status."""
    engine = Engine(options)
    model = Model(options.model, options.served_model_name or [options.model.name], options.max_model_len)
    server = Server(
        uvicorn.Config(
            application(engine, model),
            host=options.host,
            port=options.port,
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine.start()
    serving, stopped, watched = (asyncio.create_task(task) for task in (server.serve(), stop.wait(), engine.watch()))
    await asyncio.wait((serving, stopped, watched), return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if watched.done() and not stop.is_set():
        code = watched.result() or 1
        say(f"the engine ended by itself, exit status {watched.result()}")
        await asyncio.wait((stopped, serving), timeout=LINGER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    elif serving.done():  # uvicorn has said why, for instance that the port is taken
        code = 1
    await engine.end()
    server.should_exit = True
    stopped.cancel()
    await asyncio.wait((serving, watched))
    return code


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Hugging Face Transformers behind an OpenAI-compatible interface, one request at a time."
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIRECTORY", help="files of the model, as on the hub"
    )
    parser.add_argument(
        "--served-model-name",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names for `model` in requests, the first is the one that answers carry; default: the directory's name",
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "half", "float16", "bfloat16", "float32"],
        help="of the weights; auto: as the model's files say",
    )
    parser.add_argument(
        "--device",
        default="cuda:0",
        metavar="DEVICE",
        help="cuda:0 (default), cpu, or auto: all cards that there are, then the machine's memory",
    )
    parser.add_argument(
        "--max-model-len",
        type=int,
        metavar="N",
        help="tokens of prompt and answer together; default: what the model's config.json says. A chat template's own tokens are not counted",
    )
    parser.add_argument("--host", default="0.0.0.0", metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(words)
    options.model = options.model.absolute()
    if not (options.model / "config.json").is_file():
        parser.error(f"there is no model in {options.model}: no config.json")
    if "@" in str(options.model):
        parser.error(
            f"{options.model}: the engine takes what follows @ in a path for a revision; use another directory"
        )
    if options.max_model_len is not None and options.max_model_len < 1:
        parser.error("--max-model-len must be at least 1")
    options.dtype = {"half": "float16"}.get(options.dtype, options.dtype)
    return options


if __name__ == "__main__":
    sys.exit(asyncio.run(run(arguments(sys.argv[1:]))))
