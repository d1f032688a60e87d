"""A streamed answer that somebody reads while the clause does something else to its server."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from dataclasses import dataclass, field

from running import Running

LONG = {"model": "llama3.1-8b", "prompt": "Say hello.", "ignore_eos": True, "stream": True}


@dataclass
class Stream:
    """A streamed answer that somebody reads."""

    running: Running
    tokens: int
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    error: str = ""
    first: threading.Event = field(default_factory=threading.Event)
    connection: http.client.HTTPConnection | None = None
    wait: bool = True  # for its first event

    def __enter__(self) -> Stream:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        assert not self.wait or self.first.wait(60), "the stream does not begin"
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        self.thread.join(60)

    def _read(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=120)
        try:
            body = json.dumps({**LONG, "max_tokens": self.tokens})
            self.connection.request(
                "POST", "/v1/completions", body, {"content-type": "application/json", **self.headers}
            )
            response = self.connection.getresponse()
            while piece := response.read1(65536):
                self.data += piece
                self.first.set()
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self.error = type(error).__name__
        self.first.set()

    def leave(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.connection.sock.shutdown(2)  # type: ignore[union-attr]

    def events(self) -> list[str]:
        return [
            line.removeprefix("data: ")
            for line in self.data.decode(errors="replace").split("\n\n")
            if line.startswith("data: ")
        ]

    def end(self) -> str:
        """How it ended: by a finish reason, by an error event, or cut off."""
        events = self.events()
        if "[DONE]" not in events:
            return "cut off"
        last = json.loads(events[events.index("[DONE]") - 1])
        return "error" if "error" in last else str(last["choices"][0]["finish_reason"])

    def error_text(self) -> str:
        """The message of its error event, or nothing."""
        for event in self.events():
            if event != "[DONE]" and "error" in (content := json.loads(event)):
                return str(content["error"]["message"])
        return ""
