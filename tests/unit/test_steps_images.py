"""The proof that an image computes on a card: the program that is run in it, with stand-ins of what it finds there."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from support.states import bare, cards, fleet_and_host
from support.stubs import Stubs

from stoker.steps import images

#: `docker run ... --entrypoint PROGRAM IMAGE ARGUMENTS` as a shell function's body: the program is run here.
DOCKER = """case $1 in image) echo sha256:1; exit;; esac
while [ "$1" != --entrypoint ]; do shift; done
program=$2; shift 3; exec "$program" "$@" """

OLLAMA_CUDA = 'msg="inference compute" id={uuid} filter_id= library=CUDA compute=6.1 name=CUDA0'
OLLAMA_VULKAN = 'msg="inference compute" id={uuid} filter_id= library=Vulkan compute=0.0 name=Vulkan0'
OLLAMA_CPU = 'msg="inference compute" id=cpu library=cpu compute="" name=cpu'
TOO_OLD = 'msg="NVIDIA driver too old" device="Tesla P40" required_driver="570 or newer"'


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    stubs = Stubs(tmp_path / "stubs")
    stubs.add("docker", DOCKER)
    return stubs


def proof(group: str, tmp_path: Path, stubs: Stubs) -> subprocess.CompletedProcess[str]:
    """Run the proof of one engine's image; what it notes on the host goes to a file here."""
    _, host = fleet_and_host(group)
    (action,) = images.probes(host, bare(host))
    ((image, (engine, _)),) = images.proofs(host).items()
    note = images.proof_path(engine, image)
    return stubs.run(
        action.script.replace(shlex.quote(note), str(tmp_path / "note")).replace("/tmp/log", f"{tmp_path}/log")
    )


def noted(tmp_path: Path) -> str:
    file = tmp_path / "note"
    return file.read_text() if file.exists() else ""


def ollama(stubs: Stubs, *lines: str) -> None:
    """An Ollama that prints lines when it serves; the card that is seen is always the first, as one container has one."""
    _, host = fleet_and_host("embedding")
    gpus = cards(host)
    stubs.add("nvidia-smi", "\n".join(f"echo 'GPU 0: Tesla P40 (UUID: {gpu.uuid})'" for gpu in gpus))
    text = "\n".join(lines).format(uuid=gpus[0].uuid)
    (stubs.folder / "log.txt").write_text(f"{text}\n")
    stubs.add("ollama", f'test "$1" = serve && cat {stubs.folder}/log.txt')


def test_ollama_proves_that_it_uses_cuda(stubs: Stubs, tmp_path: Path) -> None:
    ollama(stubs, "starting", OLLAMA_CUDA)
    done = proof("embedding", tmp_path, stubs)
    assert done.returncode == 0, done
    _, host = fleet_and_host("embedding")
    assert noted(tmp_path).split()[2:] == [gpu.uuid for gpu in cards(host)]


@pytest.mark.parametrize("line", [OLLAMA_CPU, OLLAMA_VULKAN])
def test_ollama_on_anything_else_is_no_proof(line: str, stubs: Stubs, tmp_path: Path) -> None:
    ollama(stubs, TOO_OLD, line)
    done = proof("embedding", tmp_path, stubs)
    assert done.returncode == 1
    assert "570 or newer" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Ollama does not use the card")
    assert noted(tmp_path) == ""


def test_a_container_without_the_card_is_no_proof(stubs: Stubs, tmp_path: Path) -> None:
    ollama(stubs, OLLAMA_CUDA)
    stubs.add("nvidia-smi", "echo 'No devices were found'; exit 6")
    done = proof("embedding", tmp_path, stubs)
    assert (done.returncode, noted(tmp_path)) == (1, "")
    assert "does not see the card" in done.stdout


TORCH = """
__version__ = "2.10.0"
class cuda:
    get_device_capability = staticmethod(lambda: {capability})
    get_device_name = staticmethod(lambda: "a card")
    get_arch_list = staticmethod(lambda: {arches})
half = None
class ones:
    def __init__(self, *size, device, dtype): assert device == "cuda"
    def sum(self): return 4
"""


@pytest.mark.parametrize(
    ("capability", "arches", "computes"),
    [
        ((7, 0), ["sm_70", "sm_80"], True),
        ((7, 0), ["sm_75", "sm_80", "sm_90"], False),
        ((7, 0), ["compute_60"], True),  # compiled by the driver
        ((8, 9), ["sm_86"], True),
        ((8, 6), ["sm_89"], False),
        ((9, 0), ["sm_90a"], False),
        ((7, 0), [], False),
    ],
)
def test_vllm_proves_that_it_has_code_for_the_card(
    capability: tuple[int, int],
    arches: list[str],
    computes: bool,
    stubs: Stubs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "torch.py").write_text(TORCH.format(capability=capability, arches=arches))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = proof("llm", tmp_path, stubs)
    assert (done.returncode == 0) == computes, done
    assert bool(noted(tmp_path)) == computes
    assert ("has no code for compute capability" in done.stderr) == (not computes)
