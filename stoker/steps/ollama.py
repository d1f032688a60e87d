"""Ollama's models: pulled under their library name, served under their own name with the parameters wanted."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.spec.instance import Instance
from stoker.spec.settings import OllamaModel
from stoker.spec.stack import Stack
from stoker.steps.action import Action
from stoker.steps.layout import MODELS

#: Directory of models that were pulled without a host in their name (Ollama 0.32, types/model/name.go).
_OWN_REGISTRY = "registry.ollama.ai"


@dataclass(frozen=True)
class Served:
    """A model of one stack and the instance through which it is pulled.

    One only, although several share the directory: a starting Ollama may prune another's partial download.
    """

    stack: Stack
    instance: Instance
    model: OllamaModel
    mirror: str | None = None

    @property
    def base(self) -> str:
        """The name that is pulled. A mirror's models carry its host in front: ``host/library/bge-m3:567m``."""
        if self.mirror is None:
            return self.model.library
        return f"{urlsplit(self.mirror).netloc}/{_full_name(self.model.library)}"

    @property
    def base_manifest(self) -> str:
        host = urlsplit(self.mirror).netloc if self.mirror else _OWN_REGISTRY
        return self._manifest(host, self.model.library)

    @property
    def manifest(self) -> str:
        name = self.instance.model
        return self._manifest(_OWN_REGISTRY, name if ":" in name else f"{name}:latest")

    @property
    def record(self) -> str:
        """Where the deploy notes which manifest it made from which parameters."""
        place = f"{self.instance.model}{self.stack.model_directory}"
        return f"{MODELS}/ollama-{place.translate(str.maketrans('/:', '__'))}"

    @property
    def recipe(self) -> str:
        return json.dumps({"from": self.base, "parameters": self.model.parameters}, sort_keys=True)

    def _manifest(self, registry: str, name: str) -> str:
        model, _, tag = _full_name(name).rpartition(":")
        return f"{self.stack.model_directory}/models/manifests/{registry}/{model}/{tag}"


def _full_name(name: str) -> str:
    return name if "/" in name else f"library/{name}"


def served(host: Host) -> list[Served]:
    found: dict[tuple[str, str], Served] = {}
    for stack, instance in host.instances():
        model = host.model_of(instance)
        if isinstance(model, OllamaModel):
            found.setdefault(
                (stack.model_directory, instance.model), Served(stack, instance, model, host.settings.mirrors.ollama)
            )
    return list(found.values())


def files(host: Host) -> list[str]:
    return [path for entry in served(host) for path in (entry.base_manifest, entry.manifest)]


def contents(host: Host) -> list[str]:
    return [entry.record for entry in served(host)]


def actions(host: Host, state: HostState) -> list[Action]:
    found = []
    for entry in served(host):
        base = state.files.get(entry.base_manifest)
        if base is None:
            found.append(Action(f"pull {entry.base} through {entry.instance.name}", _pull(entry), long=True))
        made = state.files.get(entry.manifest)
        if (
            base is None
            or made is None
            or state.contents.get(entry.record, "").strip() != f"{made.digest} {entry.recipe}"
        ):
            parameters = ", ".join(f"{key} {value}" for key, value in entry.model.parameters.items())
            found.append(
                Action(
                    f"make {entry.instance.model} from {entry.base} with {parameters or 'its own parameters'}",
                    _create(entry),
                )
            )
    return found


def _pull(entry: Served) -> str:
    insecure = {"insecure": True} if (entry.mirror or "").startswith("http://") else {}
    body = json.dumps({"model": entry.base, **insecure})
    # The stream's last line says how it ended; its status is 200 also when it failed.
    return (
        f"{_wait(entry)} && curl -q -sS --noproxy '*' -N -X POST {_url(entry)}/api/pull -d {shlex.quote(body)} "
        '| { while IFS= read -r line || test -n "$line"; do echo "$line"; last=$line; done; case $last in *\'"status":"success"\'*) ;; *) exit 1;; esac; }'
    )


def _create(entry: Served) -> str:
    body = json.dumps(
        {
            "model": entry.instance.model,
            "from": entry.base,
            "parameters": entry.model.parameters,
            "stream": False,
        }
    )
    digest = f"$(sha256sum {shlex.quote(entry.manifest)} | cut -c1-64)"
    return (
        f"{_wait(entry)} && curl -q -sS --noproxy '*' --fail-with-body -m 120 -X POST {_url(entry)}/api/create -d {shlex.quote(body)} "
        f"&& printf '%s %s\\n' \"{digest}\" {shlex.quote(entry.recipe)} >{shlex.quote(entry.record)}"
    )


def _url(entry: Served) -> str:
    return f"http://127.0.0.1:{entry.instance.port}"


def _wait(entry: Served) -> str:
    return (
        f"{{ i=0; until curl -q -sf --noproxy '*' -m 2 -o /dev/null {_url(entry)}/api/version; do i=$((i+1)); test $i -lt 120 || "
        f"{{ echo 'Ollama in {entry.instance.name} does not answer'; docker logs --tail 20 {entry.instance.name}; exit 1; }}; sleep 0.5; done; }}"
    )
