"""A Compose file as its services, by the parts of the Compose Specification that people use by hand. ``docker compose`` is not needed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stoker.importer.errors import CannotImport
from stoker.importer.notes import Notes

#: Keys of a service that are read here.
_READ = {
    *("image", "build", "container_name", "entrypoint", "command", "environment", "env_file", "ports", "volumes"),
    *("deploy", "gpus", "devices", "runtime", "restart", "scale", "depends_on"),
}


#: A description knows 16 cards a host; more than four engines on each is a slip.
_MOST_REPLICAS = 64

_MOST_PORT = 65535


@dataclass(frozen=True)
class Wish:
    """The cards that a service is given: by name, or so many. ``count`` None: all of them."""

    names: tuple[str, ...] = ()
    count: int | None = 0

    def __bool__(self) -> bool:
        return bool(self.names) or self.count != 0


@dataclass(frozen=True)
class Service:
    """One service."""

    name: str
    container: str  #: empty when Compose makes the name
    image: str  #: with a Dockerfile, the image that it begins with
    built: bool
    words: tuple[str, ...]  #: entrypoint and command, as the words of one command line
    environment: Mapping[str, str]
    ports: tuple[tuple[int | None, int], ...]  #: on the host (None: Docker chooses one), in the container
    loopback: bool  #: a port is open to the host itself alone
    host_network: bool  #: its ports are the host's, without being published
    mounts: tuple[tuple[str, str], ...]  #: as written, place in the container
    cards: Wish
    restart: str
    replicas: int
    others: tuple[str, ...]  #: keys that are not read

    @property
    def label(self) -> str:
        """How a person knows it."""
        return self.container or self.name

    @property
    def closed(self) -> str:
        """How it was kept from other machines; empty where it was not."""
        if self.loopback:
            return "its port was open to the host itself alone, and is"
        return "" if self.ports or self.host_network else "it published no port, and has one that is"

    def mount(self, inside: str) -> tuple[str, str] | None:
        """What is mounted where a path of the container lies, the innermost first."""
        holding = [one for one in self.mounts if inside == one[1] or inside.startswith(one[1].rstrip("/") + "/")]
        return max(holding, key=lambda one: len(one[1]), default=None)


@dataclass(frozen=True)
class Compose:
    """One file."""

    path: Path
    project: str
    services: tuple[Service, ...]
    volumes: frozenset[str]  #: named ones


def read(path: Path, notes: Notes) -> Compose:
    """Raises CannotImport."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotImport(f"{path}: it cannot be read: {error}") from None
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CannotImport(f"{path}: it is no YAML that can be read: {_fault(error)}; correct it there") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("services"), dict) or not tree["services"]:
        raise CannotImport(f"{path}: it has no `services`; name a Compose file, for instance docker-compose.yml")
    if "include" in tree:
        notes.left_out("", f"include in {path.name}", "only the named files are read; name the included ones too")
    variables = _dot_env(path)
    tree = _interpolated(tree, variables, path, notes)
    project = str(tree.get("name") or variables.get("COMPOSE_PROJECT_NAME") or path.absolute().parent.name)
    services = tuple(
        _service(str(name), one, path, notes) for name, one in tree["services"].items() if isinstance(one, dict)
    )
    named = tree.get("volumes")
    return Compose(path, _project(project), services, frozenset(named) if isinstance(named, dict) else frozenset())


def _fault(error: yaml.YAMLError) -> str:
    """Where and what, without the lines themselves and the words in them: they may be secrets."""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return "it has a character that YAML does not allow"
    what = re.sub(r"'(?!<)[^']{2,}'", "'...'", error.problem or "it breaks off")
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}"


