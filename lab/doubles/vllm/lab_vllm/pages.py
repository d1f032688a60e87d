"""What FastAPI adds to vLLM's own routes: the interface's description, its pages, CORS, redirects to the path without a slash."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Collection, Mapping
from typing import Any

from lab_serve.http import HttpRequest, HttpResponse, json_response

from lab_vllm import VERSION

DESCRIPTION = "/openapi.json"
PAGES = ("/docs", "/docs/oauth2-redirect", "/redoc")
METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


def page(path: str, routes: Mapping[str, Collection[str]]) -> HttpResponse | None:
    """The description of the routes (path -> methods), or one of the pages that show it; None for another path."""
    if path == DESCRIPTION:
        paths: dict[str, Any] = {
            route: {
                method.lower(): {"responses": {"200": {"description": "Successful Response"}}} for method in methods
            }
            for route, methods in routes.items()
        }
        return json_response({"openapi": "3.1.0", "info": {"title": "FastAPI", "version": "0.1.0"}, "paths": paths})
    if path in PAGES:
        text = f"<!DOCTYPE html><html><head><title>FastAPI</title></head><body>vLLM {VERSION} (simulated by the Stoker lab)</body></html>"
        return HttpResponse(200, text.encode(), "text/html; charset=utf-8")
    return None


def redirect(request: HttpRequest, routes: Collection[str]) -> HttpResponse | None:
    """307 for a path that exists with one slash less; Starlette's redirect_slashes."""
    bare = request.path.rstrip("/")
    if bare == request.path or bare not in routes:
        return None
    place = f"http://{request.headers.get('host', '')}{bare}" + (f"?{request.query}" if request.query else "")
    return HttpResponse(307, content_type="", headers={"location": place})


def preflight(request: HttpRequest, arguments: Namespace) -> HttpResponse | None:
    """The answer to a browser's question before a request from another origin; None for any other request."""
    if request.method != "OPTIONS" or not {"origin", "access-control-request-method"} <= request.headers.keys():
        return None
    allowed = allowed_origin(request, arguments)
    head = {"access-control-allow-methods": METHODS, "access-control-max-age": "600"}
    if allowed is None:
        return HttpResponse(400, b"Disallowed CORS origin", "text/plain; charset=utf-8", head)
    return HttpResponse(200, b"OK", "text/plain; charset=utf-8", {"access-control-allow-origin": allowed, **head})


def allowed_origin(request: HttpRequest, arguments: Namespace) -> str | None:
    """What a request from another origin is told, by --allowed-origins; None for nothing."""
    origin = request.headers.get("origin")
    given = arguments.allowed_origins
    allowed = json.loads(given) if isinstance(given, str) else given
    if origin is None:
        return None
    return "*" if "*" in allowed else origin if origin in allowed else None
