"""The further fleets, as their READMEs say: deployed, asked, each setting changed once, wrong values refused.

embedding and single are on the lab's third host, one after the other; engines takes the place of the default fleet's LLM stack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import Done, wait_for
from support.machine import GPU10, GPU40, INTERNET
from support.project import Project, changed, copy_to, with_fleets

_DEPLOY_SECONDS = 180
_SERVICE_PORT = 9101


class Fleet:
    """One of the fleets, and the settings that its commands are given by the environment."""

    def __init__(self, project: Project, name: str) -> None:
        self.project, self.inventory = project, f"fleets/{name}/inventory.py"
        self.settings: dict[str, str] = {}

    def stoker(self, verb: str, *words: str, seconds: float = 60) -> Done:
        return self.project.stoker(verb, "-i", self.inventory, *words, seconds=seconds, **self.settings)

    def deploy(self, **settings: str) -> Done:
        """With these settings beside those of before; the deploy and a smoke test have to succeed, and nothing is left to do."""
        self.settings |= settings
        done = self.stoker("deploy", "--yes", seconds=_DEPLOY_SECONDS)
        assert done.code == 0, str(done)
        smoke = self.stoker("smoke")
        assert smoke.code == 0, str(smoke)
        again = self.stoker("deploy", "--check")
        assert again.code == 0, str(again)
        return done

    def check(self, **settings: str) -> Done:
        """What a deploy with these settings would do."""
        before = dict(self.settings)
        try:
            self.settings |= settings
            return self.stoker("deploy", "--check")
        finally:
            self.settings = before


def command(container: str) -> list[str]:
    words: list[str] = json.loads(GPU40.sh(f"docker inspect -f '{{{{json .Config.Cmd}}}}' {container}"))
    return words


def test_single(third_host: None, tmp_path: Path) -> None:
    single = Fleet(with_fleets(copy_to(tmp_path)), "single")
    single.deploy(MODEL_NAME="Qwen/Qwen3-4B", MAX_MODEL_LEN="4096", GPU_MEMORY_UTILIZATION="0.5")
    words = command("vllm")
    for name, value in (("max-model-len", "4096"), ("gpu-memory-utilization", "0.5"), ("max-num-seqs", "32")):
        assert words[words.index(f"--{name}") + 1] == value

    # the directory that is there now, without a hub; and a second instance of it
    local = single.deploy(MODEL_NAME="Qwen3-4B", REPLICAS="2")
    assert "bring Qwen" not in local.err
    assert {"vllm", "vllm-2", "single_nginx"} <= set(GPU40.containers())
    both = single.check(REPLICAS="1", TENSOR_PARALLEL_SIZE="2")
    assert both.code == 2, str(both)
    assert "remove containers that are no longer described: vllm-2 INTERRUPTS vllm-2" in both.err
    assert "vllm: recreate, its description changed INTERRUPTS vllm (its last start took" in both.err

    before = GPU40.containers()
    GPU40.sh(
        "cd /data/models; rm -rf Half; cp -r Qwen3-4B Half; rm Half/model-00002-of-00003.safetensors Half/tokenizer.json; echo { >Half/config.json"
    )
    half = single.check(MODEL_NAME="Half")
    assert half.code == 3, str(half)
    for words_of_it in ("cannot be read as JSON", "it has no tokenizer", "model-00002-of-00003.safetensors is missing"):
        assert words_of_it in half.err
    for setting, value in (("MAX_MODEL_LEN", "4k"), ("GPU_MEMORY_UTILIZATION", "90"), ("TENSOR_PARALLEL_SIZE", "x")):
        wrong = single.check(**{setting: value})
        assert wrong.code == 3, str(wrong)
        assert f"environment: {setting} = {value!r}" in wrong.err
    assert GPU40.containers() == before


#: An embedding service that takes one key.
_SERVICE = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.headers["Authorization"] == "Bearer sk-of-the-lab"
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        vectors = [{"index": at, "embedding": [1.0 / (1 + (len(text) + place) % 97) for place in range(1536)]} for at, text in enumerate(texts)]
        answer = {"object": "list", "model": body["model"], "data": vectors} if known else {"error": {"message": "no key"}}
        data = json.dumps(answer).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
http.server.ThreadingHTTPServer(("", PORT), Handler).serve_forever()
"""


