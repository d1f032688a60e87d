"""`stoker import`: nothing that kept strangers out, and no secret, is lost or spread without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.draft.cards import parse
from stoker.draft.shipped import shipped
from stoker.draft.write import files
from stoker.importer.errors import CannotImport
from stoker.importer.fleet import Imported, Source, import_files
from stoker.importer.notes import Note

PINS = shipped()

CHAT = """
name: safe
services:
  chat:
    image: vllm/vllm-openai:v0.19.1
    volumes: ["/srv/models:/models"]
    command: --model /models/Qwen3-4B --served-model-name qwen3-4b {arguments}
    environment: {environment}
    {more}
"""
FRONT = """
  front: {image: nginx, PORTS volumes: ["./front.conf:/etc/nginx/conf.d/default.conf"]}
"""


def chat(arguments: str = "", environment: str = "{}", more: str = 'ports: ["8000:8000"]') -> str:
    return CHAT.format(arguments=arguments, environment=environment, more=more)


def import_(tmp_path: Path, compose: str, nginx: str = "") -> Imported:
    (tmp_path / "compose.yaml").write_text(compose, encoding="utf-8")
    (tmp_path / "front.conf").write_text(nginx, encoding="utf-8")
    return import_files([Source(tmp_path / "compose.yaml", "10.0.0.7", parse("2 x V100-32GB"))], PINS)


def opened(imported: Imported) -> list[Note]:
    return [note for note in imported.notes.found if note.kind == "open"]


def front(tmp_path: Path, protection: str) -> list[str]:
    """What is to be decided of a gateway, for a protection of one location."""
    server = "server { location /p/ { PROTECTION proxy_pass http://chat:8000; } }".replace("PROTECTION", protection)
    imported = import_(tmp_path, chat() + FRONT.replace("PORTS", 'ports: ["80:80"],'), server)
    return [f"{note.what}: {note.why}" for note in opened(imported) if note.service == "front"]


@pytest.mark.parametrize(
    ("protection", "what", "remedy"),
    [
        ('auth_basic "x"; auth_basic_user_file /etc/nginx/htpasswd;', "auth_basic of front.conf", "`keys`"),
        ("auth_request /check;", "auth_request of front.conf", "`keys`"),
        ('auth_jwt "x";', "auth_jwt of front.conf", "`keys`"),
        ("allow 10.0.0.0/8;\n deny all;", "deny of front.conf", "`allowed_networks`"),
        ("ssl_verify_client on;", "ssl_verify_client of front.conf", "`keys`"),
        ("access_by_lua_file /etc/nginx/check.lua;", "access_by_lua_file of front.conf", "`keys`"),
        ('if ($http_authorization != "Bearer hunter2") { return 401; }', "if ($http_authorization ...)", "`keys`"),
        ("if ($http_x_api_key = hunter2) { set $ok 1; }", "if ($http_x_api_key ...)", "`keys`"),
        ("if ($arg_key !~ hunter2) { return 403; }", "if ($arg_key ...)", "`keys`"),
        ("if ($known = 0) { return 403; }", "if ($known ...)", "`keys`"),
    ],
)
def test_what_an_nginx_asked_of_its_clients_is_to_be_decided(
    tmp_path: Path, protection: str, what: str, remedy: str
) -> None:
    """Also where everything stands on one line. A key that the configuration holds is not printed."""
    found = front(tmp_path, protection)
    assert [line for line in found if what in line and remedy in line], found
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    "harmless",
    [
        "",
        "auth_basic off;",
        "allow all;",
        '# auth_basic "x";\n',
        "if ($request_method = OPTIONS) { return 204; }",
        "proxy_set_header Authorization $http_authorization;",
    ],
)
def test_what_lets_everybody_in_is_no_protection(tmp_path: Path, harmless: str) -> None:
    assert front(tmp_path, harmless) == []


def test_limits_that_are_gone_are_told(tmp_path: Path) -> None:
    server = "server { location / { limit_req zone=a; proxy_pass http://chat:8000; } }"
    imported = import_(tmp_path, chat() + FRONT.replace("PORTS", 'ports: ["80:80"],'), server)
    assert ("left out", "limit_req of front.conf") in [(note.kind, note.what) for note in imported.notes.found]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("", "it published no port, and has one that is open to everybody now"),
        ('expose: ["8000"]', "it published no port, and has one that is open to everybody now"),
        ('ports: ["127.0.0.1:8000:8000"]', "its port was open to the host itself alone, and is open to everybody now"),
    ],
)
def test_an_engine_that_strangers_could_not_reach(tmp_path: Path, more: str, what: str) -> None:
    notes = opened(import_(tmp_path, chat(more=more)))
    assert [note.what for note in notes if 'firewall = "engines"' in note.why] == [what]


@pytest.mark.parametrize("more", ['ports: ["8000:8000"]', 'ports: ["8000"]', "network_mode: host"])
def test_an_engine_that_everybody_could_reach(tmp_path: Path, more: str) -> None:
    assert not [note for note in opened(import_(tmp_path, chat(more=more))) if "firewall" in note.why]


@pytest.mark.parametrize(
    ("ports", "what"),
    [
        ('ports: ["80:80"],', []),
        ("network_mode: host,", []),
        (
            'ports: ["127.0.0.1:8080:80"],',
            ["its port was open to the host itself alone, and is open to 10.0.0.0/24 now"],
        ),
        ("", ["it published no port, and has one that is open to 10.0.0.0/24 now"]),
    ],
)
def test_a_gateway_that_strangers_could_not_reach(tmp_path: Path, ports: str, what: list[str]) -> None:
    server = "server { location / { proxy_pass http://chat:8000; } }"
    imported = import_(tmp_path, chat() + FRONT.replace("PORTS", ports), server)
    found = [note for note in opened(imported) if note.service == "front"]
    assert [note.what for note in found] == what
    assert all("`allowed_networks`" in note.why for note in found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PASS", "hunter2"),
        ("API_KEYS", "hunter2"),
        ("HF_TOKEN_2", "hunter2"),
        ("HFTOKEN2", "hunter2"),
        ("ACCESS_TOKENS", "hunter2"),
        ("PGPASSWORD", "hunter2"),
        ("DB_PWD", "hunter2"),
        ("LOADER", '{"api_key": "hunter2"}'),
        ("MY_SECRETS_JSON", "hunter2"),
        ("GOOGLE_APPLICATION_CREDENTIALS_JSON", "hunter2"),
        ("ssh_key_passphrase", "hunter2"),
        ("ALL_PROXY", "http://u:hunter2@proxy:3128"),
        ("all_proxy", "http://proxy:3128"),
        ("CACHE_URL", "redis://:hunter2@cache:6379"),
        ("INDEX_URL", "https://hunter2@pypi.example/simple"),
    ],
)
def test_a_secret_in_the_environment_is_neither_written_nor_printed(tmp_path: Path, name: str, value: str) -> None:
    imported = import_(tmp_path, chat(environment=f"{{{name}: '{value}', KEEP: kept}}"))
    text = "".join(files(imported.draft, PINS).values()) + "\n".join(imported.notes.lines())
    assert "'KEEP'" in text or '"KEEP"' in text
    assert [note for note in imported.notes.found if name in note.what]
    assert "hunter2" not in text
    assert "proxy:3128" not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MAX_TOKENS", "16"),
        ("VLLM_MAX_NUM_BATCHED_TOKENS", "16"),
        ("KEYBOARD", "de"),
        ("NO_BYPASS", "1"),
        ("DOCS_URL", "https://docs.example/@latest"),
    ],
)
def test_a_harmless_variable_stays(tmp_path: Path, name: str, value: str) -> None:
    imported = import_(tmp_path, chat(environment=f"{{{name}: '{value}'}}"))
    ((_, instance),) = imported.draft.fleet(PINS.versions).hosts[0].instances()
    assert instance.environment == {name: value}


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        ("--auth-token hunter2", "--auth-token"),
        ("--max-model-len hunter2", "--max-model-len"),
        ("--api-key hunter2", "--api-key"),
        ("--tokenizer https://u:hunter2@host/x", "--tokenizer"),
        ("--hf-overrides.api_key hunter2", "--hf-overrides.api_key"),
    ],
)
def test_a_refused_argument_is_told_without_its_value(tmp_path: Path, arguments: str, gone: str) -> None:
    imported = import_(tmp_path, chat(arguments))
    text = "".join(files(imported.draft, PINS).values()) + "\n".join(imported.notes.lines())
    assert [note for note in imported.notes.found if note.what in (gone, f"{gone} is gone")]
    assert "hunter2" not in text


def test_what_a_shell_exports_is_no_model(tmp_path: Path) -> None:
    command = """command: ["sh", "-c", "export HF_TOKEN=hunter2; ./serve.sh --model /models/Qwen3-4B"]"""
    text = chat(more=command).replace("command: --model", "labels: --model")
    assert "hunter2" not in "\n".join(import_(tmp_path, text).notes.lines())


def test_an_argument_about_tokens_stays(tmp_path: Path) -> None:
    imported = import_(tmp_path, chat("--enable-prompt-tokens-details --long-prefill-token-threshold 64"))
    ((_, instance),) = imported.draft.fleet(PINS.versions).hosts[0].instances()
    assert instance.arguments == {"enable-prompt-tokens-details": True, "long-prefill-token-threshold": 64}


def test_a_file_that_is_no_yaml_is_refused_without_its_lines(tmp_path: Path) -> None:
    with pytest.raises(CannotImport) as refused:
        import_(tmp_path, "services:\n  chat:\n    environment: {DB_PASS: 'hunter2', : : ]}\n")
    assert "compose.yaml" in str(refused.value)
    assert "line 3" in str(refused.value)
    assert "hunter2" not in str(refused.value)
