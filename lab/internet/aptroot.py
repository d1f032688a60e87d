"""A private apt of another Debian release, fed by this machine's own mirror.

Nothing of the machine's own package state is read or changed: lists, cache and the (empty) status file lie
under the given directory. Mirror, proxy and credentials are the machine's.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from lab.internet.shell import BuildError, run

DEFAULT_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Mirror:
    """Where this machine gets Debian from: the archive's address and the keyring that it trusts."""

    uri: str
    signed_by: str


def find_mirror(sources: list[str], codename: str) -> Mirror | None:
    """The first source of suite `codename`, component main, in the texts of apt's source files (both
    formats).
    """
    for text in sources:
        found = _find_deb822(text, codename) if re.search(r"(?mi)^Types:", text) else _find_one_line(text, codename)
        if found:
            return found
    return None


def _find_one_line(text: str, codename: str) -> Mirror | None:
    for line in text.splitlines():
        match = re.match(
            r"\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)",
            line,
        )
        if match and match["suite"] == codename and "main" in match["components"].split():
            signed = re.search(r"signed-by=(\S+)", match["options"] or "")
            return Mirror(match["uri"].rstrip("/"), signed[1] if signed else DEFAULT_KEYRING)
    return None


def _find_deb822(text: str, codename: str) -> Mirror | None:
    for stanza in re.split(r"\n\s*\n", text):
        lines = (line for line in stanza.splitlines() if not line.startswith("#"))
        fields = {
            key.strip().lower(): value.split() for key, colon, value in (line.partition(":") for line in lines) if colon
        }
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        if codename in fields.get("suites", []) and "main" in fields.get("components", []) and fields.get("uris"):
            signed = fields.get("signed-by", [])
            return Mirror(
                fields["uris"][0].rstrip("/"),
                signed[0] if signed and signed[0].startswith("/") else DEFAULT_KEYRING,
            )
    return None


def machine_mirror(etc: Path = Path("/etc")) -> Mirror:
    """This machine's Debian mirror.

    Raises:
        BuildError: the machine is not Debian, or its apt sources name no mirror of its own release.
    """
    release = dict(line.split("=", 1) for line in (etc / "os-release").read_text().splitlines() if "=" in line)
    codename = release.get("VERSION_CODENAME", "").strip('"')
    folder = etc / "apt/sources.list.d"
    files = [etc / "apt/sources.list", *sorted([*folder.glob("*.sources"), *folder.glob("*.list")])]
    mirror = find_mirror([file.read_text() for file in files if file.is_file()], codename)
    if mirror is None:
        raise BuildError(
            f"no Debian mirror found: no source in {etc}/apt names {codename!r} with component main. "
            "The lab takes its packages from this machine's own mirror; add that source and run again."
        )
    return mirror


@dataclass
class Package:
    """One package version that apt chose, with its control fields and the file it was downloaded to."""

    name: str
    version: str
    stanza: str
    file: Path


