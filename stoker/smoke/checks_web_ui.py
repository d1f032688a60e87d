"""The check of an Open WebUI: it answers, and asks for an account."""

from __future__ import annotations

from stoker.smoke import answers, curl
from stoker.smoke.check import Check, CheckFailed, Trace
from stoker.smoke.checks_instance import ask
from stoker.smoke.target import base_url
from stoker.spec.fleet import Host
from stoker.spec.web_ui import WebUi


def check(host: Host, web_ui: WebUi, seconds: int) -> Check:
    request = curl.Request(f"{base_url(host.address, web_ui.port)}/api/config", seconds=seconds)

    def run(trace: Trace) -> str:
        answer = answers.json_of(ask(request, trace), "its features")
        features = answer.get("features")
        if not isinstance(features, dict) or features.get("auth") is not True:
            raise CheckFailed(
                "a page that asks for an account",
                f"features {features!r}",
                "deploy again: accounts are off, or something else listens there",
            )
        return "answers, accounts are on"

    return Check("web UI", host.name, web_ui.container, run)