def _project(name: str) -> str:
    """As Compose makes a name of a directory's."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-") or "imported"


def _dot_env(path: Path) -> dict[str, str]:
    file = path.parent / ".env"
    try:
        return _pairs(file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return {}


def _pairs(lines: Sequence[str]) -> dict[str, str]:
    """``NAME=value``, with quotes around the value and comments left out."""
    found = {}
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and name and not name.startswith("#"):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name.strip()] = value[1:-1] if quoted else value.partition(" #")[0].strip()
    return found


_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-?+])([^}]*))?\}|(\w+))")


def _interpolated(part: Any, variables: Mapping[str, str], path: Path, notes: Notes) -> Any:
    """Variables replaced as Compose does, from the file ``.env`` beside it; those of a shell are not known."""
    if isinstance(part, dict):
        return {key: _interpolated(item, variables, path, notes) for key, item in part.items()}
    if isinstance(part, list):
        return [_interpolated(item, variables, path, notes) for item in part]
    if not isinstance(part, str) or "$" not in part:
        return part

    def value(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        name, operator, default = found[2] or found[5], found[3] or "", found[4] or ""
        if variables.get(name) or (name in variables and not operator.startswith(":")):
            return default if operator.endswith("+") else variables[name]
        if operator.endswith("-"):
            return default
        notes.assumed(
            "", f"${name} in {path.name} is empty", f"neither the file nor {path.parent / '.env'} gives it a value"
        )
        return ""

    return _VARIABLE.sub(value, part)


def _service(name: str, raw: Mapping[str, Any], path: Path, notes: Notes) -> Service:
    if "extends" in raw:
        notes.left_out(
            name, "extends", "it is not followed; write what the service has from there into it, and import again"
        )
    deploy = _table(raw.get("deploy"))
    image, built = _image(name, raw, path, notes)
    environment = _environment(raw, path)
    replicas = next((one for one in (deploy.get("replicas"), raw.get("scale")) if one is not None), 1)
    return Service(
        name=name,
        container=str(raw.get("container_name") or ""),
        image=image,
        built=built,
        words=(*_words(raw.get("entrypoint")), *_words(raw.get("command"))),
        environment=environment,
        ports=tuple(port for entry in _list(raw.get("ports")) for port in _port(entry)),
        loopback=any(_is_loopback(entry) for entry in _list(raw.get("ports"))),
        host_network=raw.get("network_mode") == "host",
        mounts=tuple(mount for entry in _list(raw.get("volumes")) if (mount := _mount(entry))),
        cards=_cards(raw, deploy, environment),
        restart=str(raw.get("restart") or ""),
        replicas=_replicas(name, replicas, notes),
        others=tuple(key for key in raw if key not in _READ and key != "extends" and not str(key).startswith("x-")),
    )


def _replicas(name: str, given: Any, notes: Notes) -> int:
    """A text is a number where a variable gave it."""
    number = re.fullmatch(r"\d{1,20}", str(given))
    if not number:
        notes.assumed(name, "1 instance", f"{str(given)[:40]!r} is no number of replicas; correct it there")
        return 1
    if int(given) > _MOST_REPLICAS:
        raise CannotImport(
            f"{name}: {given} replicas are more than a host's cards hold ({_MOST_REPLICAS}); correct the number"
        )
    return int(given)


def _image(name: str, raw: Mapping[str, Any], path: Path, notes: Notes) -> tuple[str, bool]:
    """The image, or the one that its Dockerfile begins with."""
    build = raw.get("build")
    if not build:
        return str(raw.get("image") or ""), False
    context = build if isinstance(build, str) else _table(build).get("context", ".")
    file = _table(build).get("dockerfile", "Dockerfile")
    dockerfile = path.parent / str(context) / str(file)
    try:
        lines = dockerfile.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        notes.left_out(
            name, f"build: {dockerfile}", "the Dockerfile cannot be read here, so what is in its image is not known"
        )
        return str(raw.get("image") or ""), True
    bases = [line.split() for line in lines if line.upper().startswith("FROM ")]
    words = [word for word in bases[-1][1:] if not word.startswith("--")] if bases else [""]
    return words[0], True


def _words(value: Any) -> list[str]:
    """A command as Compose reads it, and a shell's own command line as its words."""
    words = (
        [str(word) for word in value] if isinstance(value, list) else _split(value) if isinstance(value, str) else []
    )
    if len(words) == 3 and words[0].rpartition("/")[2] in ("sh", "bash") and words[1] in ("-c", "-lc"):
        return _split(words[2])
    return words


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text.replace("\\\n", " "))
    except ValueError:  # a quotation mark that is not closed
        return text.split()


