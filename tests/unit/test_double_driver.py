"""The driver double (nvidia-smi, faults) and the container toolkit double (nvidia-ctk), from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from double_processes import CARD_UUIDS, DOUBLES, environment, make_host, set_faults, smi
from support.smi import read

from lab.doubles.driver.cards import gpus_json, read_cards
from stoker.facts.gpus import GPU_FIELDS, PROCESS_FIELDS, GpuProcess, kernel_module, processes, queried

HOLD = """
import signal
from lab_gpu.accounting import Allocation
from lab_gpu.machine import read_machine
held = Allocation(read_machine()["gpus"][0], "NAME")
held.set(1024 * 1024 * 1024)
print("held", flush=True)
signal.pause()
"""


OUTPUTS = DOUBLES.parents[1] / "tests" / "data" / "nvidia-smi"
WHOLE_QUERY = "--query-gpu=index,uuid,name,memory.total,driver_version,pci.bus_id,ecc.mode.current"


@contextlib.contextmanager
def holding(host: Path, name: str = "python3") -> Iterator[int]:
    """A process that holds 1 GiB of the first card; its PID."""
    command = [sys.executable, "-c", HOLD.replace("NAME", name)]
    holder = subprocess.Popen(command, env=environment(host), stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", "V100-32GB", "P40-24GB")


def test_list_and_query(host: Path) -> None:
    assert smi(host, "-L").stdout.splitlines() == [
        f"GPU 0: Tesla V100-SXM2-32GB (UUID: {CARD_UUIDS[0]})",
        f"GPU 1: Tesla P40 (UUID: {CARD_UUIDS[1]})",
    ]
    query = "--query-gpu=index,name,memory.total,memory.free,compute_cap,driver_version,persistence_mode,fan.speed"
    assert smi(host, query, "--format=csv").stdout.splitlines() == [
        "index, name, memory.total [MiB], memory.free [MiB], compute_cap, driver_version, persistence_mode, fan.speed [%]",
        "0, Tesla V100-SXM2-32GB, 32768 MiB, 32494 MiB, 7.0, 580.173.02, Enabled, [N/A]",
        "1, Tesla P40, 24576 MiB, 24438 MiB, 6.1, 580.173.02, Enabled, [N/A]",
    ]
    assert (
        smi(host, "--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", CARD_UUIDS[1]).stdout == "24576\n"
    )


def test_table_has_the_layout_of_branch_580(host: Path) -> None:
    lines = smi(host).stdout.splitlines()
    assert {len(line) for line in lines[1:] if line} == {91}
    assert "| NVIDIA-SMI 580.173.02             Driver Version: 580.173.02     CUDA Version: 13.0     |" in lines
    assert "|   0  Tesla V100-SXM2-32GB           On  |   00000000:1A:00.0 Off |                    0 |" in lines
    assert "|  No running processes found                                                             |" in lines


def test_a_table_is_that_of_a_real_machine_of_branch_580(host: Path) -> None:
    """tests/data/nvidia-smi/table-l40.txt, on a machine that has this card."""
    machine = json.loads((host / "gpus.json").read_text())
    l40 = {"name": "NVIDIA L40", "brand": "NVIDIA", "bus_id": "00000000:51:00.0", "memory_mib": 46068, "idle_w": 34}
    machine |= {"driver_version": "580.95.05", "gpus": [machine["gpus"][0] | l40]}
    (host / "gpus.json").write_text(json.dumps(machine))

    def lines(text: str) -> list[str]:
        """Without the time and the temperature."""
        return [re.sub(r"\d\dC ", "..C ", line) for line in text.splitlines()[1:]]

    assert lines(smi(host).stdout) == lines((OUTPUTS / "table-l40.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], {"memory_mib", "bus_id", "driver", "cuda", "ecc"}),
        (["-L"], {"uuid"}),
        (["-q"], {"uuid", "memory_mib", "bus_id", "driver", "cuda", "ecc"}),
        ([WHOLE_QUERY, "--format=csv"], {"uuid", "memory_mib", "bus_id", "driver", "ecc"}),
    ],
)
def test_every_format_says_what_the_machine_has(host: Path, arguments: list[str], says: set[str]) -> None:
    """By the reader that reads real machines' outputs (test_facts_gpus.py)."""
    machine = json.loads((host / "gpus.json").read_text())
    report = read(smi(host, *arguments).stdout)
    assert report.driver == (machine["driver_version"] if "driver" in says else "")
    assert report.cuda == (machine["cuda_version"] if "cuda" in says else "")
    assert len(report.gpus) == len(machine["gpus"]) == 2
    for gpu, card in zip(report.gpus, machine["gpus"], strict=True):
        assert (gpu.index, gpu.name) == (card["index"], card["name"])
        assert gpu.uuid == (card["uuid"] if "uuid" in says else "")
        assert gpu.memory_mib == (card["memory_mib"] if "memory_mib" in says else 0)
        assert gpu.bus_id == (card["bus_id"][4:].lower() if "bus_id" in says else "")
        assert gpu.ecc == ({"on": True, "off": False}[card["ecc"]] if "ecc" in says else None)


