"""The Open WebUI double from outside: health, what it says of itself, accounts that stay."""

from __future__ import annotations

from pathlib import Path

from double_processes import make_host, running, start_webui


def test_it_answers_and_asks_for_an_account(tmp_path: Path) -> None:
    host = make_host(tmp_path / "host")
    with running(start_webui(host, OLLAMA_BASE_URLS="http://ollama_bge_0:11434;http://ollama_bge_1:11434")) as ui:
        ui.wait_ready()
        assert ui.get("/health").json() == {"status": True}
        config = ui.get("/api/config").json()
        assert (config["features"]["auth"], config["onboarding"], config["version"]) == (True, True, "0.11.3")
        assert "simulated" in ui.get("/").text
        assert ui.get("/api/nothing").status_code == 404
        ui.process.terminate()
        assert ui.wait_exit() == 0
    assert "OLLAMA_BASE_URLS=http://ollama_bge_0:11434;http://ollama_bge_1:11434" in ui.text()


def test_accounts_stay_in_its_data_and_the_first_one_administers(tmp_path: Path) -> None:
    host = make_host(tmp_path / "host")
    first = {"name": "a", "email": "A@example.org", "password": "secret"}
    with running(start_webui(host)) as ui:
        ui.wait_ready()
        assert ui.post("/api/v1/auths/signup", first).json()["role"] == "admin"
    assert (host / "data/webui.db").is_file()
    with running(start_webui(host)) as ui:
        ui.wait_ready()
        assert "onboarding" not in ui.get("/api/config").json()
        assert ui.post("/api/v1/auths/signup", first).status_code == 400
        assert ui.post("/api/v1/auths/signup", {**first, "email": "b@example.org"}).json()["role"] == "pending"
        assert ui.post("/api/v1/auths/signup", {}).status_code == 422


def test_without_accounts_it_says_so(tmp_path: Path) -> None:
    with running(start_webui(make_host(tmp_path / "host"), WEBUI_AUTH="False")) as ui:
        ui.wait_ready()
        assert ui.get("/api/config").json()["features"]["auth"] is False