def _environment(raw: Mapping[str, Any], path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    files = raw.get("env_file")
    for file in _list(files) or ([files] if files else []):
        name = file.get("path", "") if isinstance(file, dict) else file
        try:
            found |= _pairs((path.parent / str(name)).read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            continue
    given = raw.get("environment")
    found |= _pairs([str(entry) for entry in _list(given)])
    found |= {str(name): _scalar(value) for name, value in _table(given).items()}
    return found


def _list(value: Any) -> list[Any]:
    """A list; anything else, which Compose would refuse, is none."""
    return value if isinstance(value, list) else []


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _scalar(value: Any) -> str:
    """As Compose writes YAML's values into an environment."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _port(entry: Any) -> list[tuple[int | None, int]]:
    if isinstance(entry, dict):
        published, target = str(entry.get("published") or ""), str(entry.get("target") or "")
    else:
        text = str(entry).partition("/")[0]
        published, _, target = text.rpartition(":")
        published = published.rpartition(":")[2]  # an address of the host may stand before
    inside, outside = _range(target), _range(published)
    if len(outside) == len(inside):
        return [*zip(outside, inside, strict=True)]
    return [(outside[0] if outside else None, port) for port in inside]


def _is_loopback(entry: Any) -> bool:
    address = str(entry.get("host_ip", "")) if isinstance(entry, dict) else str(entry)
    return address.startswith(("127.", "localhost", "[::1]", "::1"))


def _range(text: str) -> list[int]:
    first, _, last = text.partition("-")
    if not first.isdecimal() or (last and not last.isdigit()):
        return []
    return [*range(int(first), min(int(last or first), _MOST_PORT) + 1)]


def _mount(entry: Any) -> tuple[str, str] | None:
    if isinstance(entry, dict):
        return (str(entry.get("source") or ""), str(entry["target"])) if entry.get("target") else None
    source, colon, rest = str(entry).partition(":")
    return (source, rest.partition(":")[0]) if colon else None


def _cards(raw: Mapping[str, Any], deploy: Mapping[str, Any], environment: Mapping[str, str]) -> Wish:
    """Every way to ask for cards, the most exact first."""
    devices = [
        str(one).partition("nvidia.com/gpu=")[2] for one in _list(raw.get("devices")) if "nvidia.com/gpu=" in str(one)
    ]
    if devices:
        return Wish(count=None) if "all" in devices else Wish(tuple(devices))
    reserved = _list(_table(_table(deploy.get("resources")).get("reservations")).get("devices"))
    asked = raw.get("gpus")
    wishes = [*reserved, *([{}] if asked == "all" else _list(asked))]
    found = _visible(environment)
    for one in wishes:
        if not isinstance(one, dict) or one.get("driver", "nvidia") not in ("nvidia", "cdi"):
            continue
        if names := _list(one.get("device_ids")):
            return Wish(tuple(str(name).removeprefix("nvidia.com/gpu=") for name in names))
        count = str(one.get("count", "all"))
        return found or Wish(count=int(count) if count.isdecimal() else None)
    return found if found or raw.get("runtime") != "nvidia" else Wish(count=None)


def _visible(environment: Mapping[str, str]) -> Wish:
    for variable in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        value = environment.get(variable, "").strip()
        if value == "all":
            return Wish(count=None)
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        if names and names not in (("none",), ("void",), ("-1",)):
            return Wish(names)
    return Wish()
