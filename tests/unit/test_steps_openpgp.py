"""Fingerprints of keys that a real gpg makes, and what is refused as a key."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from support.states import FINGERPRINT, KEY, bare, fleet_and_host

from stoker.steps import openpgp, sources
from stoker.steps.action import File


@dataclass(frozen=True)
class Gpg:
    """A gpg with a home of its own."""

    home: Path

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--quiet", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make(self, algorithm: str, usage: str, ends: str = "never", name: str = "") -> str:
        """A new key, armored."""
        name = f"{name or algorithm} <{name or algorithm}@example.org>"
        self("--passphrase", "", "--quick-gen-key", name, algorithm, usage, ends)
        return self("--armor", "--export", f"={name}")

    def ends(self, armored: str) -> dict[str, list[int | None]]:
        """When each key and each of its subkeys ends as gpg itself shows it, by the key's fingerprint."""
        found: dict[str, list[int | None]] = {}
        parts: list[int | None] = []
        for row in (line.split(":") for line in self("--with-colons", "--show-keys", stdin=armored).splitlines()):
            if row[0] in ("pub", "sub"):
                parts = [] if row[0] == "pub" else parts
                parts.append(int(row[6]) if row[6] else None)
            elif row[0] == "fpr" and len(parts) == 1:
                found[row[9]] = parts
        return found

    def fingerprints(self, armored: str) -> list[str]:
        """What gpg itself shows, primary keys only."""
        rows = [row.split(":") for row in self("--with-colons", "--show-keys", stdin=armored).splitlines()]
        return [row[9] for before, row in pairwise(rows) if before[0] == "pub" and row[0] == "fpr"]


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("gpg")  # 0700
    yield Gpg(home)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=20)


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Gpg]:
    """A gpg whose keys nobody else sees."""
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    yield Gpg(home)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=20)


@pytest.fixture(scope="module")
def made(gpg: Gpg) -> dict[str, str]:
    """Armored keys: RSA with a subkey as Docker's and NVIDIA's are, and a small one."""
    return {"rsa3072": gpg.make("rsa3072", "cert,sign"), "ed25519": gpg.make("ed25519", "sign")}


@pytest.mark.parametrize("algorithm", ["rsa3072", "ed25519"])
def test_the_fingerprint_is_gpgs(gpg: Gpg, made: dict[str, str], algorithm: str) -> None:
    assert [openpgp.fingerprint(made[algorithm])] == gpg.fingerprints(made[algorithm])


def test_subkeys_do_not_count(gpg: Gpg, made: dict[str, str]) -> None:
    gpg("--passphrase", "", "--quick-add-key", openpgp.fingerprint(made["rsa3072"]), "rsa3072", "encr", "never")
    armored = gpg("--armor", "--export", "rsa3072@example.org")
    assert list(openpgp.keys(armored)) == gpg.fingerprints(armored) == [openpgp.fingerprint(made["rsa3072"])]


def test_a_key_ends_when_gpg_says_so(others: Gpg, made: dict[str, str]) -> None:
    ending = others.make("rsa3072", "cert,sign", "5d", name="ending")
    fingerprint = openpgp.fingerprint(ending)
    at = openpgp.ends(ending)[fingerprint]
    assert at is not None
    assert others.ends(ending) == {fingerprint: [at]}
    assert openpgp.ends(made["ed25519"]) == {openpgp.fingerprint(made["ed25519"]): None}

    others("--passphrase", "", "--quick-set-expire", fingerprint, "90d")
    renewed = others("--armor", "--export", fingerprint)
    later = openpgp.ends(renewed)[fingerprint]
    assert later is not None
    assert later > at
    assert others.ends(renewed) == {fingerprint: [later]}
    others("--passphrase", "", "--quick-set-expire", fingerprint, "never")
    assert openpgp.ends(others("--armor", "--export", fingerprint)) == {fingerprint: None}


def test_the_last_subkey_that_may_sign_counts(others: Gpg) -> None:
    fingerprint = openpgp.fingerprint(others.make("rsa3072", "cert", name="offline"))
    for usage, ends in (("sign", "10d"), ("sign", "20d"), ("encr", "30d")):
        others("--passphrase", "", "--quick-add-key", fingerprint, "rsa3072", usage, ends)
    armored = others("--armor", "--export", fingerprint)
    never, _, second, _ = others.ends(armored)[fingerprint]
    assert never is None
    assert openpgp.ends(armored) == {fingerprint: second}


def test_what_somebody_else_says_of_a_key_does_not_count(others: Gpg) -> None:
    fingerprint = openpgp.fingerprint(others.make("ed25519", "sign", "40d", name="certified"))
    before = openpgp.ends(others("--armor", "--export", fingerprint))
    other = openpgp.fingerprint(others.make("ed25519", "cert,sign", name="other"))
    others("--passphrase", "", "--yes", "--local-user", other, "--quick-sign-key", fingerprint)
    certified = others("--armor", "--export", fingerprint)
    assert openpgp.ends(certified) == before
    assert before[fingerprint] is not None


