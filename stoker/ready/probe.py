"""One look at a host: the POSIX sh script that sees all instances of the host at once, and what its output means.

One SSH command a look, however many instances; it waits on the host until there is something to see (`hold`). Docker is
asked through its socket with curl, because the docker command costs several times as much processor time. A real request
may take minutes (Ollama loads the model for it), so it runs beside the looks and its answer is collected by a later one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from stoker.facts.paths import DOCKER_SOCKET
from stoker.ready.cards import SAMPLES, CardsSeen, is_gone, read_samples
from stoker.ready.hold import NOTHING, Heed, hold_line
from stoker.ready.load_record import LOADS
from stoker.ready.question import FILL, Answer, Question
from stoker.ready.stamp import STAMP_DIRECTORY, write_stamps_fragment
from stoker.ready.target import Target

WORK_DIRECTORY = "/run/stoker-ready"  # answers on their way, private to root

DOCKER_SECONDS = 5  # curl --max-time for one question to Docker
HEALTH_SECONDS = 2

_CURL = "curl -q -s --noproxy '*'"
_FIRST_FRAME = re.compile(rb"[\x01\x02]\x00\x00\x00")


@dataclass(frozen=True, slots=True)
class LogWish:
    """Which part of a container's log to fetch: between two of Docker's times, at most so many lines; so many characters are read."""

    since: str
    until: str = ""
    lines: int = 200
    size: int = 16 * 1024


@dataclass(frozen=True, slots=True)
class Look:
    """What to find out about one instance: always its state; its health, its log and an answer where wanted.

    `start` names the start that is asked for a real answer ("" for none): an answer belongs to one start. `heed`: what of
    it ends the hold before the look; the answer's file is added here. `history`: the record of its last load is read, too.
    `examine`: nvidia-smi is asked for its cards alone.
    """

    target: Target
    health: bool = True
    log: LogWish | None = None
    start: str = ""
    question: Question | None = None
    heed: Heed = NOTHING
    history: bool = False
    examine: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """The part of docker inspect that matters here."""

    id: str
    status: str
    exit_code: int
    restarts: int
    started_at: str
    out_of_memory: bool
    error: str
    pid: int = 0
    log_path: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look found of one instance. `container` is None when there is none; `code` is 0 without an answer."""

    container: Container | None
    code: int = 0
    log: str | None = None
    answer: Answer | None = None
    answer_start: str = ""
    history: str = ""
    age: float | None = None  #: seconds since its start, told with the history
    card_error: str = ""  #: what nvidia-smi says of its cards when it fails for them


@dataclass(frozen=True, slots=True)
class HostSeen:
    """What one look found: per instance (in the order of the looks), or why nothing was found."""

    instances: tuple[Seen, ...] = ()
    trouble: str = ""
    docker_down: bool = False
    cards: CardsSeen = field(default_factory=CardsSeen)


def start_key(container_id: str, started_at: str) -> str:
    """A short name of one start of one container, fit for a file name."""
    return hashlib.sha256(f"{container_id} {started_at}".encode()).hexdigest()[:16]


def unix_time(docker_time: str, shift: float = 0.0) -> str:
    """Docker's RFC 3339 time as the seconds that its log API takes, to the microsecond, moved by `shift` seconds."""
    whole, _, rest = docker_time.rstrip("Z").partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    return f"{moment + float('0.' + (rest[:6] or '0')) + shift:.6f}"


#: No question takes so long (Question.seconds), and no start's answer is of use for so long.
_FORGOTTEN_MINUTES = 60

