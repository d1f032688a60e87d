"""The lab's signing key: made once for a cache, kept outside of what is served and outside of the project."""

from __future__ import annotations

from pathlib import Path

from lab.internet.shell import run

USER_ID = "Stoker lab archive (simulated, for test machines only) <lab@internet.test>"


class SigningKey:
    """A GnuPG home directory with one key without a passphrase, made at the first use."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def _gpg(self, *argv: str | Path) -> str:
        # --faked-system-time is not used: signatures carry the real time, as apt compares it with its own
        # clock.
        return run(
            [
                "gpg",
                "--homedir",
                self.home,
                "--batch",
                "--yes",
                "--no-tty",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
                *argv,
            ]
        )

    def ensure(self) -> str:
        """Make the key unless it exists, and return its fingerprint (kept in a file: gpg is slow to ask)."""
        known = self.home / "fingerprint"
        if not known.is_file():
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if USER_ID not in self._gpg("--list-secret-keys"):
                self._gpg("--quick-gen-key", USER_ID, "rsa3072", "sign", "never")
            listing = self._gpg("--with-colons", "--list-secret-keys", USER_ID)
            known.write_text(next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:")))
        return known.read_text()

    def export(self, folder: Path) -> None:
        """Write the public key to `folder` as a keyring (binary) and as text (armored)."""
        folder.mkdir(parents=True, exist_ok=True)
        self._gpg("--output", folder / "lab-archive-keyring.gpg", "--export", USER_ID)
        (folder / "lab-archive-keyring.asc").write_text(self.armored())

    def armored(self) -> str:
        """The public key as text, the form in which download sites offer theirs."""
        return self._gpg("--armor", "--export", USER_ID)

    def sign_clear(self, file: Path, to: Path) -> None:
        """An InRelease file: the text with its signature around it."""
        self._gpg("--local-user", USER_ID, "--digest-algo", "SHA512", "--output", to, "--clearsign", file)

    def sign_detached(self, file: Path, to: Path) -> None:
        """A Release.gpg file: the signature alone."""
        self._gpg(
            "--local-user",
            USER_ID,
            "--digest-algo",
            "SHA512",
            "--armor",
            "--output",
            to,
            "--detach-sign",
            file,
        )

    def stop_agent(self) -> None:
        """End the agent that gpg started for this home, so that a build leaves no process behind."""
        run(["gpgconf", "--homedir", self.home, "--kill", "gpg-agent"])
