"""What is compared: each subject's configuration, and the command that starts it. All pass to the same backend."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gateway.programs import free_port, inside
from stoker.render.gateway import Backend, Member, render_gateway
from stoker.spec.gateway import Gateway, Pool

MODEL = "llama3.1-8b"
PATH = "/v1/chat/completions"
#: As many as the default fleet has LLM instances; in the gateway the last one serves the other model.
MEMBERS = 5
#: nginx's processes, of every subject: all have one core, on which several would wait for one another's time slices.
WORKERS = 1

_ANSWER = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"llama3.1-8b","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"Yes."},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}}'
)


@dataclass(frozen=True)
class Subject:
    """One way from the client to the backend."""

    name: str
    port: int
    command: list[str] = field(default_factory=list)
    #: Seconds until it listens, at most.
    patience: float = 20
    headers: dict[str, str] = field(default_factory=dict)
    #: Ordered by what it adds to the one before; measured on its own to show where the time goes.
    step: bool = False


def _write(directory: Path, name: str, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(text)
    return directory


def _nginx(directory: Path, file: str = "nginx.conf", at: str = "/bench") -> list[str]:
    return inside(directory, "/usr/sbin/nginx", "-c", f"{at}/{file}", "-g", "daemon off;")


def backend(directory: Path, ports: list[int]) -> list[str]:
    """nginx that answers everything at once with a small chat completion."""
    listens = "".join(f"listen 127.0.0.1:{port}; " for port in ports)
    text = f"""
worker_processes 1;
pid /run/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_max_body_size 200m;
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
    keepalive_requests 100000000;
    default_type application/json;
    server {{ {listens} location / {{ return 200 '{_ANSWER}'; }} }}
}}
"""
    return _nginx(_write(directory, "nginx.conf", text))


def gateway(directory: Path, members: list[int]) -> Subject:
    """The gateway as a deploy would render it, but for the number of nginx's processes."""
    port = free_port()
    pools = (
        Pool(name="llama", model=MODEL, kind="chat", prefix="/llama", default=True),
        Pool(name="qwen", model="qwen2.5-14b", kind="chat", prefix="/qwen"),
    )
    spec = Gateway(container="bench", port=port, config_file="nginx.conf", pools=pools)
    described = tuple(Member(f"member_{number}", f"127.0.0.1:{member}") for number, member in enumerate(members))
    backends = [Backend(pools[0], "vllm", described[:-1]), Backend(pools[1], "vllm", described[-1:])]
    for name, text in render_gateway(spec, backends, "/bench").items():
        _write(directory, name, re.sub(r"(?m)^worker_processes \d+;$", f"worker_processes {WORKERS};", text))
    return Subject("this gateway", port, _nginx(directory))


#: Name -> the body of js_access: each does what the one before does, and one thing more.
STEPS = {
    "nginx, empty script": "r.variables.pool = 'llama';",
    "nginx, script that reads the body": "const text = await r.readRequestText(); r.variables.pool = text ? 'llama' : '';",
    "nginx, script that parses the body": (
        "const body = JSON.parse(await r.readRequestText()); r.variables.pool = body.model === 'llama3.1-8b' ? 'llama' : '';"
    ),
}


def plain(directory: Path, members: list[int], name: str = "nginx proxy_pass", script: str = "") -> Subject:
    """nginx with a pool, keepalive and a log as the gateway has them, and with at most a few words of script."""
    port = free_port()
    servers = "".join(f"server 127.0.0.1:{member}; " for member in members)
    setup = "js_engine qjs; js_path /bench; js_import s from s.js; js_var $pool; map p_$pool $up { default ''; p_llama pool; }"
    text = f"""
load_module modules/ngx_http_js_module.so;
worker_processes {WORKERS};
worker_rlimit_nofile 8192;
pid /run/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
    access_log /dev/stdout;
    client_max_body_size 100m;
    client_body_buffer_size 1m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffering off;
    {setup if script else ""}
    upstream pool {{ zone pool 256k; least_conn; {servers} keepalive 32; keepalive_timeout 4s; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ {"js_access s.choose; proxy_pass http://$up;" if script else "proxy_pass http://pool;"} }}
    }}
}}
"""
    _write(directory, "nginx.conf", text)
    _write(directory, "s.js", f"async function choose(r) {{ {script} }}\nexport default {{ choose }};\n")
    return Subject(name, port, _nginx(directory), step=bool(script))


def haproxy(directory: Path, members: list[int]) -> Subject:
    """HAProxy that chooses by json_query. Its buffer must hold the whole body: 64 KiB here, 16 KiB by default."""
    port = free_port()
    servers = "\n".join(f"  server s{number} 127.0.0.1:{member}" for number, member in enumerate(members))
    text = f"""
global
  nbthread 1
  maxconn 4000
  tune.bufsize 65536
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option http-no-delay
  timeout connect 2s
  timeout client 600s
  timeout server 600s
frontend f
  bind 127.0.0.1:{port}
  option http-buffer-request
  http-request set-var(txn.model) req.body,json_query('$.model')
  http-request return status 404 content-type application/json string '{{}}' if !{{ var(txn.model) -m found }}
  use_backend pool if {{ var(txn.model) -m str {MODEL} }}
backend pool
  balance leastconn
  http-reuse always
{servers}
"""
    _write(directory, "haproxy.cfg", text)
    return Subject(
        "HAProxy, json_query", port, inside(directory, "/usr/sbin/haproxy", "-db", "-f", "/bench/haproxy.cfg")
    )


#: LiteLLM asks for a key, which has to begin like this and be long.
_KEY = "sk-benchmark-0000000000000000000000000000"


def litellm(directory: Path, members: list[int]) -> Subject | None:
    """LiteLLM's proxy with one worker; None when there is no ``litellm`` on the PATH."""
    program = shutil.which("litellm")
    if program is None:
        return None
    port = free_port()
    entries = "".join(
        f"  - model_name: {MODEL}\n    litellm_params: {{model: openai/{MODEL}, api_base: 'http://127.0.0.1:{member}/v1', api_key: x}}\n"
        for member in members
    )
    text = f"model_list:\n{entries}general_settings: {{master_key: {_KEY}}}\nlitellm_settings: {{telemetry: false, num_retries: 0, request_timeout: 600}}\n"
    _write(directory, "config.yaml", text)
    settings = [
        "LITELLM_LOCAL_MODEL_COST_MAP=True",
        "LITELLM_LOG=ERROR",
        "NO_DOCS=True",
        "LITELLM_MODE=PRODUCTION",
        f"HOME={directory}",
    ]
    command = [
        "env",
        *settings,
        program,
        "--config",
        str(directory / "config.yaml"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    return Subject("LiteLLM, 1 worker", port, command, patience=90, headers={"Authorization": f"Bearer {_KEY}"})


def environment_hint() -> str:
    return "no litellm on the PATH: python3 -m venv V; V/bin/pip install 'litellm[proxy]'; PATH=$PWD/V/bin:$PATH"


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), os.uname().machine)
