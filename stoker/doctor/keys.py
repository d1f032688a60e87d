"""Keys of package repositories that are about to end: apt refuses what they sign then."""

from __future__ import annotations

from datetime import UTC, datetime

from stoker.doctor.look import Line, LiveLook
from stoker.steps import openpgp, sources

#: Days before the end at which a person is told. Publishers renew a key weeks before.
SOON_DAYS = 30

_DAY = 86400


def end(look: LiveLook) -> list[Line]:
    found, earliest, count = [], None, 0
    for repository in sources.repositories(look.host, look.state):
        try:
            ends = openpgp.ends(look.state.contents.get(repository.key_path, ""))
        except ValueError:
            continue  # no key, or none that can be read: drift says it
        count += 1
        for at in ends.values():
            if at is None:
                continue
            earliest = min(at, earliest or at)
            if at < look.now + SOON_DAYS * _DAY:
                days = (
                    f"ended {(look.now - at) // _DAY} days ago"
                    if at <= look.now
                    else f"ends in {(at - look.now) // _DAY} days"
                )
                again = f"{look.commands.there('rm', '-f', repository.key_path)} && {look.commands.deploy()}"
                found.append(
                    Line(
                        "finding",
                        f"the key of {repository.name} {days}; fetch it again, its publisher may have renewed it",
                        again,
                    )
                )
    if found or not count:
        return found
    when = f"the first ends on {datetime.fromtimestamp(earliest, UTC):%Y-%m-%d}" if earliest else "none ends"
    return [Line("ok", f"{count} keys, {when}")]