# Asks one question beside the looks; $1 file stem, $2 seconds, $3 url, $4 body, $5 url to GET afterwards or "", $6 how often
# $7 stands in the place of @@ in the body.
# Two that watch may ask at once, so it writes to files of its own until its answer is whole.
_ASK_JOB = f"""
p=$1.$$
fill() {{
  [ "$3" -gt 0 ] || {{ printf '%s' "$1"; return; }}
  i=0
  printf '%s' "${{1%%{FILL}*}}"
  while [ "$i" -lt "$3" ]; do printf '%s' "$2"; i=$((i + 1)); done
  printf '%s' "${{1#*{FILL}}}"
}}
fill "$4" "$7" "$6" | {_CURL} --max-time "$2" -H 'Content-Type: application/json' --data-binary @- -o "$p.body" \
 -w '%{{http_code}} %{{time_total}} %{{errormsg}}' "$3" >"$p.code" 2>/dev/null
[ -z "$5" ] || {_CURL} --max-time 10 -o "$p.then" "$5" 2>/dev/null
rm -f "$1.body" "$1.then"
for e in body then; do [ ! -e "$p.$e" ] || mv "$p.$e" "$1.$e"; done
mv "$p.code" "$1.done"
[ "$(cat "$1.busy" 2>/dev/null)" != $$ ] || rm -f "$1.busy"
""".strip()

# setsid: sudo gives the script a terminal of its own on newer systems, and its end would end the job.
_FUNCTIONS = f"""
ask() {{
  f=$D/$1
  [ -e "$f.done" ] && return
  [ -e "$f.busy" ] && kill -0 "$(cat "$f.busy" 2>/dev/null)" 2>/dev/null && return
  [ -e "$f.done" ] && return  # it ended while we looked
  mkdir -p "$D"
  find "$D" -type f -mmin +{_FORGOTTEN_MINUTES} -exec rm -f {{}} + 2>/dev/null  # of starts that nobody watches any more
  setsid sh -c {shlex.quote(_ASK_JOB)} ask "$f" "$2" "$3" "$4" "$5" "$6" "$7" </dev/null >/dev/null 2>&1 &
  echo $! >"$f.busy"
  new="$new $f.done"
}}
tell() {{
  f=$D/$2
  [ -e "$f.done" ] || return
  cat "$f.body" 2>/dev/null
  printf '\\n%s body %s\\n' "$B" "$1"
  cat "$f.then" 2>/dev/null
  printf '\\n%s then %s\\n' "$B" "$1"
  cat "$f.done"
  printf '\\n%s answer %s\\n' "$B" "$1"
  rm -f "$f.body" "$f.then" "$f.done"
}}
""".strip()


