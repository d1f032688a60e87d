"""Open WebUI's server: its start, its accounts, and what it says of itself. No chat: nothing here talks to an engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from lab_gpu import settings
from lab_serve.http import HttpRequest, HttpResponse, HttpServer, json_response

from lab_webui import VERSION

DEFAULT_START_SECONDS = 2.0
PAGE = (
    '<!doctype html><html lang="en"><head><title>Open WebUI</title></head>'
    "<body>Open WebUI (simulated by the Stoker lab)</body></html>"
)


def log(text: str) -> None:
    """One line, as uvicorn and Alembic write theirs."""
    print(text, file=sys.stderr, flush=True)


class Accounts:
    """webui.db: who has an account. The first one administers, later ones wait for their confirmation."""

    def __init__(self, file: Path) -> None:
        self.database = sqlite3.connect(file)
        with self.database:
            columns = "id TEXT PRIMARY KEY, name TEXT, email TEXT UNIQUE, role TEXT, created_at INTEGER, digest TEXT"
            self.database.execute(f"CREATE TABLE IF NOT EXISTS user ({columns})")

    def count(self) -> int:
        (count,) = self.database.execute("SELECT COUNT(*) FROM user").fetchone()
        return int(count)

    def add(self, name: str, email: str, password: str) -> dict[str, Any] | None:
        """The new account; None when the address has one."""
        role, identity = ("pending" if self.count() else "admin"), secrets.token_hex(16)
        digest = hashlib.sha256(password.encode()).hexdigest()
        try:
            with self.database:
                row = (identity, name, email, role, int(time.time()), digest)
                self.database.execute("INSERT INTO user VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            return None
        return {"id": identity, "name": name, "email": email, "role": role, "token_type": "Bearer"}


class WebUi:
    """Answers requests."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts
        self.auth = os.environ.get("WEBUI_AUTH", "True").lower() == "true"
        self.signup = os.environ.get("ENABLE_SIGNUP", "True").lower() == "true"

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer one request."""
        method = "GET" if request.method == "HEAD" else request.method
        match method, request.path:
            case "GET", "/health" | "/health/db":
                return json_response({"status": True})
            case "GET", "/api/config":
                return json_response(self._config())
            case "GET", "/api/version":
                return json_response({"version": VERSION})
            case "POST", "/api/v1/auths/signup":
                return self._sign_up(request)
            case _, path if path.startswith("/api/"):
                return json_response({"detail": "Not Found"}, 404)
            case "GET", _:  # a page application: every other path is the same page
                return HttpResponse(200, PAGE.encode(), "text/html; charset=utf-8")
        return json_response({"detail": "Method Not Allowed"}, 405)

    def _config(self) -> dict[str, Any]:
        features = {
            "auth": self.auth,
            "auth_trusted_header": False,
            "enable_ldap": False,
            "enable_signup": self.signup,
            "enable_login_form": True,
            "enable_websocket": True,
        }
        about = {
            "status": True,
            "name": "Open WebUI",
            "version": VERSION,
            "default_locale": "",
            "oauth": {"providers": {}},
        }
        first = {} if self.accounts.count() else {"onboarding": True}
        return {**first, **about, "features": features, "lab_note": "simulated"}

    def _sign_up(self, request: HttpRequest) -> HttpResponse:
        if not self.auth or not (self.signup or self.accounts.count() == 0):
            return json_response({"detail": "You do not have permission to access this resource."}, 403)
        try:
            body = json.loads(request.body)
            name, email, password = (str(body[field]) for field in ("name", "email", "password"))
        except (ValueError, KeyError, TypeError):
            return json_response({"detail": [{"type": "missing", "loc": ["body"], "msg": "Field required"}]}, 422)
        made = self.accounts.add(name, email.lower(), password)
        if made is None:
            taken = "Uh-oh! This email is already registered. Sign in with your existing account or choose another email to start anew."
            return json_response({"detail": taken}, 400)
        return json_response(made)


async def serve(host: str, port: int) -> int:
    """Serve until SIGTERM; returns the exit code."""
    data = Path(os.environ.get("DATA_DIR", "/app/backend/data"))
    data.mkdir(parents=True, exist_ok=True)
    log("INFO  [alembic.runtime.migration] Context impl SQLiteImpl.")
    ui = WebUi(Accounts(data / "webui.db"))
    log(f"v{VERSION} - building the best AI user interface. (simulated by the Stoker lab)")
    for name in ("OLLAMA_BASE_URLS", "OLLAMA_BASE_URL", "WEBUI_AUTH", "ENABLE_OPENAI_API", "HF_HUB_OFFLINE"):
        if os.environ.get(name):
            log(f"INFO  [open_webui.config] {name}={os.environ[name]}")
    log("INFO:     Started server process [1]\nINFO:     Waiting for application startup.")
    await asyncio.sleep(settings.number("webui_start_seconds", DEFAULT_START_SECONDS))
    http = HttpServer(ui.handle, lambda _path, line: log(line), name="uvicorn")
    server = await asyncio.start_server(http.connection, host, port)
    log(
        f"INFO:     Application startup complete.\nINFO:     Uvicorn running on http://{host}:{port} (Press CTRL+C to quit)"
    )
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    log("INFO:     Shutting down")
    server.close()
    for task in list(http.connections):
        task.cancel()
    log("INFO:     Application shutdown complete.")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8080")))))
