"""The script that puts files in place, executed for real by /bin/sh below a temporary directory."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from stoker.steps.action import File, write_files


def run(script: str, stdin: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """As an operation runs it: `sh -c SCRIPT` with the archive as its input."""
    return subprocess.run(
        ["/bin/sh", "-c", script],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def write(files: list[File], root: Path, check: str = "", after: str = "") -> subprocess.CompletedProcess[str]:
    return run(*write_files(files, str(root), check, after))


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


def everything(root: Path) -> dict[str, str]:
    """Path -> text of every file below a directory, hidden ones included."""
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_set_of_files_with_their_modes(tmp_path: Path) -> None:
    root = tmp_path / "opt" / "stoker"
    files = [
        File(f"{root}/one.yaml", "a: 1\n"),
        File(f"{root}/bin/tool", "#!/bin/sh\n", "755"),
        File(f"{root}/deep/er/secret", "token\n", "600"),
        File(f"{root}/empty", ""),
    ]
    done = write(files, root)
    assert done.returncode == 0, done.stderr
    assert everything(root) == {
        "one.yaml": "a: 1\n",
        "bin/tool": "#!/bin/sh\n",
        "deep/er/secret": "token\n",
        "empty": "",
    }
    assert [mode(Path(file.path)) for file in files] == ["644", "755", "600", "644"]
    assert {mode(path) for path in (root, root.parent, root / "bin", root / "deep", root / "deep/er")} == {"755"}


def test_odd_names_and_texts(tmp_path: Path) -> None:
    root = tmp_path / "with space $HOME `id` 'quoted'"
    texts = {
        "a b.conf": "$HOME `id` \\n 'x' \"y\" ${z}\n",
        "-dash": "ümläut €\n",
        "new\nline": "no newline at the end",
        "semi;colon&amp": "\t\r\n",
        "sub dir/*": "*",
    }
    done = write([File(f"{root}/{name}", text) for name, text in texts.items()], root)
    assert done.returncode == 0, done.stderr
    assert {name: (root / name).read_bytes() for name in texts} == {name: text.encode() for name, text in texts.items()}


def test_a_big_file(tmp_path: Path) -> None:
    """Contents go by standard input: a command line ends at 128 KiB."""
    text = "".join(f"{number}\n" for number in range(300_000))
    assert write([File(f"{tmp_path}/big", text)], tmp_path).returncode == 0
    assert (tmp_path / "big").read_text() == text


def test_what_is_there_is_replaced_by_a_rename(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    target.chmod(0o600)
    with target.open() as reader:
        assert write([File(str(target), "new")], tmp_path).returncode == 0
        assert reader.read() == "old"
    assert target.read_text() == "new"
    assert mode(target) == "644"


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "file").symlink_to("target")
    assert write([File(f"{tmp_path}/file", "new")], tmp_path).returncode == 0
    assert not (tmp_path / "file").is_symlink()
    assert everything(tmp_path) == {"target": "precious", "file": "new"}


def test_a_directory_in_the_place_of_a_file_is_not_moved_into(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    done = write([File(f"{tmp_path}/file", "new")], tmp_path)
    assert done.returncode != 0
    assert everything(tmp_path) == {}


def test_a_failing_check_leaves_everything_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "one").write_text("old")
    files = [File(f"{root}/one", "new"), File(f"{root}/sub/two", "new")]
    done = write(files, root, check='cat "$new"/one "$new"/sub/two; echo; echo it is wrong >&2; exit 7')
    assert (done.returncode, done.stdout, done.stderr) == (7, "newnew\n", "it is wrong\n")
    assert everything(root) == {"one": "old"}
    assert [path.name for path in root.iterdir()] == ["one"]


def test_a_check_that_fails_in_its_middle(tmp_path: Path) -> None:
    done = write([File(f"{tmp_path}/one", "new")], tmp_path, check="false\ntrue")
    assert done.returncode != 0
    assert everything(tmp_path) == {}


def test_nothing_of_the_staging_directory_stays(tmp_path: Path) -> None:
    assert write([File(f"{tmp_path}/a/b", "x")], tmp_path).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_staging_is_private_from_the_first_byte(tmp_path: Path) -> None:
    secret = File(f"{tmp_path}/hub.env", "HF_TOKEN=x\n", "600")
    done = write([secret], tmp_path, check='stat -c "%a %U" "$new" "$new"/hub.env; dirname "$new"')
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert done.stdout.splitlines() == [f"700 {user}", f"600 {user}", str(tmp_path)]


def test_what_comes_after_runs_when_all_is_in_place(tmp_path: Path) -> None:
    done = write([File(f"{tmp_path}/one", "1")], tmp_path, after=f"cat {tmp_path}/one; exit 3")
    assert (done.returncode, done.stdout) == (3, "1")
    assert everything(tmp_path) == {"one": "1"}


def test_what_comes_after_has_an_ordinary_umask(tmp_path: Path) -> None:
    """apt's lists must be readable by the user that it downloads as."""
    script, stdin = write_files([File(f"{tmp_path}/one", "1")], str(tmp_path), after="umask")
    assert run(f"umask 077\n{script}", stdin).stdout == "0022\n"


def test_nothing_to_write_still_runs_what_comes_after(tmp_path: Path) -> None:
    """So are the package lists refreshed when only a key was fetched."""
    done = write([], tmp_path, after="echo refreshed")
    assert (done.returncode, done.stdout) == (0, "refreshed\n")


@pytest.mark.parametrize("stdin", ["", "bm90IGFuIGFyY2hpdmU=", "!!!"])
def test_a_broken_transfer_changes_nothing(stdin: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("old")
    script, _ = write_files([File(f"{tmp_path}/one", "new")], str(tmp_path))
    assert run(script, stdin).returncode != 0
    assert everything(tmp_path) == {"one": "old"}


def test_a_transfer_that_ends_early_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("old")
    noise = "".join(chr(33 + number * 7919 % 90) for number in range(50_000))
    script, stdin = write_files([File(f"{tmp_path}/zero", "0"), File(f"{tmp_path}/one", noise)], str(tmp_path))
    assert run(script, stdin[: len(stdin) // 8 * 4]).returncode != 0
    assert everything(tmp_path) == {"one": "old"}


def test_a_person_with_a_strict_umask(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    script, stdin = write_files([File(f"{root}/c/one", "1")], str(root))
    assert run(f"umask 077\n{script}", stdin).returncode == 0
    assert [mode(path) for path in (root / "c/one", root / "c", root, root.parent)] == ["644", "755", "755", "755"]