def build_script(
    looks: Sequence[Look],
    boundary: str,
    *,
    hold_seconds: float = 0.0,
    cards: bool = False,
    heed_cards: bool = False,
    stamps: Mapping[str, str] | None = None,
    loads: Mapping[str, str] | None = None,
    docker_socket: str = DOCKER_SOCKET,
    work_directory: str = WORK_DIRECTORY,
    stamp_directory: str = STAMP_DIRECTORY,
    load_directory: str = LOADS,
) -> str:
    """The script for one look, to be run by root on the host.

    `boundary` marks the lines that are the script's own in its output and must not be guessable. `stamps` and `loads` (texts
    by container) are written first. `hold_seconds`: it waits that long for something that the looks heed, and looks then;
    `heed_cards`: also for a complaint of nvidia-smi. `cards`: the cards' memory is wanted.
    """
    heeds = [_heed(look, work_directory) for look in looks]
    mark = f"{work_directory}/mark"
    parts = [
        f"B={boundary} D={shlex.quote(work_directory)} new=",
        "umask 077",
        write_stamps_fragment(stamps or {}, stamp_directory),
        write_stamps_fragment(loads or {}, load_directory),
        "command -v curl >/dev/null || { printf '%s nocurl\\n' \"$B\"; exit 0; }",
        '[ -d "$D" ] || mkdir -p "$D"',
        SAMPLES if cards else "",
        hold_line(hold_seconds, heeds, mark, f"{work_directory}/cards" if heed_cards else "") if hold_seconds else "",
        _FUNCTIONS if any(look.question for look in looks) else "",
        _seen_lines(looks, boundary, docker_socket),
        *(_ask_line(at, look) for at, look in enumerate(looks) if look.question),
        "samples" if cards else "",
        *(_history_line(at, look, load_directory) for at, look in enumerate(looks) if look.history),
        *(_examine_line(at, look) for at, look in enumerate(looks) if look.examine and look.target.uuids),
        # An engine that is up answers at once: give it a moment, so that this look already brings the answer.
        'for i in 1 2 3; do w=; for f in $new; do [ -e "$f" ] || w=1; done; [ -z "$w" ] && break; sleep 0.1; done',
        *(f"tell {at} {_stem(look)}" for at, look in enumerate(looks) if look.question),
        "printf '%s end\\n' \"$B\"",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _heed(look: Look, work_directory: str) -> Heed:
    if look.question is None:
        return look.heed
    return replace(look.heed, answer=f"{work_directory}/{look.target.container}.{look.start}.done")


def _stem(look: Look) -> str:
    return shlex.quote(f"{look.target.container}.{look.start}")


def _seen_lines(looks: Sequence[Look], boundary: str, docker_socket: str) -> str:
    """One curl for all states, healths and logs: its start costs more than all that it asks.

    What -w prints after each transfer says whose it was. States and logs leave the host as one text; the healths' codes, which curl
    prints on stderr, stay in $seen for the script itself, too.
    """
    docker = f"--max-time {DOCKER_SECONDS} --unix-socket {shlex.quote(docker_socket)}"
    transfers = []
    for at, look in enumerate(looks):
        container = f"http://docker/containers/{look.target.container}"
        transfers.append(f"{docker} -w '\\n{boundary} state {at} %{{http_code}}\\n' {container}/json")
        if look.health:
            transfers.append(
                f"--noproxy '*' --max-time {HEALTH_SECONDS} -o /dev/null "
                f"-w '%{{stderr}}{boundary} health {at} %{{http_code}}\\n' {shlex.quote(look.target.health_url)}"
            )
        if look.log:
            url = shlex.quote(f"{container}/logs?{_log_query(look.log)}")
            transfers.append(f"{docker} -w '\\n{boundary} log {at}\\n' {url}")
    # The logs that grow from here on end the next hold.
    return (
        f': >"$D/mark"\nexec 3>&1\n'
        f"seen=$({{ curl -q -s {' --next -s '.join(transfers)} 2>&4 | base64 -w 0 >&3; }} 4>&1)\n"
        "exec 3>&-\n"
        'printf \'\\n%s docker\\n%s\\n\' "$B" "$seen"'
    )


def _log_query(wish: LogWish) -> str:
    # A container's first lines may be a little older than its StartedAt.
    query = f"stdout=1&stderr=1&tail={wish.lines}&since={unix_time(wish.since, -0.2)}"
    return f"{query}&until={unix_time(wish.until)}" if wish.until else query


def _ask_line(at: int, look: Look) -> str:
    assert look.question is not None
    asked = look.question
    words = (str(asked.seconds), asked.url, asked.body, asked.then_url, str(asked.repeat), asked.filler)
    arguments = " ".join(map(shlex.quote, words))
    return f'case $seen in *"$B health {at} 200"*) ask {_stem(look)} {arguments} ;; esac'


def _history_line(at: int, look: Look, directory: str) -> str:
    path = shlex.quote(f"{directory}/{look.target.container}")
    return f'cat {path} 2>/dev/null; printf \'\\n%s history {at} %s\\n\' "$B" "$(date +%s)"'


def _examine_line(at: int, look: Look) -> str:
    cards = shlex.quote(",".join(look.target.uuids))
    query = f"timeout {DOCKER_SECONDS} nvidia-smi -i {cards} --query-gpu=uuid --format=csv,noheader 2>&1"
    return f"{query}; printf '\\n%s card {at}\\n' \"$B\""


# --- reading the output -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Parts:
    """The output's sections of one instance, as they come."""

    sections: dict[str, str] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)


