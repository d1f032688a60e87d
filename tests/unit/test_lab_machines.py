"""The pure parts of lab.machines: its description, its arguments, its image keys, its messages."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lab.doubles.driver.cards import gpus_json
from lab.machines import access, config, forward, hosts, images, marker, network, processes, requirements, rootfs, shell
from lab.machines.arguments import parse
from lab.machines.errors import LabError

LAB_TOML = config.FILE.read_text(encoding="utf-8")


def lab_from(tmp_path: Path, text: str) -> config.Lab:
    file = tmp_path / "lab.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(file)


def test_the_shipped_lab_is_system_1() -> None:
    lab = config.load()
    assert [(host.name, host.address, host.cards()) for host in lab.hosts] == [
        ("gpu10", "192.168.31.10", {"V100-32GB": 3}),
        ("gpu65", "192.168.31.65", {"P40-24GB": 2}),
    ]
    assert [machine.name for machine in lab.always] == ["internet", "gpu10", "gpu65"]
    assert [(host.name, host.cards()) for host in lab.gpu_machines if host.on_demand] == [
        ("gpu40", {"RTX-4090": 1, "RTX-3090": 1})
    ]
    assert lab.internet.address == lab.network.gateway
    assert lab.forward == ("192.168.31.65", 11436)


def test_every_card_of_the_lab_is_known_to_the_driver_double() -> None:
    for host in config.load().gpu_machines:
        text = gpus_json(host.entry())
        assert all(gpu.uuid in text for gpu in host.gpus)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "gpu65"', 'name = "gpu10"', "the name gpu10 is used twice"),
        ('name = "gpu65"', 'name = "GPU_65"', "small letters"),
        ('address = "192.168.31.10"', 'address = "10.0.0.1"', "not in the lab's network 192.168.31.0/24"),
        ('address = "192.168.31.10"', 'address = "192.168.31.2"', "the address 192.168.31.2 is used twice"),
        ('release = "bookworm"', 'release = "jammy"', "'jammy' is not one of trixie, bookworm"),
        ('kind = "internet"', 'kind = "internet"\non_demand = true', "not on demand"),
        ('kind = "internet"', 'kind = "gpu"', "exactly one machine of kind internet"),
        ("GPU-5a1d3c2e-7b64-4f0e-9d21-6c0f8e3b1a47", "GPU-5A1D", "is not GPU- and a UUID"),
        ("GPU-41e6a97c-d805-4b39-86f2-b17c0d9e5a28", "GPU-5a1d3c2e-7b64-4f0e-9d21-6c0f8e3b1a47", "used twice"),
        ('bridge = "lab0"', 'bridges = "lab0"', "bridge"),
        ("[forward]", "[onward]", "the entry 'forward' is missing"),
        ("[network]", "[network", "lab.toml"),
    ],
)
def test_mistakes_in_the_description_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in LAB_TOML
    with pytest.raises(LabError, match=r"lab\.toml") as error:
        lab_from(tmp_path, LAB_TOML.replace(old, new, 1))
    assert said in str(error.value)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = LAB_TOML.replace('release = "bookworm"', 'release = "jammy"').replace('name = "gpu10"', 'name = "Gpu"')
    with pytest.raises(LabError) as error:
        lab_from(tmp_path, text)
    assert "jammy" in str(error.value)
    assert "Gpu" in str(error.value)


def test_an_unknown_machine_is_answered_with_the_known_ones() -> None:
    lab = config.load()
    assert lab.machine("192.168.31.65") is lab.machine("gpu65")
    with pytest.raises(LabError, match=r"gpu10 \(192\.168\.31\.10\)"):
        lab.machine("gpu11")
    with pytest.raises(LabError, match="internet is not a GPU host"):
        lab.host("internet")


def test_arguments() -> None:
    options = parse(
        "usage", ["gpu10", "--fresh", "--port=1", "--to", "a:2"], words=1, flags=["--fresh"], values=["--port", "--to"]
    )
    assert options.words == ("gpu10",)
    assert options.flags == {"--fresh"}
    assert options.values == {"--port": "1", "--to": "a:2"}


@pytest.mark.parametrize("wrong", [["--fesh"], ["gpu10", "gpu65"], [], ["gpu10", "--port"]])
def test_wrong_arguments_end_with_2_and_the_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("usage: it", wrong, words=1, values=["--port"])
    assert ended.value.code == 2
    assert "usage: it" in capsys.readouterr().err


def test_help_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("usage: it", ["--help"])
    assert ended.value.code == 0
    assert "usage: it" in capsys.readouterr().out


def test_an_image_key_changes_with_content_name_and_executable_bit_only(tmp_path: Path) -> None:
    folder = tmp_path / "addition"
    folder.mkdir()
    file = folder / "install.sh"
    file.write_text("true")
    keys = [images.digest(folder)]
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/x.pyc").write_text("compiled")
    os.utime(file, (0, 0))
    assert images.digest(folder) == keys[0]
    file.chmod(0o755)
    keys.append(images.digest(folder))
    file.write_text("false")
    keys.append(images.digest(folder))
    file.rename(folder / "other.sh")
    keys.append(images.digest(folder))
    keys.append(images.digest("trixie", folder))
    assert len(set(keys)) == len(keys)


def test_machines_of_one_kind_and_release_share_an_image() -> None:
    machine = config.Machine("a", "gpu", "192.168.31.20", "trixie")
    same = config.Machine("b", "gpu", "192.168.31.21", "trixie")
    other = config.Machine("c", "gpu", "192.168.31.22", "bookworm")
    assert images.name(machine) == images.name(same) != images.name(other)


def test_a_machine_keeps_its_ethernet_address() -> None:
    assert network.hardware_address(config.load().machine("gpu10")) == "02:00:c0:a8:1f:0a"


def test_package_lists_have_comments(tmp_path: Path) -> None:
    file = tmp_path / "packages.txt"
    file.write_text("# heading\nsystemd\n\nsudo  # why\n")
    assert rootfs.packages(file) == ["systemd", "sudo"]


def test_a_bare_host_has_no_docker_and_no_curl() -> None:
    names = rootfs.packages(rootfs.IMAGE_FILES / "packages-gpu.txt") + rootfs.packages(
        rootfs.IMAGE_FILES / "packages-machine.txt"
    )
    assert not {"curl", "docker.io", "gnupg", "iptables"} & set(names)


@pytest.mark.parametrize(
    ("os_release", "good"),
    [
        ('ID=debian\nVERSION_ID="12"\n', True),
        ('ID=debian\nVERSION_ID="13"\n', True),
        ("ID=debian\nVERSION_CODENAME=forky\n", True),
        ('ID=debian\nVERSION_ID="11"\n', False),
        ('ID=ubuntu\nVERSION_ID="24.04"\nID_LIKE=debian\n', False),
        ("", False),
    ],
)
def test_supported_systems(os_release: str, good: bool) -> None:
    assert requirements.supported(os_release) is good


def test_the_ssh_configuration_knows_names_and_addresses() -> None:
    text = access.ssh_config(config.load())
    assert "Host gpu10 192.168.31.10\n    HostName 192.168.31.10\n" in text
    assert text.count("UserKnownHostsFile /var/lib/stoker-lab/home/.ssh/known_hosts") == 3


def test_ssh_says_how_to_start_a_host_that_is_not_there() -> None:
    lab = config.load()
    text = access.ssh_config(lab, [lab.machine("gpu40")])
    _, _, entry = text.partition("Host gpu40 192.168.31.40\n")
    assert "gpu40 is not up; start it with lab/up --with gpu40" in entry
    assert "ProxyCommand" not in text.partition("Host gpu40")[0]


def test_known_hosts_keeps_what_it_has_of_other_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "KNOWN_HOSTS", tmp_path / "known_hosts")
    monkeypatch.setattr(access, "HOST_KEYS", tmp_path)
    lab = config.load()
    for host in lab.gpu_machines:
        (tmp_path / f"{host.name}.pub").write_text(f"ssh-ed25519 first-{host.name} root@{host.name}\n")
    access.trust(lab.hosts)
    for host in lab.gpu_machines:
        (tmp_path / f"{host.name}.pub").write_text(f"ssh-ed25519 second-{host.name} root@{host.name}\n")
    access.trust([lab.machine("gpu40")])
    assert access.KNOWN_HOSTS.read_text().splitlines() == [
        "192.168.31.10 ssh-ed25519 first-gpu10",
        "192.168.31.65 ssh-ed25519 first-gpu65",
        "192.168.31.40 ssh-ed25519 second-gpu40",
    ]


def test_host_names_come_from_dns_only() -> None:
    changed = access.only_dns("passwd: files systemd\nhosts: files resolve [!UNAVAIL=return] dns\n")
    assert changed == "passwd: files systemd\nhosts: files dns\n"


def test_identity_files_have_their_owner_and_a_private_ssh_directory() -> None:
    stream = hosts._tar(
        [
            ("home/operator/.ssh/authorized_keys", "key\n", 0o600, access.OPERATOR),
            ("etc/hostname", "gpu10\n", 0o644, (0, 0)),
        ]
    )
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        entries = {entry.name: (oct(entry.mode), entry.uid, entry.gid, entry.isdir()) for entry in archive}
    assert entries == {
        "home/operator/.ssh": ("0o700", 1000, 37, True),
        "home/operator/.ssh/authorized_keys": ("0o600", 1000, 37, False),
        "etc/hostname": ("0o644", 0, 0, False),
    }


@pytest.mark.parametrize(
    "target", ["11434", "192.168.31.10:", "192.168.31.10:0", "192.168.31.10:99999", "192.168.31.10:http"]
)
def test_forward_refuses_what_is_no_address(target: str) -> None:
    with pytest.raises(LabError):
        forward._target(config.load(), target)


def test_a_failed_program_is_reported_with_the_step_the_code_and_its_last_lines() -> None:
    with pytest.raises(LabError) as error:
        shell.run(["sh", "-c", "seq 20 >&2; exit 4"], what="counting")
    text = str(error.value)
    assert text.startswith("counting: exit code 4 of: sh -c")
    assert "    20" in text
    assert "    12\n" not in text


def test_a_missing_program_and_a_slow_one_are_named() -> None:
    with pytest.raises(LabError, match="no-such-program is not installed"):
        shell.run(["no-such-program"])
    with pytest.raises(LabError, match=r"no end after 0 s: sleep 60"):
        shell.run(["sleep", "60"], timeout=0.05)


def test_streamed_lines_arrive_and_a_failure_is_raised() -> None:
    lines: list[str] = []
    shell.stream(["sh", "-c", "echo a; echo b >&2"], lines.append, what="saying")
    assert lines == ["a", "b"]
    with pytest.raises(LabError, match="saying: exit code 2"):
        shell.stream(["sh", "-c", "echo no; exit 2"], lines.append, what="saying")


def test_a_pid_counts_only_with_the_mark_in_its_command_line(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    assert processes.owned_pid(pid_file, "x") is None
    pid_file.write_text("no number")
    assert processes.owned_pid(pid_file, "x") is None
    with subprocess.Popen(["sleep", "61.5"]) as sleeper:
        pid_file.write_text(f"{sleeper.pid}\n")
        assert processes.wait_until(lambda: processes.owned_pid(pid_file, "61.5") == sleeper.pid, 5)
        assert processes.owned_pid(pid_file, "dockerd") is None
        processes.stop(sleeper.pid, 5)
        assert processes.owned_pid(pid_file, "61.5") is None


def test_one_command_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marker, "LOCK", tmp_path / "lock")
    with (
        marker.only_one("lab/up"),
        pytest.raises(LabError, match="at work on the lab: lab/up"),
        marker.only_one("lab/down"),
    ):
        pass
    with marker.only_one("lab/down"):
        pass


def test_a_lab_of_another_checkout_is_refused_until_the_computer_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marker, "RUN", tmp_path)
    monkeypatch.setattr(marker, "OWNER", tmp_path / "owner")
    monkeypatch.setattr(marker, "ROOT", Path("/home/a"))
    marker.claim()
    marker.claim()
    monkeypatch.setattr(marker, "ROOT", Path("/home/b"))
    with pytest.raises(LabError, match="another checkout is up on this computer: /home/a"):
        marker.claim()
    monkeypatch.setattr(marker, "_boot", lambda: "another start")
    marker.claim()
    assert marker.owner() == Path("/home/b")
