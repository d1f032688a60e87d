"""The HTTP interface: routes of v0.19.1 that clients of a text or embedding model use."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import Any

from lab_gpu import settings
from lab_serve.http import HttpRequest, HttpResponse, json_response
from lab_serve.tokens import token_ids, tokenize

from lab_vllm import VERSION, pages
from lab_vllm.completions import Completions
from lab_vllm.embeddings import embed
from lab_vllm.engine_config import EngineConfig
from lab_vllm.errors import ApiError, engine_dead, unknown_model
from lab_vllm.generation import EngineDeadError, Scheduler
from lab_vllm.metrics import Metrics
from lab_vllm.requests import chat_text, check_either, check_fields, check_list, read_body

Route = Callable[[HttpRequest], Awaitable[HttpResponse]]
GENERATE_TASKS, POOLING_TASKS = ("generate",), ("token_embed", "embed")


class Api:
    """Answers requests of one server."""

    def __init__(self, config: EngineConfig, arguments: Namespace, scheduler: Scheduler, metrics: Metrics) -> None:
        self.config, self.arguments, self.scheduler, self.metrics = config, arguments, scheduler, metrics
        self.created = int(time.time())
        self.draining = False
        self.engine_dead = False
        self.on_dead_request: Callable[[], None] = lambda: None
        self.kill_engine: Callable[[], None] = lambda: None
        self.load = 0
        keys = arguments.api_key or [os.environ.get("VLLM_API_KEY", "")]
        self.keys = [hashlib.sha256(key.encode()).digest() for key in keys if key]
        self.completions = Completions(config, scheduler)
        self.routes = self._routes()

    def _routes(self) -> dict[str, dict[str, Route]]:
        routes: dict[str, dict[str, Route]] = {
            "/health": {"GET": self.health},
            "/ping": {"GET": self.health, "POST": self.health},
            "/version": {"GET": self.version},
            "/load": {"GET": self.server_load},
            "/metrics": {"GET": self.show_metrics},
            "/v1/models": {"GET": self.models},
            "/tokenize": {"POST": self.tokenize},
            "/detokenize": {"POST": self.detokenize},
            "/invocations": {"POST": self.invocations},
        }
        if self.config.runner == "pooling":
            routes["/v1/embeddings"] = {"POST": self.inference(self.embeddings)}
        else:
            routes["/v1/chat/completions"] = {"POST": self.inference(self.completions.chat)}
            routes["/v1/completions"] = {"POST": self.inference(self.completions.completion)}
        return routes

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer one request."""
        if (
            self.keys
            and request.method != "OPTIONS"
            and request.path.startswith("/v1")
            and not self._authorized(request)
        ):
            return json_response({"error": "Unauthorized"}, 401)
        response = pages.preflight(request, self.arguments) or await self._answer(request)
        origin = pages.allowed_origin(request, self.arguments)
        if origin is not None:
            response.headers["access-control-allow-origin"] = origin
        return response

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        page = None if self.arguments.disable_fastapi_docs else pages.page(request.path, self.routes)
        if page is not None and request.method in ("GET", "HEAD"):
            return page
        methods = self.routes.get(request.path)
        if methods is None:
            return pages.redirect(request, self.routes) or json_response({"detail": "Not Found"}, 404)
        route = methods.get(request.method)
        if route is None:
            response = json_response({"detail": "Method Not Allowed"}, 405)
            response.headers["allow"] = ", ".join(methods)
            return response
        try:
            response = await route(request)
        except ApiError as error:
            response = error.response()
        if self.arguments.enable_request_id_headers:
            response.headers["X-Request-Id"] = request.headers.get("x-request-id") or secrets.token_hex(16)
        return response

    def _serves(self, name: object) -> bool:
        return name is None or name in self.config.served_names

    def _authorized(self, request: HttpRequest) -> bool:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.encode()).digest()
        return scheme.lower() == "bearer" and any(secrets.compare_digest(digest, known) for known in self.keys)

    def inference(self, route: Callable[[HttpRequest, dict[str, Any]], Awaitable[HttpResponse]]) -> Route:
        """Wrap a route that uses the engine: what happens when it drains, is dead, or is told to fail."""

        async def wrapped(request: HttpRequest) -> HttpResponse:
            body = read_body(request)
            name = body.get("model")
            if not self._serves(name):
                raise unknown_model(name)
            if self.engine_dead:
                self.on_dead_request()
                raise engine_dead()
            if self.draining:
                raise ApiError(
                    500, "InternalServerError", "cannot schedule new futures after shutdown", unexpected=True
                )
            await self._act_on_fault()
            try:
                return await route(request, body)
            except EngineDeadError as error:
                raise engine_dead() from error

        return wrapped

    async def _act_on_fault(self) -> None:
        fault, _ = settings.fault(*self.config.served_names)
        if fault == "error-500":
            raise ApiError(
                500, "InternalServerError", "CUDA error: an illegal memory access was encountered (simulated)"
            )
        if fault == "hang-requests":
            await self.scheduler.never()
        if fault == "die-on-request":
            self.kill_engine()
            self.engine_dead = True
            self.on_dead_request()
            raise engine_dead()

    async def health(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(503 if self.engine_dead else 200, content_type="")

    async def version(self, request: HttpRequest) -> HttpResponse:
        return json_response({"version": VERSION})

    async def server_load(self, request: HttpRequest) -> HttpResponse:
        tracked = self.arguments.enable_server_load_tracking
        return json_response({"server_load": self.scheduler.unfinished if tracked else 0})

    async def show_metrics(self, request: HttpRequest) -> HttpResponse:
        scheduler = self.scheduler
        text = self.metrics.render(len(scheduler.running), len(scheduler.waiting), scheduler.cache_usage())
        return HttpResponse(200, text.encode(), "text/plain; version=1.0.0; charset=utf-8")

    async def models(self, request: HttpRequest) -> HttpResponse:
        permission = {
            "id": f"modelperm-{secrets.token_hex(8)}",
            "object": "model_permission",
            "created": self.created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        cards = [
            {
                "id": name,
                "object": "model",
                "created": self.created,
                "owned_by": "vllm",
                "root": self.config.model.name,
                "parent": None,
                "max_model_len": self.config.max_model_len,
                "permission": [permission],
            }
            for name in self.config.served_names
        ]
        return json_response({"object": "list", "data": cards})

    async def tokenize(self, request: HttpRequest) -> HttpResponse:
        body = read_body(request)
        check_either(request, body, ("prompt", "messages"))
        check_list(request, body, "messages")
        if not self._serves(body.get("model")):
            raise unknown_model(body["model"])
        text = chat_text(body["messages"]) if "messages" in body else str(body["prompt"])
        pieces = tokenize(text)
        strings = pieces if body.get("return_token_strs") else None
        ids = token_ids(pieces, self.config.model.vocab_size)
        return json_response(
            {"count": len(ids), "max_model_len": self.config.max_model_len, "tokens": ids, "token_strs": strings}
        )

    async def detokenize(self, request: HttpRequest) -> HttpResponse:
        body = read_body(request)
        check_fields(request, body, ("tokens",))
        check_list(request, body, "tokens")
        if not self._serves(body.get("model")):
            raise unknown_model(body["model"])
        return json_response({"prompt": " ".join(f"<{token}>" for token in body["tokens"])})

    async def invocations(self, request: HttpRequest) -> HttpResponse:
        """Full inference without the API key: the hole in v0.19.1 that a gateway has to close."""
        body = read_body(request)
        if self.config.runner == "pooling":
            return await self.inference(self.embeddings)(request)
        if "messages" in body:
            return await self.inference(self.completions.chat)(request)
        if not body.get("prompt"):
            text = "Cannot find suitable handler for request. Expected one of: ['ChatCompletionRequest', 'CompletionRequest']"
            raise ApiError(400, "BadRequestError", text)
        return await self.inference(self.completions.completion)(request)

    async def embeddings(self, request: HttpRequest, body: dict[str, Any]) -> HttpResponse:
        check_fields(request, body, ("input",))
        return json_response(embed(body, self.config))