@dataclass
class AptRoot:
    """apt of one release under `folder`; downloads are kept in `archives`."""

    release: str
    folder: Path
    archives: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ready: bool = False

    def _update(self) -> None:
        """Write the configuration and fetch the release's package lists, once in a process."""
        if self._ready:
            return
        mirror = machine_mirror()
        for sub in ("state/lists/partial", "cache", "empty/partial"):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)
        (self.archives / "partial").mkdir(parents=True, exist_ok=True)
        (self.folder / "state/status").write_text("")
        (self.folder / "sources.list").write_text(
            f"deb [arch=amd64 signed-by={mirror.signed_by}] {mirror.uri} {self.release} main\n"
        )
        (self.folder / "apt.conf").write_text(self._configuration())
        try:
            self._apt("apt-get", "update", "--error-on=any")
        except BuildError as error:
            outdated = "NO_PUBKEY" in str(error) or "signature" in str(error)
            hint = "; `apt-get install --only-upgrade debian-archive-keyring` brings newer keys" if outdated else ""
            text = f"the package lists of Debian {self.release} could not be read from this machine's mirror{hint}"
            raise BuildError(f"{text}\n{error}") from error
        self._ready = True

    def _configuration(self) -> str:
        """apt.conf: ours for every path, the machine's for how to fetch (proxy, retries, credentials)."""
        dump = run(["apt-config", "dump", "--format", '%F "%v";%n'])
        acquire = [
            line
            for line in dump.splitlines()
            if line.startswith("Acquire::") and not line.startswith("Acquire::IndexTargets")
        ]
        paths = {
            "Dir::Etc::main": "empty/none",
            "Dir::Etc::parts": "empty",
            "Dir::Etc::sourcelist": "sources.list",
            "Dir::Etc::sourceparts": "empty",
            "Dir::Etc::preferences": "empty/none",
            "Dir::Etc::preferencesparts": "empty",
            "Dir::State": "state",
            "Dir::State::status": "state/status",
            "Dir::Cache": "cache",
        }
        lines = [f'{key} "{self.folder / value}";' for key, value in paths.items()]
        fixed = [
            f'Dir::Cache::archives "{self.archives}";',
            'Dir::Etc::netrc "/etc/apt/auth.conf";',
            'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";',
            'APT::Architecture "amd64";',
            'APT::Architectures "amd64";',
            'APT::Install-Recommends "false";',
            'APT::Sandbox::User "root";',
            'Acquire::Languages "none";',
            'Debug::NoLocking "true";',
        ]
        return "\n".join([*acquire, *lines, *fixed]) + "\n"

    def _apt(self, *argv: str) -> str:
        return run(argv, env={"APT_CONFIG": str(self.folder / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"})

    def closure(self, names: list[str]) -> list[Package]:
        """`names` and everything that they depend on, chosen by apt for an empty system, downloaded."""
        return self._download(["install", *names])

    def exactly(self, names: list[str]) -> list[Package]:
        """`names` without their dependencies, downloaded."""
        return self._download(["download", *names])

    def _have(self, file: str, size: int) -> bool:
        """Whether a download is there and whole; one that was cut off is removed."""
        path = self.archives / file
        whole = path.is_file() and path.stat().st_size == size
        if not whole:
            path.unlink(missing_ok=True)
        return whole

    def _download(self, command: list[str]) -> list[Package]:
        with self._lock:
            self._update()
            # apt prints only what it would fetch, so it is asked with an empty archive.
            nothing = f"Dir::Cache::archives={self.folder / 'empty'}"
            uris = self._apt("apt-get", "--yes", "--print-uris", "--quiet=2", "-o", nothing, *command)
            wanted = parse_uris(uris)
            missing = [f"{name}={version}" for name, version, file, size in wanted if not self._have(file, size)]
            if missing and command[0] == "install":
                self._apt("apt-get", "--yes", "--download-only", *command)
            elif missing:
                run(
                    ["apt-get", "download", *missing],
                    cwd=self.archives,
                    env={"APT_CONFIG": str(self.folder / "apt.conf")},
                )
            shown = self._apt("apt-cache", "show", *[f"{name}={version}" for name, version, *_ in wanted])
        stanzas = {
            (get_field(text, "Package"), get_field(text, "Version")): text for text in shown.strip().split("\n\n")
        }
        return [
            Package(name, version, stanzas[name, version], self.archives / file) for name, version, file, _ in wanted
        ]


def get_field(stanza: str, name: str) -> str:
    """The value of a one-line field of a control stanza; empty when it is absent."""
    match = re.search(rf"(?m)^{re.escape(name)}: *(.*)$", stanza)
    return match[1].strip() if match else ""


def parse_uris(text: str) -> list[tuple[str, str, str, int]]:
    """(package, version, file name, size in bytes) of each line that `apt-get --print-uris` prints.

    A line is `'URI' NAME_VERSION_ARCH.deb SIZE HASH`, the version's colon written as %3a in the file's name.
    """
    found = []
    for line in text.splitlines():
        match = re.match(r"'[^']+' (\S+\.deb) (\d+)", line)
        if match:
            name, version, _ = match[1].split("_", 2)
            found.append((name, unquote(version), match[1], int(match[2])))
    return found
