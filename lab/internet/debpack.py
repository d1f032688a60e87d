"""Making a .deb from a tree of files, with the maintainer scripts of a package that brings systemd units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.internet.shell import run


@dataclass
class Deb:
    """A binary package: control fields, maintainer scripts, configuration files."""

    name: str
    version: str
    fields: dict[str, str]
    scripts: dict[str, str] = field(default_factory=dict)
    """preinst, postinst, prerm, postrm: the whole script."""

    def control(self, installed_kib: int) -> str:
        """The control file; Installed-Size is in KiB."""
        head = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": "amd64",
            "Installed-Size": str(installed_kib),
        }
        return "".join(f"{key}: {value}\n" for key, value in {**head, **self.fields}.items() if value)

    def file_name(self) -> str:
        """NAME_VERSION_ARCH.deb; as everywhere, the epoch is not part of it."""
        return f"{self.name}_{self.version.split(':', 1)[-1]}_amd64.deb"

    def build(self, tree: Path, folder: Path) -> Path:
        """Pack `tree` (its DEBIAN directory is written here) and return the .deb in `folder`.

        Files under /etc become configuration files. Compression is chosen for a quick install, not for size.
        """
        control = tree / "DEBIAN"
        control.mkdir()
        files = [
            file for file in tree.rglob("*") if file.is_file() and not file.is_symlink() and control not in file.parents
        ]
        (control / "control").write_text(self.control(sum(file.stat().st_size for file in files) // 1024 + 1))
        conffiles = sorted(f"/{file.relative_to(tree)}\n" for file in files if file.relative_to(tree).parts[0] == "etc")
        if conffiles:
            (control / "conffiles").write_text("".join(conffiles))
        for name, text in self.scripts.items():
            (control / name).write_text(text)
            (control / name).chmod(0o755)
        folder.mkdir(parents=True, exist_ok=True)
        deb = folder / self.file_name()
        run(["dpkg-deb", "--root-owner-group", "-Zzstd", "-z1", "--build", tree, deb])
        return deb


def unit_scripts(units: Sequence[str], before: str = "", restart_on_upgrade: bool = True) -> dict[str, str]:
    """Maintainer scripts that enable and start systemd units on first installation, as debhelper's do.

    An upgrade restarts them (`restart_on_upgrade`) or leaves them alone; a removal stops them; a purge
    forgets them. `before` is shell that the postinst runs first.
    """
    names = " ".join(units)
    upgrade = f"deb-systemd-invoke restart {names} >/dev/null || true" if restart_on_upgrade else ":"
    postinst = f"""#!/bin/sh
set -e
if [ "$1" = configure ]; then
{before or "    :"}
    for unit in {names}; do
        deb-systemd-helper unmask "$unit" >/dev/null || true
        if deb-systemd-helper --quiet was-enabled "$unit"; then
            deb-systemd-helper enable "$unit" >/dev/null || true
        else
            deb-systemd-helper update-state "$unit" >/dev/null || true
        fi
    done
    if [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload >/dev/null || true
        if [ -n "$2" ]; then
            {upgrade}
        else
            deb-systemd-invoke start {names} >/dev/null || true
        fi
    fi
fi
"""
    prerm = f"""#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    deb-systemd-invoke stop {names} >/dev/null || true
fi
"""
    postrm = f"""#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ] && [ -x /usr/bin/deb-systemd-helper ]; then
    deb-systemd-helper purge {names} >/dev/null || true
fi
"""
    return {"postinst": postinst, "prerm": prerm, "postrm": postrm}
