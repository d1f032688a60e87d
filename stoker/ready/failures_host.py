"""Failures of the host under any engine: Docker, the NVIDIA driver and container toolkit, disk, ports.

Texts: Docker 28 and 29, nvidia-container-toolkit 1.18 to 1.20, NVML of driver 580. Those found in a container's log
and those that Docker gives as the reason why a container did not start are in one table.
"""

from __future__ import annotations

import re

from stoker.ready.failure import Failure

HOST_FAILURES: tuple[Failure, ...] = (
    Failure(
        "no-nvidia-runtime",
        re.compile(r'could not select device driver "?nvidia"?'),
        "Docker has no NVIDIA runtime: the container toolkit is missing, or dockerd was not restarted after it was installed",
        "deploy again, which installs the toolkit and configures Docker; remove Docker from snap if it is there",
    ),
    Failure(
        "no-cdi-specification",
        re.compile(r"failed to discover GPU vendor from CDI|no known GPU vendor found"),
        "Docker looks for GPUs by CDI and the host has no CDI specification",
        "on the host: systemctl restart nvidia-cdi-refresh, or nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml",
    ),
    Failure(
        "gpu-not-in-cdi",
        re.compile(r"unresolvable CDI devices? (?P<device>\S+)"),
        "the GPU {device} is not in the host's CDI specification: the card is gone, was exchanged, or the specification is old",
        "compare nvidia-smi -L with nvidia-ctk cdi list on the host, then systemctl restart nvidia-cdi-refresh; deploy again if a card was exchanged",
    ),
    Failure(
        "driver-not-loaded",
        re.compile(r"nvml error: driver not loaded|couldn't communicate with the NVIDIA driver"),
        "the NVIDIA kernel module is not loaded (a new kernel without a module built for it, or a reboot is pending)",
        "run nvidia-smi on the host; rebuild the module (dkms autoinstall) or reboot",
    ),
    Failure(
        "driver-too-old-for-image",
        re.compile(r"unsatisfied condition: cuda\s*>=\s*(?P<need>[\d.]+)"),
        "the image wants a driver for CUDA {need} and the host's driver is older",
        "install driver branch 580 (the last for V100 and P40); within CUDA 12, NVIDIA_DISABLE_REQUIRE=1 in the instance's environment also helps",
    ),
    Failure(
        "driver-library-mismatch",
        re.compile(r"Driver/library version mismatch"),
        "the driver's libraries were upgraded while the old kernel module is still loaded",
        "reboot the host; hold the driver packages (apt-mark hold) so that it does not happen again",
    ),
    Failure(
        "gpu-lost-in-container",
        re.compile(r"Failed to initialize NVML: Unknown Error"),
        "the container lost its GPU, usually after a systemctl daemon-reload under the systemd cgroup driver",
        "docker restart the container and deploy again; request GPUs by CDI (Stoker's default), which survives a daemon-reload",
    ),
    Failure(
        "gpu-fault",
        re.compile(
            r"GPU is lost|fallen off the bus|uncorrectable ECC error|CUDA error: (?:unspecified launch failure|an illegal memory access|unknown error)|"
            r"CUDA-capable device\(s\) is/are busy or unavailable"
        ),
        "the GPU failed or is in a bad state",
        "look for Xid in the host's kernel log (dmesg | grep -i xid) and at nvidia-smi -q; a reboot clears a hung card, a card with ECC errors needs exchange",
    ),
    Failure(
        "driver-too-old-for-torch",
        re.compile(r"The NVIDIA driver on your system is too old \(found version (?P<found>\d+)\)"),
        "PyTorch in the image needs a newer driver than the host's (it reports CUDA {found})",
        "install driver branch 580, or use an older image",
    ),
    Failure(
        "no-gpu-in-container",
        re.compile(
            r"No CUDA GPUs are available|Failed to infer device type|no CUDA-capable device is detected|CUDA driver initialization failed"
        ),
        "the engine sees no GPU inside its container",
        "run nvidia-smi -L on the host and in the container (docker exec); check the instance's gpus and the CDI specification",
    ),
    Failure(
        "port-taken",
        re.compile(
            r"Bind for [\d.:\[\]]*?:(?P<port>\d+) failed: port is already allocated|"
            r"failed to bind host port for [\d.:\[\]]*?:(?P<port2>\d+)[:\s].*address already in use|"
            r"listen tcp4? [\d.]*:(?P<port3>\d+): bind: address already in use|"
            r"\[Errno 98\].*[Aa]ddress already in use"
        ),
        "the port{which} is already in use",
        "find the owner on the host: ss -ltnp, docker ps; stop it or give the instance another port",
        numbers=lambda got: {"which": f" {port}" if (port := got["port"] or got["port2"] or got["port3"]) else ""},
    ),
    Failure(
        "mount-failed",
        re.compile(r"error mounting \"?(?P<path>[^\" ]+)|bind source path does not exist: (?P<path2>\S+)"),
        "Docker could not mount {which} into the container",
        "check that the file or directory exists on the host and is what the container expects (a file or a directory)",
        numbers=lambda got: {"which": got["path"] or got["path2"]},
    ),
    Failure(
        "command-not-found",
        re.compile(
            r'exec: "(?P<program>[^"]+)": (?:executable file not found|stat .*no such file)|cannot start (?P<program2>\S+): No such file'
        ),
        "the image has no program {which}",
        "check the instance's image: it must be the engine's own image or one made from it",
        numbers=lambda got: {"which": got["program"] or got["program2"]},
    ),
    Failure(
        "gpu-lock-missing",
        re.compile(r"stoker: cannot open the lock (?P<path>\S+)"),
        "the start-order lock of the GPU, {path}, cannot be opened in the container",
        "deploy again: it makes /var/lib/stoker/locks with one file for each GPU and mounts it at /run/stoker/locks",
    ),
    Failure(
        "disk-full",
        re.compile(r"No space left on device|Not enough free disk space to download"),
        "a disk of the host is full",
        "free space on the host: df -h, docker system df; move models or Docker's data to a larger disk",
    ),
    Failure(
        "permission-denied",
        re.compile(r"PermissionError: \[Errno 13\] Permission denied: '?(?P<path>[^']+)'?"),
        "the engine may not read or write {path}",
        "check owner and mode of the path on the host, and that the mount is not read-only where the engine writes",
    ),
    Failure(
        "open-files-limit",
        re.compile(r"Found ulimit of (?P<limit>\d+) and failed to automatically increase|Too many open files"),
        "the limit of open files in the container is too low",
        "set ulimits nofile 1048576 in the compose file (Stoker's templates do; deploy again)",
        sign=True,
    ),
)
