"""An earlier stack that somebody made by hand, and that `stoker adopt` can replace."""

from __future__ import annotations

from stoker.plan.handmade import blockers, comparison, differences
from stoker.plan.look import Look, Reason, Reasons

#: Differences that the refusal shows; `stoker adopt --check` shows all.
_SHOWN = 6


def check(look: Look) -> Reasons:
    old = [container for containers in blockers(look.host, look.state).values() for container in containers]
    if not old:
        return
    files = ", ".join(dict.fromkeys(file for container in old for file in container.config_files))
    projects = ", ".join(dict.fromkeys(container.project for container in old))
    found = differences(comparison(look.host, look.state))
    lines = [f"\n    old -> new: {one}" for one in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"\n    and {len(found) - _SHOWN} more differences")
    yield Reason(
        f"an earlier stack that was made by hand stands where Stoker's belongs: {', '.join(one.name for one in old)} of the "
        f"project {projects}" + (f" ({files})" if files else "") + "".join(lines),
        "`stoker adopt --check` shows every difference; `stoker adopt` keeps what is there, replaces it container by container, "
        "and prints how to go back",
        "container-name",
    )
