"""What `stoker status` asks of a host: the probe, and beside it what engines and gateways say of their work. One command.

Every answer of an engine goes to a file of its own in a directory that is removed at the end, because lines of several
programs at once could be mixed up.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from stoker.doctor.live import LIVE
from stoker.doctor.probe import END_FORMAT
from stoker.engine.registry import engine_of
from stoker.facts.probe import glance, script
from stoker.facts.state import SECTION
from stoker.render.gateway import INSIDE_ADDRESS
from stoker.spec.fleet import Fleet, Host
from stoker.status.metrics import extract
from stoker.steps.layout import READY
from stoker.steps.questions import questions

#: Seconds between the two looks at an engine's counters: tokens per second are the mean of this time.
RATE_SECONDS = 0.5
#: Seconds for one answer of an engine or a gateway.
_ANSWER_SECONDS = 2
#: Of the log of an engine that does not answer.
_LOG_LINES, _LOG_BYTES = 400, 49152

_FUNCTIONS = f"""
page() {{ curl -q -s -f --noproxy '*' -m {_ANSWER_SECONDS} "http://127.0.0.1:$1$2"; }}
look() {{ printf 'metrics\\t%s\\t%s\\t%s\\n' "$1" "$(date +%s.%N)" "$2"; }}
log() {{ printf 'log\\t%s\\t%s\\n' "$1" "$(docker logs --timestamps --tail {_LOG_LINES} "$1" 2>&1 | tail -c {_LOG_BYTES} | base64 -w0)"; }}
counts() {{
  w=$(page "$2" /metrics | sh -c "$3")
  if [ -z "$w" ]; then log "$1"; return; fi
  look "$1" "$w"; sleep {RATE_SECONDS}; look "$1" "$(page "$2" /metrics | sh -c "$3")"
}}
answers() {{ page "$2" "$3" >/dev/null || log "$1"; }}
members() {{ printf 'members\\t%s\\t%s\\n' "$1" "$(timeout {_ANSWER_SECONDS} docker exec "$1" busybox wget -q -O - "http://{INSIDE_ADDRESS}:$2/members" | tr '\\n\\t' '  ')"; }}
""".strip()


def status_script(fleet: Fleet, host: Host, whole: bool = True) -> str:
    """POSIX sh for root. ``whole``: also everything that a deploy decides by, so that drift can be told."""
    asked = questions(fleet, host)
    if not whole:
        stamps = [f"{READY}/{instance.name}" for _, instance in host.instances()]
        asked = replace(asked, contents=stamps, images=())
    jobs = [f'{{ {job}; }} >"$t/{number}" 2>/dev/null &' for number, job in enumerate(_jobs(host))]
    return "\n".join(
        [
            "export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin; umask 077",
            "t=$(mktemp -d /run/stoker-status.XXXXXX) || exit 1; trap 'rm -rf \"$t\"' EXIT",
            _FUNCTIONS,
            *jobs,
            f"( {script(asked) if whole else glance(asked)}\n)",
            "wait",
            f'echo {shlex.quote(SECTION + LIVE)}; cat "$t"/*',
        ]
    )


def _jobs(host: Host) -> Iterator[str]:
    gateways = [stack.gateway for stack in host.stacks if stack.gateway]
    names = [*(instance.name for _, instance in host.instances()), *(gateway.container for gateway in gateways)]
    words = " ".join(map(shlex.quote, names))
    yield f"docker inspect -f {shlex.quote(END_FORMAT)} {words} | while read -r line; do printf 'end\\t%s\\n' \"$line\"; done"
    for _, instance in host.instances():
        engine = engine_of(instance.engine)
        who = f"{shlex.quote(instance.name)} {instance.port}"
        yield (
            f"counts {who} {shlex.quote(extract(engine.metrics))}"
            if engine.metrics
            else f"answers {who} {engine.health_path}"
        )
    for gateway in gateways:
        yield f"members {shlex.quote(gateway.container)} {gateway.port}"
