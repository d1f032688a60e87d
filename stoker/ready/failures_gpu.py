"""Failures of driver, container toolkit and card, under any engine.

Texts: nvidia-container-toolkit 1.13 to 1.20, NVML and CUDA of drivers 470 to 580, PyTorch 2.1 to 2.14.
"""

from __future__ import annotations

import re

from stoker.ready.failure import Failure

_LAST = "driver branch 580 (the last for V100 and P40)"

GPU_FAILURES: tuple[Failure, ...] = (
    Failure(
        id="no-nvidia-runtime",
        pattern=re.compile(
            r'could not select device driver "?(?:nvidia)?"? ?with capabilities|unknown or invalid runtime name: nvidia'
        ),
        cause="Docker has no NVIDIA runtime: the container toolkit is missing, or dockerd was not restarted after it was installed",
        remedy="deploy again, which installs the toolkit and configures Docker; remove Docker from snap if it is there",
        source="NVIDIA/nvidia-docker#1034, #1642; infiniflow/ragflow#9573",
    ),
    Failure(
        id="no-cdi-specification",
        pattern=re.compile(
            r"failed to discover GPU vendor from CDI|no known GPU vendor found|could not select device driver \"?cdi\"?|"
            r"unresolvable CDI de\s*vices? runtime\.nvidia\.com/"
        ),
        cause="Docker looks for GPUs by CDI and the host has no CDI specification",
        remedy="on the host: systemctl restart nvidia-cdi-refresh, or nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml; its error says more",
        source="Docker 29 (fireshare#689); NVIDIA/nvidia-container-toolkit#434, #1537",
    ),
    Failure(
        id="gpu-not-in-cdi",
        pattern=re.compile(r"unresolvable CDI devices? (?P<device>\S+)|device error: (?P<device2>\S+): unknown device"),
        cause="the GPU {which} is not in the host's CDI specification: the card is gone, was exchanged, or the specification is old",
        remedy="compare nvidia-smi -L with nvidia-ctk cdi list on the host, then systemctl restart nvidia-cdi-refresh; deploy again if a card was exchanged",
        source="moby/moby#47633; NVIDIA/nvidia-container-toolkit#434",
        numbers=lambda got, _: {"which": (got["device"] or got["device2"]).rstrip(".,:")},
    ),
    Failure(
        id="driver-not-loaded",
        pattern=re.compile(
            r"nvml error: driver not loaded|couldn't communicate with the NVIDIA driver|load library failed: libnvidia-ml"
        ),
        cause="the NVIDIA kernel module is not loaded (a new kernel without a module built for it, or a reboot is pending), or there is no driver",
        remedy="run nvidia-smi on the host; rebuild the module (dkms autoinstall) or reboot",
        source="NVIDIA/libnvidia-container: nvc.c; nvidia-smi of drivers 470 to 580",
    ),
    Failure(
        id="driver-too-old-for-image",
        pattern=re.compile(r"unsatisfied condition: cuda\s*>=\s*(?P<need>[\d.]+\d)"),
        cause="the image wants a driver for CUDA {need} and the host's driver is older",
        remedy=f"install {_LAST}; within CUDA 12, NVIDIA_DISABLE_REQUIRE=1 in the instance's environment also helps",
        source="vllm#5635; theroyallab/tabbyAPI#324; microsoft/VibeVoice#352",
    ),
    Failure(
        id="driver-too-old-for-image",
        pattern=re.compile(
            r"PTX was compiled with an unsupported toolchain|forward compatibility was attempted on non supported HW"
        ),
        cause="the image's CUDA is newer than the host's driver can run",
        remedy=f"install {_LAST}, or an older image",
        source="CUDA errors 222 and 804, in reports on vLLM and llama.cpp",
    ),
    Failure(
        id="driver-too-old-for-torch",
        pattern=re.compile(r"The NVIDIA driver on your system is too old \(found version (?P<found>\d+)\)"),
        cause="PyTorch in the image needs a newer driver than the host's, which knows CUDA {which}",
        remedy="install driver branch 580, or use an older image",
        source="PyTorch 2.1 to 2.14: c10/cuda/CUDAFunctions.cpp; vllm#1772",
        numbers=lambda got, _: {"which": f"{int(got['found']) // 1000}.{int(got['found']) % 1000 // 10}"},
    ),
    Failure(
        id="driver-too-old-for-torch",
        pattern=re.compile(r"CUDA driver version is insufficient for CUDA runtime version"),
        cause="the image's CUDA needs a newer driver than the host's",
        remedy="install driver branch 580, or use an older image",
        source="CUDA error 35; ollama#16415",
    ),
    Failure(
        id="driver-library-mismatch",
        pattern=re.compile(r"Driver/library version mismatch", re.IGNORECASE),
        cause="the driver's libraries were upgraded while the old kernel module is still loaded",
        remedy="reboot the host; hold the driver packages (apt-mark hold) so that it does not happen again",
        source="NVIDIA/nvidia-container-toolkit#171, #394",
    ),
    Failure(
        id="gpu-lost-in-container",
        pattern=re.compile(r"Failed to initialize NVML: Unknown Error"),
        cause="the container lost its GPU, usually after a systemctl daemon-reload under the systemd cgroup driver",
        remedy="docker restart the container and deploy again; request GPUs by CDI (Stoker's default), which survives a daemon-reload",
        source="NVIDIA/nvidia-container-toolkit: troubleshooting",
    ),
    Failure(
        id="gpu-fabric",
        pattern=re.compile(r"CUDA error: system not yet initialized|system not yet initialized"),
        cause="the fabric that joins the GPUs is not up (CUDA error 802)",
        remedy="on the host: systemctl status nvidia-fabricmanager; its version must be the driver's",
        source="CUDA error 802, on hosts with NVSwitch",
    ),
    Failure(
        id="gpu-fault",
        pattern=re.compile(
            r"NVRM: Xid \(|GPU is lost|fallen off the bus|uncorrectable ECC error|"
            r"CUDA error: (?:unspecified launch failure|an illegal memory access|an illegal instruction|misaligned address|unknown error)|"
            r"CUDA-capable device\(s\) is/are busy or unavailable|CUDA unknown error"
        ),
        cause="the GPU failed or is in a bad state, or a kernel wrote where it must not",
        remedy="look for Xid in the host's kernel log (dmesg | grep -i xid) and at nvidia-smi -q; a reboot clears a hung card, a card with ECC errors needs exchange; "
        "without an Xid it is the engine's fault: leave out what is not default (attention-backend, speculative decoding)",
        source="vllm#28714, #39373; NVIDIA's Xid catalogue",
    ),
    Failure(
        id="no-gpu-in-container",
        pattern=re.compile(
            r"No CUDA GPUs are available|Failed to infer device type|no CUDA-capable device is detected|CUDA driver initialization failed|"
            r"libcuda\.so\.1: cannot open shared object file"
        ),
        cause="the engine sees no GPU inside its container",
        remedy="run nvidia-smi -L on the host and in the container (docker exec); check the instance's gpus and the CDI specification",
        source="PyTorch; vLLM 0.8.5 to 0.33: config/device.py; vllm#7514",
    ),
)
