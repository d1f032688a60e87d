"""The measure as a table for people and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_table(result: Mapping[str, Any]) -> None:
    console = Console(width=120)
    for size, subjects in result["load"].items():
        table = Table(title=f"bodies of {size}, {result['connections']} connections")
        for column in ("", "requests/s", "of plain nginx", "p50 ms", "p99 ms", "CPU µs/request", "failed"):
            table.add_column(column, justify="left" if not column else "right")
        for name, row in subjects.items():
            share = f"{row['of_plain']:.2f}" if row["of_plain"] is not None else "-"
            cpu = f"{row['cpu_us']:.1f}" if name != "direct" else "-"
            table.add_row(
                name,
                f"{row['requests_per_second']:,.0f}",
                share,
                f"{row['p50_ms']:.2f}",
                f"{row['p99_ms']:.2f}",
                cpu,
                str(row["failed"]),
            )
        console.print(table)
    table = Table(title="added to a direct request: p99 at half of each one's own most (1 KB), first piece of a stream")
    for column in ("", "at requests/s", "p99 ms", "first piece, p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in result["half_load"].items():
        first = result["first_piece"].get(name, {})
        cells = [f"{first[key]:.2f}" if key in first else "-" for key in ("added_p50_ms", "added_p99_ms")]
        table.add_row(name, f"{row['requests_per_second']:,.0f}", f"{row['added_p99_ms']:.2f}", *cells)
    console.print(table)
    for name, row in result["large_bodies"].items():
        console.print(
            f"5 MB bodies, {name}: {row['requests_per_second']:.0f}/s, {row['failed']} failed, {row['mib_a_connection']} MiB a connection"
        )
    memory = result["memory"]
    console.print(
        f"memory over {memory[-1]['requests']:,} requests, MiB: {' '.join(str(one['resident_mib']) for one in memory)}"
    )
    for aim in result["aims"]:
        console.print(f"{'met   ' if aim['met'] else 'MISSED'} {aim['aim']}: {aim['measured']}")
    for name, why in result["not_measured"].items():
        console.print(f"not measured: {name} ({why})")


_COLOURS = ("#8a8f98", "#4c78a8", "#d1495b", "#59a14f", "#b07aa1", "#9c755f", "#edc948", "#76b7b2")


def write_plot(result: Mapping[str, Any], file: Path) -> None:
    """Bars of the proxies' CPU time for each request and of requests a second, as SVG."""
    panels = [
        (
            "CPU time of the proxy for each request, µs (log scale)",
            "cpu_us",
            [name for name in _names(result) if name != "direct"],
        ),
        ("requests a second with one core (log scale)", "requests_per_second", _names(result)),
    ]
    width, height = 960, 330
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height * len(panels) + 40}" font-family="sans-serif" font-size="12">'
    ]
    parts.append(f'<rect width="{width}" height="{height * len(panels) + 40}" fill="white"/>')
    for index, (title, key, names) in enumerate(panels):
        values = {
            size: [rows[name][key] if name in rows else 0 for name in names] for size, rows in result["load"].items()
        }
        parts += _panel(title, names, values, 20 + index * height, width, height)
    parts.append("</svg>")
    file.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _names(result: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for rows in result["load"].values() for name in rows))


def _panel(
    title: str, names: Sequence[str], values: Mapping[str, Sequence[float]], top: int, width: int, height: int
) -> list[str]:
    from math import log10

    most = max(max(row) for row in values.values())
    least = min(value for row in values.values() for value in row if value > 0) / 2
    parts = [f'<text x="20" y="{top + 14}" font-size="14" font-weight="bold">{title}</text>']
    group = (width - 250) / len(values)
    bar = group * 0.85 / len(names)
    floor, room = top + height - 50, height - 100
    for place, (size, row) in enumerate(values.items()):
        left = 20 + place * group
        parts.append(f'<text x="{left + group / 2:.0f}" y="{floor + 18}" text-anchor="middle">{size}</text>')
        for number, value in enumerate(row):
            if value <= 0:
                continue
            tall = room * log10(value / least) / log10(most / least)
            x = left + number * bar
            parts.append(
                f'<rect x="{x:.1f}" y="{floor - tall:.1f}" width="{bar * 0.9:.1f}" height="{tall:.1f}" fill="{_COLOURS[number]}"/>'
            )
            parts.append(
                f'<text x="{x + bar * 0.45:.1f}" y="{floor - tall - 3:.1f}" text-anchor="middle" font-size="9">{_short(value)}</text>'
            )
    for number, name in enumerate(names):
        y = top + 40 + number * 18
        parts.append(f'<rect x="{width - 220}" y="{y - 10}" width="12" height="12" fill="{_COLOURS[number]}"/>')
        parts.append(f'<text x="{width - 202}" y="{y}">{name}</text>')
    return parts


def _short(value: float) -> str:
    return f"{value / 1000:.1f}k" if value >= 10_000 else f"{value:.0f}"