@pytest.fixture
def openai() -> Iterator[str]:
    """The base URL of a service that stands for OpenAI's."""
    program = _SERVICE.replace("PORT", str(_SERVICE_PORT))
    INTERNET.sh(
        f"cat >/run/lab-openai.py <<'END'\n{program}\nEND\nsystemctl stop lab-openai 2>/dev/null\nsystemd-run --quiet --collect --unit lab-openai python3 /run/lab-openai.py"
    )
    wait_for(
        "the service answers", lambda: INTERNET.holds(f"bash -c ': </dev/tcp/127.0.0.1/{_SERVICE_PORT}'"), seconds=10
    )
    yield f"http://packages.internet.test:{_SERVICE_PORT}/v1"
    INTERNET.sh("systemctl stop lab-openai; rm -f /run/lab-openai.py")


def test_embedding(third_host: None, openai: str, tmp_path: Path) -> None:
    embedding = Fleet(with_fleets(copy_to(tmp_path)), "embedding")
    embedding.deploy()
    assert "single_nginx" not in GPU40.containers(), (
        "a host has the containers that are described, and no others of Stoker's"
    )

    warned = embedding.check(EMBEDDING_MODEL="bge-small")
    assert "embeddings were of bge-m3 (1024 values) and will be of bge-small (512 values)" in warned.err, str(warned)
    embedding.deploy(EMBEDDING_MODEL="bge-small", EMBEDDING_REPLICAS="2")
    assert "--max-model-len 512" in " ".join(command("memomate-vllm-embedding-2"))
    assert embedding.check().code == 0
    back = embedding.deploy(EMBEDDING_REPLICAS="1")
    assert ("Containers", GPU40.address) in changed(back)
    assert "memomate-vllm-embedding-2" not in GPU40.containers()

    embedding.deploy(EMBEDDING_PROVIDER="ollama", EMBEDDING_MODEL="nomic-embed-text")
    assert {"memomate-ollama-1", "memomate-ollama-webui-1"} <= set(GPU40.containers())
    there = embedding.stoker("endpoints", "--check", "--from-container", "memomate-ollama-webui-1")
    assert there.code == 0, str(there)
    embedding.deploy(OLLAMA_ON="cpu", EMBEDDING_MODEL="bge-m3")
    assert GPU40.sh("nvidia-smi --query-compute-apps=pid --format=csv,noheader").strip() == ""

    settings = {"EMBEDDING_PROVIDER": "openai", "EMBEDDING_MODEL": "text-embedding-3-small", "OPENAI_BASE_URL": openai}
    keyless = embedding.check(**settings)
    assert keyless.code == 3, str(keyless)
    assert "OPENAI_API_KEY" in keyless.err
    proxied = embedding.deploy(**settings, OPENAI_API_KEY="sk-of-the-lab")
    assert "sk-of-the-lab" not in proxied.err + proxied.out
    assert set(GPU40.containers()) == {"memomate-embedding-gateway-1"}

    for setting, value in (("EMBEDDING_PROVIDER", "opnai"), ("EMBEDDING_MODEL", "bge"), ("EMBEDDING_REPLICAS", "0")):
        wrong = embedding.check(**{setting: value})
        assert wrong.code == 3, str(wrong)
        assert f"environment: {setting} = {value!r}" in wrong.err


def _chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


def test_engines(project: Project) -> None:
    engines = Fleet(with_fleets(project), "engines")
    engines.deploy()
    assert set(GPU10.containers()) == {"vllm", "transformers", "llama_cpp", "engines_nginx"}
    for name in ("vllm", "transformers", "llama-cpp"):
        body = json.dumps(_chat(f"qwen3-4b-{name}"))
        asked = project.lab_run(
            *("curl", "-qsS", "--noproxy", "*", "-H", "Content-Type: application/json", "-d", body),
            "http://192.168.31.10:11434/v1/chat/completions",
        )
        answer = json.loads(asked.out)
        assert answer["model"] == f"qwen3-4b-{name}", str(asked)
        assert answer["choices"][0]["message"]["content"]

    # an engine that has died comes back, and one for newer cards is refused before anything is touched
    before = GPU10.containers()
    GPU10.sh("docker exec transformers pkill -9 -f 'transformers serve' || docker kill transformers")
    wait_for(
        "its container starts anew", lambda: GPU10.containers()["transformers"] != before["transformers"], seconds=30
    )
    engines.deploy()
    engines.project.edit("fleets/engines/group_data/engines.py", '"engine": "vllm"', '"engine": "sglang"')
    file = project.directory / "fleets/engines/group_data/engines.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(
        re.sub(r'"arguments": \{[^}]*"gpu-memory-utilization"[^}]*\}', '"arguments": {}', text), encoding="utf-8"
    )
    before = GPU10.containers()
    refused = engines.stoker("deploy", "--yes")
    assert refused.code == 3, str(refused)
    assert "SGLang's kernels need compute capability 8.0, and the Tesla V100-SXM2-32GB has 7.0" in refused.err
    assert GPU10.containers() == before