def test_a_process_in_the_table_and_in_the_log(host: Path) -> None:
    name = "/opt/a/long/path/of/an/engine/bin/python3"
    with holding(host, name) as pid:
        table, log = (read(smi(host, *arguments).stdout) for arguments in ([], ["-q"]))
    assert table.processes == (GpuProcess("0", pid, "...path/of/an/engine/bin/python3", 1024),)
    assert log.processes == (GpuProcess(CARD_UUIDS[0], pid, name, 1024),)
    assert [gpu.used_mib for gpu in table.gpus] == [gpu.used_mib for gpu in log.gpus] == [1024, 0]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--query-gpu=nonsense", "--format=csv"], 2, 'Field "nonsense" is not a valid field to query.'),
        (["--query-gpu=name"], 2, "--format"),
        (["-i", "7", "-L"], 6, "No devices were found"),
        (["--nonsense"], 2, "is not recognized"),
    ],
)
def test_refusals(host: Path, arguments: list[str], code: int, text: str) -> None:
    answer = smi(host, *arguments)
    assert (answer.returncode, text in answer.stdout) == (code, True)


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("not-loaded", 9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."),
        ("version-mismatch", 18, "Failed to initialize NVML: Driver/library version mismatch"),
        ("unknown-error", 255, "Failed to initialize NVML: Unknown Error"),
    ],
)
def test_driver_faults(host: Path, fault: str, code: int, text: str) -> None:
    program = DOUBLES / "driver" / "root" / "usr" / "lib" / "lab-gpu" / "fault"
    command = [sys.executable, "-IS", str(program)]
    subprocess.run([*command, "driver", fault], env=environment(host), check=True)
    answer = smi(host, "-L")
    assert (answer.returncode, text in answer.stdout) == (code, True)
    assert read(answer.stdout).trouble == {"version-mismatch": "mismatch"}.get(fault, fault)
    assert (
        subprocess.run([*command, "list"], env=environment(host), capture_output=True, text=True).stdout
        == f"driver {fault}\n"
    )
    subprocess.run([*command, "driver", "clear"], env=environment(host), check=True)
    assert smi(host, "-L").returncode == 0
    assert subprocess.run([*command, "driver", "nonsense"], env=environment(host), capture_output=True).returncode == 2


