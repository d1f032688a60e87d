"""The package manager: free, in order, and with nobody else's entry for the same repository."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stoker.plan.look import Look, Reason, Reasons
from stoker.steps import base, docker, sources, toolkit
from stoker.steps.packages import missing

_ONE_LINE = re.compile(r"deb(?:-src)?\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)")


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    found = state.packaging
    wanted = [*base.packages(host), *docker.packages(host, state), *toolkit.packages(host)]
    installs = bool(missing(state, wanted) or docker.in_the_way(host, state))
    if found.lock_holder:
        if installs:
            yield Reason(
                f"{found.lock_holder} is installing packages there",
                "nothing: the deploy waits for it",
                "apt-busy",
                "note",
            )
    elif found.unfinished:
        names = ", ".join(found.unfinished[:5]) + (" ..." if len(found.unfinished) > 5 else "")
        yield Reason(
            f"the package manager was interrupted ({names}): apt installs nothing until that is put in order",
            "dpkg --configure -a, on the host",
            "dpkg-interrupted",
            "refuse" if installs else "warn",
        )
    yield from _conflicts(look)


def _conflicts(look: Look) -> Iterator[Reason]:
    """apt reads nothing at all when one repository is listed twice with different keys."""
    files: dict[str, list[str]] = {}
    for path, line in look.state.packaging.sources:
        files.setdefault(path, []).append(line)
    ours = sources.repositories(look.host, look.state)
    known = {f"{sources.SOURCES}/{repository.name}.sources" for repository in ours}
    for path, lines in files.items():
        if path in known or path in sources.LEFTOVERS:
            continue  # a leftover is set aside by the deploy; the plan names it
        for repository in ours:
            keys = _keys(lines, path, _plain(repository.uri), repository.suite)
            if any(key != repository.key_path for key in keys):
                yield Reason(
                    f"{path} lists {repository.uri} with another key than Stoker's ({repository.key_path}): "
                    'apt stops with "Conflicting values set for option Signed-By"',
                    f"take it out of {path}, or move that file away: the deploy writes the repository itself",
                    "apt-conflict",
                )


def _keys(lines: list[str], path: str, uri: str, suite: str) -> list[str]:
    """The key that a file names for a repository, empty for none; nothing when the file does not list it."""
    if path.endswith(".sources"):
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        lists = any(name == "uris" and uri in map(_plain, value.split()) for name, value in fields)
        suites = any(name == "suites" and suite in value.split() for name, value in fields)
        off = any(name == "enabled" and value.lower() == "no" for name, value in fields)
        keys = [value for name, value in fields if name == "signed-by"] or [""]
        return keys if lists and suites and not off else []
    found = (_ONE_LINE.match(line) for line in lines)
    return [
        dict(word.partition("=")[::2] for word in (one["options"] or "").split()).get("signed-by", "")
        for one in found
        if one and (_plain(one["uri"]), one["suite"]) == (uri, suite)
    ]


def _plain(uri: str) -> str:
    return uri.rstrip("/").replace("$(ARCH)", "amd64")
