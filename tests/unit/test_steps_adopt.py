"""What is kept of a container that was made by hand, and the script that makes it again."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.stubs import Stubs

from stoker.steps.adopt import keep, recipe, sources

IMAGE = "sha256:" + "5" * 64

#: `docker inspect` of one container, without the fields that nothing here reads.
INSPECTED: dict[str, Any] = {
    "Id": "0123456789abcdef" * 4,
    "Name": "/vllm_qwen_gpu2",
    "Image": IMAGE,
    "State": {"Running": True, "Status": "running"},
    "Config": {
        "Hostname": "0123456789ab",
        "Image": "vllm/vllm-openai:latest",
        "Env": ["HF_TOKEN=hf_secret"],
        "Cmd": ["--model", "/model_data/X"],
        "Labels": {
            "com.docker.compose.image": IMAGE,
            "com.docker.compose.project.config_files": "/root/stacks/a.yaml,/root/stacks/b.yaml",
        },
    },
    "HostConfig": {
        "Binds": ["/data/projects/models:/model_data"],
        "NetworkMode": "memoryx-hybrid_default",
        "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
        "DeviceRequests": [{"Driver": "nvidia", "Count": 0, "DeviceIDs": ["2"], "Capabilities": [["gpu"]]}],
    },
    "Mounts": [
        {"Type": "bind", "Source": "/data/projects/models", "Destination": "/model_data"},
        {"Type": "volume", "Name": "c" * 64, "Source": "/var/lib/docker/volumes/c/_data", "Destination": "/cache"},
    ],
    "NetworkSettings": {
        "Networks": {
            "memoryx-hybrid_default": {
                "Aliases": ["vllm_qwen_gpu2", "vllm-qwen-gpu2", "0123456789ab"],
                "IPAddress": "172.18.0.6",
                "EndpointID": "e" * 64,
            }
        }
    },
}


def test_the_recipe_has_what_was_asked_for_and_not_what_docker_thought_of() -> None:
    made = recipe(INSPECTED)
    assert made["Image"] == IMAGE
    assert "Hostname" not in made
    assert (made["Cmd"], made["Env"]) == (["--model", "/model_data/X"], ["HF_TOKEN=hf_secret"])
    assert made["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert made["HostConfig"]["DeviceRequests"] == INSPECTED["HostConfig"]["DeviceRequests"]
    ends = made["NetworkingConfig"]["EndpointsConfig"]
    assert ends == {"memoryx-hybrid_default": {"Aliases": ["vllm_qwen_gpu2", "vllm-qwen-gpu2"]}}


def test_a_hostname_that_somebody_gave_stays() -> None:
    named = {**INSPECTED, "Config": {**INSPECTED["Config"], "Hostname": "qwen"}}
    assert recipe(named)["Hostname"] == "qwen"


def test_a_volume_without_a_name_is_the_same_one_again() -> None:
    binds = recipe(INSPECTED)["HostConfig"]["Binds"]
    assert binds == ["/data/projects/models:/model_data", f"{'c' * 64}:/cache"]
    assert INSPECTED["HostConfig"]["Binds"] == ["/data/projects/models:/model_data"], "the input is left alone"


def test_the_files_that_a_container_came_from() -> None:
    assert sources(INSPECTED) == ["/root/stacks/a.yaml", "/root/stacks/b.yaml", "/data/projects/models"]


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    """A docker whose containers are files (empty: somebody's; with text: Stoker's), and a curl that asks it to make one."""
    made = Stubs(tmp_path / "bin")
    running = tmp_path / "containers"
    running.mkdir()
    made.add(
        "docker",
        f"""cd {running}; echo "docker $*" >>{made.folder}/called.txt
case "$1 $2" in
    "inspect -f") cat "$4" ;;
    inspect*) test -e "$2" ;;
    "rm -f") rm "$3" ;;
    "image inspect") test "$5" = vllm/vllm-openai:latest && cat {tmp_path}/latest ;;
