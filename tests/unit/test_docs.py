"""What the code tells a person to read, exists; and what the documents name, exists too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TROUBLESHOOTING = PROJECT / "docs" / "troubleshooting.md"
DOCUMENTS = sorted(
    [
        *PROJECT.glob("*.md"),
        *(PROJECT / "docs").glob("*.md"),
        *PROJECT.glob("*/README.md"),
        *PROJECT.glob("examples/*/README.md"),
    ]
)

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ANCHOR_IN_CODE = re.compile(r"troubleshooting\.md#([a-z0-9-]+)")
_MAKE_TARGET = re.compile(r"(?:^|[`(])(?:lab/run )?make ([a-z][a-z-]*)", re.MULTILINE)


def anchors(text: str) -> list[str]:
    """The explicit anchors of a document, and those of its headings as GitHub makes them."""
    headings = [
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    ]
    return [*re.findall(r'<a id="([^"]+)"></a>', text), *headings]


def preflight_anchors() -> Iterator[str]:
    """The anchor of every Reason of a check, and of every Finding that is made by hand."""
    place = {"Reason": 2, "Finding": 3}
    for file in (PROJECT / "stoker/plan").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in place:
                anchor = node.args[place[node.func.id] : place[node.func.id] + 1]
                # A verdict of the memory plan is a Finding too, without an anchor.
                if anchor and isinstance(anchor[0], ast.Constant):
                    yield str(anchor[0].value)


def test_every_refusal_of_the_preflight_is_explained() -> None:
    used = set(preflight_anchors())
    assert len(used) > 10, "the preflight is written in another way now; this test has to follow it"
    assert used <= set(anchors(TROUBLESHOOTING.read_text(encoding="utf-8")))


def test_every_place_that_the_code_names_exists() -> None:
    known = set(anchors(TROUBLESHOOTING.read_text(encoding="utf-8")))
    named = {
        (str(file.relative_to(PROJECT)), anchor)
        for file in (PROJECT / "stoker").rglob("*.py")
        for anchor in _ANCHOR_IN_CODE.findall(file.read_text(encoding="utf-8"))
    }
    assert {entry for entry in named if entry[1] not in known} == set()


def test_no_anchor_stands_twice() -> None:
    explicit = re.findall(r'<a id="([^"]+)"></a>', TROUBLESHOOTING.read_text(encoding="utf-8"))
    assert sorted(explicit) == sorted(set(explicit))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for target in _LINK.findall(document.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(_MAKE_TARGET.findall(document.read_text(encoding="utf-8"))) <= targets
