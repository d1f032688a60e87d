"""Container images: there, and able to use this host's cards."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from stoker.facts.state import Gpu, HostState
from stoker.spec.fleet import Host
from stoker.steps.action import Action
from stoker.steps.layout import PROBES

#: Does this image have code for this card, and does it compute? Prints what it found; the exit status decides.
_TORCH_PROBE = """
import sys, torch
major, minor = torch.cuda.get_device_capability()
have = torch.cuda.get_arch_list()
print(torch.__version__, torch.cuda.get_device_name(), have)
def runs(arch):
    # Machine code runs on later cards of the same generation (sm_86 on 8.9), compute_ is compiled by the driver.
    kind, _, number = arch.partition("_")
    if not number.isdigit():
        return False
    if kind == "sm":
        return int(number) // 10 == major and int(number) % 10 <= minor
    return int(number) <= 10 * major + minor
if not any(map(runs, have)):
    sys.exit(f"this image has no code for compute capability {major}.{minor}; it was built for {', '.join(have)}")
print(torch.ones(4, device="cuda", dtype=torch.half).sum())
""".strip()


def actions(host: Host, state: HostState) -> list[Action]:
    """Pull what is missing. A tag that is pinned does not change, so an image that is there is not asked for again."""
    return [
        Action(f"pull {image}", f"docker pull {shlex.quote(image)}", long=True)
        for image in host.images()
        if not state.images.get(image)
    ]


def engine_images(host: Host) -> dict[str, str]:
    """Image -> engine, for every image that uses a card."""
    return {host.image_of(instance): instance.engine for _, instance in host.instances()}


def proof_path(engine: str, image: str) -> str:
    return f"{PROBES}/{engine}-{image.translate(str.maketrans('/:@', '___'))}"


def probes(host: Host, state: HostState) -> list[Action]:
    """Prove once for each image, driver and set of cards that a container can compute on them."""
    found = []
    for image, engine in engine_images(host).items():
        cards = [
            gpu
            for gpu in state.gpus
            if any(gpu.index in i.gpus for _, i in host.instances() if host.image_of(i) == image)
        ]
        path = proof_path(engine, image)
        if state.contents.get(
            path, ""
        ).strip() == f"{state.images.get(image)} {_hardware(state, cards)}" and state.images.get(image):
            continue
        runs = []
        for gpu in cards:
            card = (
                f"--device nvidia.com/gpu={gpu.uuid}"
                if host.settings.docker.gpus_by_cdi
                else f"--gpus device={gpu.uuid}"
            )
            run = f"docker run --rm --network none {card}"
            if engine == "vllm":
                runs.append(f"{run} --entrypoint python3 {shlex.quote(image)} -c {shlex.quote(_TORCH_PROBE)}")
            else:
                runs.append(f"{run} --entrypoint nvidia-smi {shlex.quote(image)} -L | grep -F {gpu.uuid}")
        write = f"id=$(docker image inspect -f '{{{{.Id}}}}' {shlex.quote(image)}) && printf '%s\\n' \"$id {_hardware(state, cards)}\" >{shlex.quote(path)}"
        names = ", ".join(sorted({gpu.name for gpu in cards}))
        found.append(Action(f"prove that {image} computes on {len(cards)} x {names}", " && ".join([*runs, write])))
    return found


def _hardware(state: HostState, cards: Iterable[Gpu]) -> str:
    return f"{state.driver} {' '.join(gpu.uuid for gpu in cards)}"
