"""docs/compatibility.md, written from the table: ``python -m stoker.plan.compatibility.page > docs/compatibility.md``."""

from __future__ import annotations

from stoker.plan.compatibility.table import all_rows

_HEAD = """# Compatibility

Will this image run this model on this card? Before a deploy touches a host, Stoker answers that from the facts below. A `refuse` stops
the deploy, a `warn` is shown and does not, a `note` is good to know. What is not in the table is not known to be impossible; the short run
of each image on the host, and the first real answer of each model, decide.

A card is judged by its compute capability, never by its name: 3.7 K80; 5.2 M40; 6.0 P100; 6.1 P40, P4, GTX 1080 Ti; 7.0 V100; 7.5 T4;
8.0 A100; 8.6 RTX 3090, RTX A6000; 8.9 RTX 4090, L4, L40S; 9.0 H100, GH200; 10.0 B200. On a host,
`nvidia-smi --query-gpu=name,compute_cap --format=csv` says it.

The release is read from the image's tag. `latest` and nightly tags are taken for the newest release that is known, or a later one. For
any other tag the pinned release is assumed; what is only assumed, or is a third party's image, is warned of where it would be refused.

This page is written from the table in [table.py](../stoker/plan/compatibility/table.py): `python -m stoker.plan.compatibility.page`.

| what | verdict | more | source |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page."""
    lines = [
        f"| {row.what} | {row.verdict} | [{row.anchor}](troubleshooting.md#{row.anchor}) | {row.source} |"
        for row in all_rows()
    ]
    return _HEAD + "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