def test_a_key_recorded_in_these_tests(gpg: Gpg) -> None:
    assert openpgp.keys(KEY) == {FINGERPRINT: KEY}
    assert openpgp.fingerprint(KEY) == FINGERPRINT
    assert gpg.fingerprints(KEY) == [FINGERPRINT]


def test_armor_with_its_own_headers(made: dict[str, str]) -> None:
    key = made["ed25519"]
    commented = key.replace("BLOCK-----\n", "BLOCK-----\nVersion: GnuPG v1\nComment: x=y\n", 1)
    assert openpgp.fingerprint(f"\nSome words before.\r\n{commented}\nand after\n") == openpgp.fingerprint(key)


def test_a_key_taken_alone_is_still_a_key(gpg: Gpg, made: dict[str, str]) -> None:
    both = gpg("--armor", "--export")
    found = openpgp.keys(both)
    assert sorted(found) == sorted(map(openpgp.fingerprint, made.values())) == sorted(gpg.fingerprints(both))
    for fingerprint, alone in found.items():
        assert gpg.fingerprints(alone) == [fingerprint]
        assert openpgp.keys(alone) == {fingerprint: alone}


def test_two_blocks_in_one_file(made: dict[str, str]) -> None:
    assert list(openpgp.keys(made["ed25519"] + made["rsa3072"])) == [
        openpgp.fingerprint(made["ed25519"]),
        openpgp.fingerprint(made["rsa3072"]),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an ASCII-armored"),
        ("<html>404 Not Found</html>", "not an ASCII-armored"),
        (KEY.replace("PUBLIC", "PRIVATE"), "not an ASCII-armored"),
        (KEY.partition("-----END")[0], "no end"),
        (KEY.replace("mDMEawEQ", "mDMFawEQ"), "version 4"),
        (KEY.replace("mDMEawEQ", "AAAAAAAA"), "not an OpenPGP packet"),
        (KEY.replace("mDMEawEQ", "tDMEawEQ"), "does not begin with a public key"),
        (KEY.replace("qjAA/Rilgsr4VrZg+XoGVfiOXx+Tnu4XP3Zbm7UzPbrGxuID\n", ""), "cut off"),
        (KEY.replace("mDME", "m!ME"), "base64"),
    ],
)
def test_what_is_no_key_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        openpgp.keys(text)


class Host:
    """A host that downloads a text; remembers what was written to it."""

    def __init__(self, download: str | None) -> None:
        self.download = download
        self.scripts: list[str] = []

    def __call__(self, script: str, *, stdin: str | None = None) -> tuple[bool, list[str]]:
        self.scripts.append(script)
        if "download-file" not in script:
            return True, []
        return (False, ["E: Failed to fetch", "404"]) if self.download is None else (True, self.download.splitlines())


def fetch_key(host: Host) -> str | None:
    _, described = fleet_and_host()
    wanted = "fetch the key of docker from https://download.docker.com/linux/debian/gpg"
    (action,) = (action for action in sources.actions(described, bare(described)) if action.description == wanted)
    assert action.function is not None
    return action.function(host, lambda text: None)


def test_the_pinned_key_is_put_in_place() -> None:
    host = Host(KEY)
    assert fetch_key(host) is None
    assert "https://download.docker.com/linux/debian/gpg" in host.scripts[0]
    assert "/etc/apt/keyrings/docker.asc" in host.scripts[1]


def test_a_key_beside_the_pinned_one_is_left_out(made: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def write_files(files: list[File], root: str) -> tuple[str, str]:
        written.extend(file.text for file in files)
        return "true", ""

    monkeypatch.setattr(sources, "write_files", write_files)
    _, described = fleet_and_host()
    action = sources._FetchKey(sources.repositories(described, bare(described))[0])
    assert action(Host(made["ed25519"] + KEY), lambda text: None) is None
    assert [list(openpgp.keys(text)) for text in written] == [[FINGERPRINT]]


@pytest.mark.parametrize(
    ("download", "error"),
    [
        (None, "could not be downloaded from https://download.docker.com/linux/debian/gpg: E: Failed to fetch 404"),
        ("<html>blocked</html>", "https://download.docker.com/linux/debian/gpg is not a key"),
    ],
)
def test_no_key_is_written_otherwise(download: str | None, error: str) -> None:
    host = Host(download)
    assert error in (fetch_key(host) or "")
    assert len(host.scripts) == 1


def test_a_key_of_somebody_else_is_not_written(made: dict[str, str]) -> None:
    host = Host(made["ed25519"])
    error = fetch_key(host)
    assert error is not None
    assert f"has the fingerprint {openpgp.fingerprint(made['ed25519'])}, expected {FINGERPRINT}" in error
    assert "set its fingerprint in `mirrors`" in error
    assert len(host.scripts) == 1
