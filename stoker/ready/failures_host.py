"""Failures of the host under any engine: Docker, images, disks, ports.

Those found in a container's log and those that Docker gives as the reason why a container did not start are in one table.
"""

from __future__ import annotations

import re

from stoker.ready.failure import Clues, Failure, Groups

_DOCKER = "Docker 28 and 29: text of the daemon's answer"


def _first(*names: str) -> Groups:
    return {"which": next(filter(None, names), "")}


def _port(got: Groups, _: Clues) -> Groups:
    port = got["port"] or got["port2"] or got["port3"] or got["port4"]
    return {"which": f" {port}" if port else ""}


def _missing_room(got: Groups, _: Clues) -> Groups:
    if not got["need"]:
        return {"room": "free space on the host"}
    short = float(got["need"]) - float(got["free"])
    return {"room": f"free at least {short:.0f} MB on the host (wanted {got['need']} MB, there are {got['free']})"}


HOST_FAILURES: tuple[Failure, ...] = (
    Failure(
        id="image-missing",
        pattern=re.compile(
            r"manifest for (?P<image>\S+) not found|manifest unknown|No such image: (?P<image2>\S+)|(?P<image3>[\w.-]{1,80}/[\w./-]{1,200}:[\w.-]{1,128}): not found$"
        ),
        cause="there is no image {which}",
        remedy="correct the image's name and tag in group_data; a digest that was taken from another registry's copy may differ",
        source="moby/moby#40619 and Docker 28: a tag that does not exist",
        numbers=lambda got, _: _first(got["image"], got["image2"], got["image3"], "of that name"),
    ),
    Failure(
        id="registry-denied",
        pattern=re.compile(r"pull access denied for (?P<image>\S+?),|requested access to the resource is denied"),
        cause="the registry does not give out the image {which}: it does not exist, or it wants a login",
        remedy="correct the image's name; for a private registry run docker login on the host as root",
        source=_DOCKER,
        numbers=lambda got, _: _first(got["image"], "of that name"),
    ),
    Failure(
        id="registry-limit",
        pattern=re.compile(r"toomanyrequests"),
        cause="the registry's limit of downloads is reached",
        remedy="wait some hours, run docker login on the host, or set a mirror of the registry in group_data (mirrors)",
        source="Docker Hub's answer to anonymous pulls over the limit",
        heals=True,
    ),
    Failure(
        id="registry-unreachable",
        pattern=re.compile(
            r"failed to do request: (?:Head|Get) \"(?P<url>[^\"]+)\"|Get \"(?P<url2>https://[^\"]+/v2/[^\"]*)\": (?!unauthorized)|"
            r"dial tcp: lookup (?P<name>\S*(?:docker|ghcr|quay|registry)\S*)"
        ),
        cause="the registry {which} cannot be reached from the host",
        remedy="set a mirror of the registry (mirrors) or a proxy in group_data, or repair DNS and firewall: on the host curl -sSI https://registry-1.docker.io/v2/",
        source=_DOCKER,
        heals=True,
        numbers=lambda got, _: _first(got["url"], got["url2"], got["name"]),
    ),
    Failure(
        id="docker-iptables",
        pattern=re.compile(
            r"iptables.*(?:No chain/target/match by that name|does not exist)|failed to program .*iptables"
        ),
        cause="Docker's rules in the packet filter are gone (something flushed them)",
        remedy="on the host: systemctl restart docker; find what flushes the rules (systemctl stop nftables, a firewall's reload)",
        source="moby/moby#31839",
    ),
    Failure(
        id="port-taken",
        pattern=re.compile(
            r"Bind for [\d.:\[\]]*?:(?P<port>\d+) failed: port is already allocated|"
            r"failed to bind host port for [\d.:\[\]]*?:(?P<port2>\d+)[:\s].*address already in use|"
            r"failed to bind host port [\d.:\[\]]*?:(?P<port4>\d+)/tcp: address already in use|"
            r"listen tcp4? [\d.]*:(?P<port3>\d+): bind: address already in use|"
            r"\[Errno 98\].*[Aa]ddress already in use"
        ),
        cause="the port{which} is already in use",
        remedy="find the owner on the host: ss -ltnp, docker ps; stop it or give the instance another port",
        source="vLLM 0.6 to 0.33 (vllm#9763), Ollama, Docker 28 and 29",
        numbers=_port,
    ),
    Failure(
        id="left-behind",
        pattern=re.compile(r"container's cgroup is not empty|unable to remove container's cgroup"),
        cause="a process of the container's last run is left in its cgroup, and Docker cannot start it again",
        remedy="deploy again, which makes the container anew (or docker rm -f it before); what is left shows in nvidia-smi if it holds a card",
        source="runc 1.1 to 1.3 (libcontainer, Create), containerd 2.1",
    ),
    Failure(
        id="mount-failed",
        pattern=re.compile(r"error mounting \"?(?P<path>[^\" ]+)|bind source path does not exist: (?P<path2>\S+)"),
        cause="Docker could not mount {which} into the container",
        remedy="check that the file or directory exists on the host and is what the container expects (a file or a directory)",
        source=_DOCKER,
        numbers=lambda got, _: _first(got["path"], got["path2"]),
    ),
    Failure(
        id="command-not-found",
        pattern=re.compile(
            r'exec: "(?P<program>[^"]+)": (?:executable file not found|stat .*no such file|permission denied)|'
            r"cannot start (?P<program2>\S+): No such file"
        ),
        cause="the image has no program {which} that could be started",
        remedy="check the instance's image: it must be the engine's own image or one made from it",
        source="runc 1.1 to 1.3; Stoker's gpu-turn.py",
        numbers=lambda got, _: _first(got["program"], got["program2"]),
    ),
    Failure(
        id="wrong-architecture",
        pattern=re.compile(r"exec format error"),
        cause="the image is made for another kind of processor",
        remedy="take the image for linux/amd64: docker image inspect IMAGE | grep Architecture shows what is there",
        source="runc 1.1 to 1.3",
    ),
    Failure(
        id="gpu-lock-missing",
        pattern=re.compile(r"stoker: cannot open the lock (?P<path>\S+)"),
        cause="the start-order lock of the GPU, {path}, cannot be opened in the container",
        remedy="deploy again: it makes /var/lib/stoker/locks with one file for each GPU and mounts it at /run/stoker/locks",
        source="Stoker's templates/gpu-turn.py",
    ),
    Failure(
        id="disk-full",
        pattern=re.compile(
            r"No space left on device|no space left on device|"
            r"Not enough free disk space to download(?:.*?expected file size is: (?P<need>[\d.]+) MB.*?only has (?P<free>[\d.]+) MB)?"
        ),
        cause="a disk of the host is full",
        remedy="{room}: df -h, docker system df; move models or Docker's data to a larger disk",
        source="errno 28; huggingface_hub 0.36, file_download.py",
        numbers=_missing_room,
    ),
    Failure(
        id="permission-denied",
        pattern=re.compile(r"PermissionError: \[Errno 13\] Permission denied: '?(?P<path>[^']+)'?"),
        cause="the engine may not read or write {path}",
        remedy="check owner and mode of the path on the host, and that the mount is not read-only where the engine writes",
        source="Python's OSError",
    ),
    Failure(
        id="read-only",
        pattern=re.compile(r"\[Errno 30\] Read-only file system: '(?P<path>[^']+)'|: read-only file system"),
        cause="the engine wants to write where it may only read{which}",
        remedy="give it a writable directory for that: a cache belongs on a mount of its own, the model's directory stays read-only",
        source="Python's and Go's text of errno 30",
        numbers=lambda got, _: {"which": f": {got['path']}" if got["path"] else ""},
    ),
    Failure(
        id="open-files-limit",
        pattern=re.compile(
            r"Found ulimit of (?P<limit>\d+) and failed to automatically increase|[Tt]oo many open files"
        ),
        cause="the limit of open files in the container is too low{which}",
        remedy="set ulimits nofile 1048576 in the compose file (Stoker's templates do; deploy again)",
        source="vLLM 0.8.5 to 0.33 on Docker 29 (soft limit 1024); at every start in the lab",
        ordinary=True,
        numbers=lambda got, _: {"which": f" ({got['limit']})" if got["limit"] else ""},
    ),
    Failure(
        id="host-out-of-memory",
        pattern=re.compile(r"container init was OOM-killed|std::bad_alloc|Cannot allocate memory|MemoryError$"),
        cause="the host, or the container's memory limit, has no memory left",
        remedy="see free -g on the host; move instances, or raise the container's memory limit",
        source="runc 1.1; glibc, Python",
    ),
)
