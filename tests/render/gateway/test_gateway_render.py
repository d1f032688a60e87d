"""The gateway's files as text: what must stand in them, and that real nginx accepts them as they are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import gateway_fleet
import pytest
from nginx_binary import nginx_command

from stoker.render.gateway import CONFIG_DIRECTORY, Backend, Member, config_identity, render_gateway
from stoker.render.gateway_routes import model_names, routes_of
from stoker.spec.gateway import Gateway, Limits, Pool

UNIFIED = {
    "POST": [
        "/v1/embeddings", "/api/embeddings", "/api/embed", "/v1/chat/completions", "/v1/completions", "/v1/responses",
        "/embed/v1/embeddings", "/embed/api/embeddings", "/embed/api/embed",
        "/llama/v1/chat/completions", "/llama/v1/completions", "/llama/v1/responses",
        "/qwen/v1/chat/completions", "/qwen/v1/completions", "/qwen/v1/responses",
    ],
    "GET": ["/embed/api/tags", "/embed/api/version", "/llama/v1/models", "/qwen/v1/models"],
}  # fmt: skip
LLM_ONLY = {
    "POST": ["/v1/chat/completions", "/v1/completions", "/v1/responses",
             "/llama/v1/chat/completions", "/llama/v1/completions", "/llama/v1/responses",
             "/qwen/v1/chat/completions", "/qwen/v1/completions", "/qwen/v1/responses"],
    "GET": ["/llama/v1/models", "/qwen/v1/models"],
}  # fmt: skip

GATEWAYS = pytest.mark.parametrize(
    "gateway", [gateway_fleet.unified(), gateway_fleet.llm_only()], ids=lambda gateway: gateway.container
)


def rendered(gateway: Gateway) -> dict[str, str]:
    return render_gateway(gateway, gateway_fleet.default_backends(gateway))


@pytest.mark.parametrize(
    ("gateway", "expected"),
    [(gateway_fleet.unified(), UNIFIED), (gateway_fleet.llm_only(), LLM_ONLY)],
    ids=["bge_nginx", "vllm_nginx"],
)
def test_the_allow_list(gateway: Gateway, expected: dict[str, list[str]]) -> None:
    routes = routes_of(gateway_fleet.default_backends(gateway))
    assert {method: [route.path for route in routes if route.method == method] for method in expected} == expected
    text = rendered(gateway)[gateway.config_file]
    assert text.count("js_content router.choose;") == len(expected["POST"])
    assert text.count("js_content router.read;") == len(expected["GET"])


@GATEWAYS
def test_real_nginx_accepts_the_default_fleet(gateway: Gateway, tmp_path: Path) -> None:
    for name, text in rendered(gateway).items():
        (tmp_path / name).write_text(text)
    command = nginx_command(tmp_path, "-t", "-c", f"{CONFIG_DIRECTORY}/{gateway.config_file}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@GATEWAYS
def test_the_same_input_gives_the_same_files(gateway: Gateway) -> None:
    assert rendered(gateway) == rendered(gateway)
    assert sorted(rendered(gateway)) == sorted(
        [gateway.config_file, "router.js", "members.js", "health.js", "metrics.js"]
    )


@GATEWAYS
def test_members_are_the_inventorys(gateway: Gateway) -> None:
    text = rendered(gateway)[gateway.config_file]
    members = [member for backend in gateway_fleet.default_backends(gateway) for member in backend.members]
    assert text.count("upstream member_") == len(members)
    for number, member in enumerate(members):
        upstream = text.split(f"upstream member_{number} {{")[1].split("}")[0]
        assert [line.split()[1] for line in upstream.splitlines() if "server " in line] == [member.address]
        assert f"# {member.name}: " in text


def test_members_are_asked_for_their_health_as_their_engine_answers_it() -> None:
    gateway = gateway_fleet.unified()
    text = rendered(gateway)[gateway.config_file]
    assert text.count("/api/version;\n            access_log") == 2
    assert text.count("/health;\n            access_log") == 5


@GATEWAYS
def test_times_sizes_and_retries(gateway: Gateway) -> None:
    text = rendered(gateway)[gateway.config_file]
    for directive in (
        "proxy_connect_timeout 2s;", "proxy_read_timeout 600s;", "proxy_send_timeout 600s;",
        "client_max_body_size 32m;", "client_max_body_size 100m;", "proxy_buffering off;",
        "proxy_next_upstream_timeout 10s;", "proxy_next_upstream error non_idempotent;", "merge_slashes off;",
        f"listen {gateway.port} default_server;",
    ):  # fmt: skip
        assert directive in text
    for absent in ("rewrite ", "~", "user ", "$request_body"):
        assert absent not in without_comments(text)
    # An `if` is safe where it only returns, and outside of every location.
    before_locations = without_comments(text).split("location ")[0]
    assert (
        text.count("if (")
        == before_locations.count("if (")
        == len(re.findall(r"if \(.*\) \{\n +return \d+;\n +\}", text))
    )


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def test_the_identity_follows_every_change() -> None:
    gateway = gateway_fleet.unified()
    backends = gateway_fleet.default_backends(gateway)
    less = [Backend(backend.pool, backend.engine, backend.members[:1]) for backend in backends]
    slower = gateway.model_copy(update={"limits": Limits(read_seconds=601)})
    identities = {config_identity(gateway, backends), config_identity(gateway, less), config_identity(slower, backends)}
    assert len(identities) == 3
    files = render_gateway(gateway, backends)
    assert f'X-Stoker-Config "{config_identity(gateway, backends)}"' in files[gateway.config_file]


def test_ollama_models_are_known_with_and_without_latest() -> None:
    def backend(model: str, engine: str) -> Backend:
        pool = Pool(name="pool", model=model, kind="embeddings", default=True)
        return Backend(pool, engine, (Member("a", "192.168.31.65:11434"),))  # type: ignore[arg-type]

    assert set(model_names([backend("bge-m3", "ollama")])) == {"bge-m3", "bge-m3:latest"}
    assert set(model_names([backend("bge-m3:latest", "ollama")])) == {"bge-m3", "bge-m3:latest"}
    assert set(model_names([backend("bge-m3:567m", "ollama")])) == {"bge-m3:567m"}
    assert set(model_names([backend("bge-m3", "vllm")])) == {"bge-m3"}


def test_vllm_embeddings_have_no_ollama_paths() -> None:
    pool = Pool(name="embed", model="bge-m3", kind="embeddings", prefix="/embed", default=True)
    paths = [route.path for route in routes_of([Backend(pool, "vllm", (Member("a", "192.168.31.65:8000"),))])]
    assert paths == ["/v1/embeddings", "/embed/v1/embeddings", "/embed/v1/models"]


def test_a_path_has_no_default_when_the_default_pool_does_not_serve_it() -> None:
    vllm = Pool(name="fast", model="bge-large", kind="embeddings", default=True)
    ollama = Pool(name="old", model="bge-m3", kind="embeddings")
    routes = routes_of([Backend(vllm, "vllm", (Member("a", "h:1"),)), Backend(ollama, "ollama", (Member("b", "h:2"),))])
    assert {route.path: route.default for route in routes} == {
        "/v1/embeddings": "fast", "/api/embeddings": None, "/api/embed": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "members",
    [
        (),
        (Member("a", "192.168.31.10"),),
        (Member("a", "a b:1"),),
        (Member("a", "h:1; }"),),
        (Member("a", "h:1\n"),),
        (Member("a\nb", "h:1"),),
        (Member("a b", "h:1"),),
        (Member("a", "h:1"), Member("a", "h:2")),
    ],
)
def test_members_that_nginx_cannot_use_are_refused(members: tuple[Member, ...]) -> None:
    gateway = gateway_fleet.llm_only()
    backends = [Backend(pool, "vllm", members) for pool in gateway.pools]
    with pytest.raises(ValueError, match=r"no members|is not address:port|twice"):
        render_gateway(gateway, backends)


def test_members_of_another_gateway_are_refused() -> None:
    with pytest.raises(ValueError, match="has the pools"):
        render_gateway(gateway_fleet.llm_only(), gateway_fleet.default_backends(gateway_fleet.unified()))


def test_real_nginx_accepts_a_large_fleet(tmp_path: Path) -> None:
    pools = tuple(
        Pool(name=f"pool-{n}", model=f"org/model-{n}", kind="chat", prefix=f"/pool-{n}", default=n == 0)
        for n in range(60)
    )
    gateway = Gateway(container="g", port=8000, config_file="nginx.conf", pools=pools)
    backends = [
        Backend(pool, "vllm", tuple(Member(f"{pool.name}_{n}@host-{n}", f"10.0.{n}.1:11401") for n in range(60)))
        for pool in pools
    ]
    for name, text in render_gateway(gateway, backends).items():
        (tmp_path / name).write_text(text)
    command = nginx_command(tmp_path, "-t", "-c", f"{CONFIG_DIRECTORY}/nginx.conf")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