def parse_output(output: str, looks: Sequence[Look], boundary: str) -> HostSeen:
    """What the script's output says. Never raises: an output that is not the script's own gives `trouble`."""
    parts = [_Parts() for _ in looks]
    body: list[str] = []
    ended = False
    cards = CardsSeen()
    for line in output.split("\n"):
        if not line.startswith(boundary + " "):
            body.append(line)
            continue
        match line.split()[1:]:
            case ["nocurl"]:
                return HostSeen(trouble="there is no curl on the host (the deploy's base packages include it)")
            case ["end"]:
                ended = True
            case ["docker"]:
                _take_docker("".join(body), boundary, parts)
            case ["cards", _]:
                cards = read_samples("\n".join(body))
            case [kind, at, *rest] if at.isdigit() and int(at) < len(parts):
                parts[int(at)].sections[kind] = "\n".join(body).strip("\n")
                parts[int(at)].status[kind] = int(rest[0]) if rest and rest[0].isdigit() else 0
        body = []
    if not ended:
        return HostSeen(trouble="the look at the host was cut short")
    if looks and all(part.status.get("state") == 0 for part in parts):
        return HostSeen(trouble="Docker does not answer on the host", docker_down=True)
    seen = tuple(_seen(part, look) for part, look in zip(parts, looks, strict=True))
    return HostSeen(seen, cards=cards)


def _take_docker(encoded: str, boundary: str, parts: Sequence[_Parts]) -> None:
    """States and logs, each followed by a line that says whose it was."""
    try:
        raw = base64.b64decode(encoded)
    except binascii.Error:
        return
    begun = 0
    for found in re.finditer(rf"\n{boundary} (state|log) (\d+)(?: (\d+))?\n".encode(), raw):
        body, kind, at = raw[begun : found.start()], found[1].decode(), int(found[2])
        begun = found.end()
        if at < len(parts):
            parts[at].sections[kind] = (without_frames(body) if kind == "log" else body).decode("utf-8", "replace")
            parts[at].status[kind] = int(found[3] or 0)


def _seen(part: _Parts, look: Look) -> Seen:
    answer = _answer(part) if "answer" in part.sections else None
    container = _container(part) if part.status.get("state") == 200 else None
    return Seen(
        container=container,
        code=part.status.get("health", 0),
        log=part.sections["log"][-look.log.size :] if look.log and "log" in part.sections else None,
        answer=answer,
        answer_start=look.start if answer else "",
        history=part.sections.get("history", ""),
        age=_age(container, part),
        card_error=_card_error(part),
    )


def _age(container: Container | None, part: _Parts) -> float | None:
    if container is None or container.status != "running" or "history" not in part.status:
        return None
    return max(0.0, part.status["history"] - float(unix_time(container.started_at)))


def _card_error(part: _Parts) -> str:
    """What nvidia-smi says when this instance's cards are gone."""
    said = " ".join(part.sections.get("card", "").split())[:300]
    return said if is_gone(said) else ""


def _container(part: _Parts) -> Container | None:
    try:
        raw: dict[str, Any] = json.loads(part.sections["state"])
        state: dict[str, Any] = raw["State"]
        return Container(
            id=str(raw["Id"]),
            status=str(state["Status"]),
            exit_code=int(state.get("ExitCode") or 0),
            restarts=int(raw.get("RestartCount") or 0),
            started_at=str(state["StartedAt"]),
            out_of_memory=bool(state.get("OOMKilled")),
            error=str(state.get("Error") or ""),
            pid=int(state.get("Pid") or 0),
            log_path=str(raw.get("LogPath") or ""),
            image=str((raw.get("Config") or {}).get("Image") or ""),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _answer(part: _Parts) -> Answer:
    code, seconds, error = ([*part.sections["answer"].split(" ", 2), "", ""])[:3]
    return Answer(
        code=int(code) if code.isdigit() else 0,
        seconds=float(seconds) if re.fullmatch(r"[\d.]+", seconds) else 0.0,
        error=error.strip(),
        body=part.sections.get("body", ""),
        then_body=part.sections.get("then", ""),
    )


def without_frames(raw: bytes) -> bytes:
    """Docker's log stream without the 8-byte head of each frame (stream, 0, 0, 0, length).

    The stream may begin inside a frame (it was cut to its last bytes); a container with a terminal has no frames.
    """
    first = _FIRST_FRAME.search(raw)
    if not first:
        return raw
    at, texts = first.start(), []
    while at + 8 <= len(raw) and raw[at] in (0, 1, 2) and raw[at + 1 : at + 4] == b"\x00\x00\x00":
        length = int.from_bytes(raw[at + 4 : at + 8], "big")
        texts.append(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(texts)