esac""",
    )
    made.add(
        "curl",
        f'for url; do :; done; cat >{tmp_path}/posted.json; test ! -e {tmp_path}/broken && touch {running}/"${{url##*=}}"',
    )
    (tmp_path / "latest").write_text(IMAGE)
    return made


def kept(stubs: Stubs, tmp_path: Path, name: str, new: str, **changes: Any) -> Path:
    """Keep a container; the directory in which it is kept."""
    directory = tmp_path / "kept"
    inspected = {**INSPECTED, "Name": f"/{name}", "Mounts": [], **changes}
    script, stdin = keep(inspected, new, str(directory))
    done = subprocess.run(["/bin/dash", "-c", script], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory


def go_back(stubs: Stubs, directory: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return stubs.run(f"sh {directory}/go-back.sh {' '.join(names)}")


def test_what_is_kept_is_for_root_alone(stubs: Stubs, tmp_path: Path) -> None:
    compose = tmp_path / "a.yaml"
    compose.write_text("services: {}\n")
    mounts = [{"Type": "bind", "Source": str(path)} for path in (compose, tmp_path, tmp_path / "gone.conf")]
    directory = kept(stubs, tmp_path, "old", "vllm_qwen_gpu2", Mounts=mounts)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert (directory / f"files{compose}").read_text() == "services: {}\n"
    assert [path for path in (directory / "files").rglob("*") if path.is_file()] == [directory / f"files{compose}"]
    assert json.loads((directory / "inspect/old.json").read_text())[0]["Name"] == "/old"


def test_going_back_makes_the_old_ones_again_in_their_order(stubs: Stubs, tmp_path: Path) -> None:
    for name in ("vllm_qwen_gpu2", "vllm_nginx", "vllm_qwen_gpu2"):
        directory = kept(stubs, tmp_path, name, name)
        (tmp_path / "containers" / name).write_text("0123")
    done = go_back(stubs, directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["vllm_qwen_gpu2 is back", "vllm_nginx is back"]
    assert [line for line in stubs.called() if line.startswith(("docker rm", "docker start"))] == [
        "docker rm -f vllm_qwen_gpu2",
        "docker rm -f vllm_nginx",
        "docker start vllm_qwen_gpu2",
        "docker start vllm_nginx",
    ]
    assert json.loads((tmp_path / "posted.json").read_text())["Image"] == "vllm/vllm-openai:latest"
    assert (directory / "closed").exists()


def test_an_image_name_that_is_another_image_now_is_not_used(stubs: Stubs, tmp_path: Path) -> None:
    directory = kept(stubs, tmp_path, "vllm_qwen_gpu2", "vllm_qwen_gpu2")
    (tmp_path / "latest").write_text("sha256:" + "9" * 64)
    assert go_back(stubs, directory).returncode == 0
    made = json.loads((tmp_path / "posted.json").read_text())
    assert (made["Image"], made["Labels"]["com.docker.compose.image"]) == (IMAGE, IMAGE)


def test_one_container_of_stokers_goes_for_those_that_made_way_for_it(stubs: Stubs, tmp_path: Path) -> None:
    kept(stubs, tmp_path, "old-a", "new-1")
    kept(stubs, tmp_path, "old-b", "new-1", State={"Running": False})
    directory = kept(stubs, tmp_path, "old-c", "new-2")
    for name in ("new-1", "new-2"):
        (tmp_path / "containers" / name).write_text("0123")
    done = go_back(stubs, directory, "new-1")
    assert done.stdout.splitlines() == ["old-a is back", "old-b is back"]
    assert sorted(path.name for path in (tmp_path / "containers").iterdir()) == ["new-2", "old-a", "old-b"]
    assert "docker start old-b" not in stubs.called(), "it did not run before"
    assert not (directory / "closed").exists()


def test_an_old_one_that_was_never_removed_is_left_alone(stubs: Stubs, tmp_path: Path) -> None:
    directory = kept(stubs, tmp_path, "vllm_qwen_gpu2", "vllm_qwen_gpu2")
    (tmp_path / "containers/vllm_qwen_gpu2").touch()
    assert go_back(stubs, directory).returncode == 0
    assert not any(line.startswith("docker rm") for line in stubs.called())
    assert not (tmp_path / "posted.json").exists()


def test_one_that_cannot_be_made_does_not_keep_the_others_away(stubs: Stubs, tmp_path: Path) -> None:
    kept(stubs, tmp_path, "a", "a")
    directory = kept(stubs, tmp_path, "b", "b")
    (tmp_path / "containers/b").touch()
    (tmp_path / "broken").touch()
    done = go_back(stubs, directory)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["b is back"]
    assert "a: could not be made again" in done.stderr
    assert not (directory / "closed").exists()