def test_the_queries_of_the_probe(host: Path) -> None:
    answer = smi(host, f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits")
    gpus, driver, error = queried([*answer.stdout.splitlines(), f"rc={answer.returncode}"])
    assert (driver, error) == ("580.173.02", "")
    assert [(gpu.compute_capability, gpu.bus_id, gpu.used_mib, gpu.ecc, gpu.mig) for gpu in gpus] == [
        ("7.0", "0000:1a:00.0", 0, True, None),
        ("6.1", "0000:3b:00.0", 0, False, None),
    ]
    with holding(host) as pid:
        answer = smi(host, f"--query-compute-apps={PROCESS_FIELDS}", "--format=csv,noheader,nounits")
        assert processes(answer.stdout.splitlines()) == [GpuProcess(CARD_UUIDS[0], pid, "python3", 1024)]


@pytest.mark.parametrize(
    ("fault", "flavour"), [("", "proprietary"), ("open-module", "open"), ("not-loaded", "proprietary")]
)
def test_the_flavour_of_the_kernel_module(host: Path, fault: str, flavour: str) -> None:
    set_faults(host, driver=fault)
    program = DOUBLES / "driver" / "root" / "usr" / "local" / "bin" / "modinfo"
    command = [sys.executable, "-IS", str(program), "-F", "license", "nvidia"]
    answer = subprocess.run(command, env=environment(host), capture_output=True, text=True, check=True)
    assert kernel_module(answer.stdout.splitlines()) == flavour


def test_memory_lives_as_long_as_its_process(host: Path) -> None:
    with holding(host) as pid:
        query = ("--query-compute-apps=pid,used_gpu_memory,gpu_uuid", "--format=csv,noheader,nounits")
        assert smi(host, *query).stdout == f"{pid}, 1024, {CARD_UUIDS[0]}\n"
        assert f"{pid}      C   python3" in smi(host).stdout
    assert smi(host, "--query-gpu=memory.used", "--format=csv,noheader").stdout == "0 MiB\n0 MiB\n"
    assert not list((host / "allocations" / CARD_UUIDS[0]).iterdir())


def test_nvidia_smi_is_quick(host: Path) -> None:
    smi(host)  # compiles
    best = 1.0
    for _ in range(5):
        began = time.monotonic()
        smi(host, "-L")
        best = min(best, time.monotonic() - began)
    assert best < 0.2, f"{best:.3f} s (60 ms on an idle computer)"


def test_every_card_makes_a_host() -> None:
    slots = [
        {"card": name, "uuid": f"GPU-{index:08x}-0000-0000-0000-000000000000"}
        for index, name in enumerate(read_cards())
    ]
    assert len(json.loads(gpus_json({"name": "x", "gpus": slots}))["gpus"]) == len(slots)
    with pytest.raises(ValueError, match="unknown card 'H900'"):
        gpus_json({"name": "x", "gpus": [{"card": "H900", "uuid": "GPU-0"}]})


def ctk(host: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = DOUBLES / "toolkit" / "root"
    env = {**environment(host), "LAB_TOOLKIT_LIB": str(root / "usr" / "lib" / "lab-toolkit")}
    command = [sys.executable, "-IS", str(root / "usr" / "bin" / "nvidia-ctk"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=15)


def test_cdi_names_cards_by_index_and_uuid(host: Path) -> None:
    target = host / "cdi" / "nvidia.yaml"
    assert ctk(host, "cdi", "generate", f"--output={target}").returncode == 0
    spec = yaml.safe_load(target.read_text())
    assert (spec["kind"], spec["cdiVersion"]) == ("nvidia.com/gpu", "0.5.0")
    nodes = {
        device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]] for device in spec["devices"]
    }
    assert nodes["1"] == nodes[CARD_UUIDS[1]] == ["/dev/nvidia1"]
    assert nodes["all"] == ["/dev/nvidia0", "/dev/nvidia1"]
    assert "NVIDIA_VISIBLE_DEVICES=void" in spec["containerEdits"]["env"]
    names = ctk(host, "cdi", "list", f"--spec-dir={target.parent}").stdout.splitlines()
    assert f"nvidia.com/gpu={CARD_UUIDS[0]}" in names
    assert "nvidia.com/gpu=all" in names


def test_cards_change_places_at_the_next_boot_and_not_before(host: Path) -> None:
    program = DOUBLES / "driver" / "root" / "usr" / "lib" / "lab-gpu" / "fault"
    query = ("--query-gpu=index,uuid,pci.bus_id", "--format=csv,noheader")
    before = smi(host, *query).stdout
    for words in (["driver", "order=1,0"], ["at-boot"]):
        assert smi(host, *query).stdout == before
        subprocess.run([sys.executable, "-IS", str(program), *words], env=environment(host), check=True)
    assert smi(host, *query).stdout.splitlines() == [
        f"0, {CARD_UUIDS[1]}, 00000000:1A:00.0",
        f"1, {CARD_UUIDS[0]}, 00000000:3B:00.0",
    ]


def test_a_driver_from_packages_is_not_loaded_before_the_next_boot(host: Path) -> None:
    (host / "needs-reboot").touch()
    assert smi(host, "-L").returncode == 9
    (host / "needs-reboot").unlink()
    assert smi(host, "-L").returncode == 0


def test_cdi_fails_without_a_driver(host: Path) -> None:
    set_faults(host, driver="not-loaded")
    answer = ctk(host, "cdi", "generate")
    assert (answer.returncode, "failed to generate CDI spec: failed to initialize NVML" in answer.stderr) == (1, True)


def test_runtime_configure_keeps_the_rest_of_daemon_json(host: Path) -> None:
    target = host / "daemon.json"
    target.write_text(json.dumps({"log-opts": {"max-size": "10m"}, "runtimes": {"other": {"path": "x"}}}))
    assert (
        ctk(host, "runtime", "configure", "--runtime=docker", f"--config={target}", "--set-as-default").returncode == 0
    )
    config = json.loads(target.read_text())
    assert config["log-opts"] == {"max-size": "10m"}
    assert config["runtimes"] == {"other": {"path": "x"}, "nvidia": {"args": [], "path": "nvidia-container-runtime"}}
    assert config["default-runtime"] == "nvidia"
    assert (
        "It is recommended that docker daemon be restarted."
        in ctk(host, "runtime", "configure", f"--config={target}").stderr
    )


def test_the_driver_installs_into_a_root(tmp_path: Path) -> None:
    status = tmp_path / "var" / "lib" / "dpkg" / "status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: base-files\nStatus: install ok installed\n\n")
    for _ in range(2):
        subprocess.run(["sh", str(DOUBLES / "driver" / "install.sh"), str(tmp_path)], check=True)
    assert status.read_text().count("Package: nvidia-driver\n") == 1
    assert os.access(tmp_path / "usr" / "bin" / "nvidia-smi", os.X_OK)
    assert (
        tmp_path / "etc" / "systemd" / "system" / "multi-user.target.wants" / "nvidia-persistenced.service"
    ).is_symlink()
