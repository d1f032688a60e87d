"""Container images: there, and able to use this host's cards."""

from __future__ import annotations

import shlex

from stoker.facts import identity
from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.steps.action import Action
from stoker.steps.layout import PROBES
from stoker.steps.pull import pull_script

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

#: Does Ollama compute on this card? It says so when it starts, and goes on with the CPU where it does not. "$0" is the card's UUID.
_OLLAMA_PROBE = """
nvidia-smi -L | grep -F "$0" || { echo "the container does not see the card $0"; exit 1; }
ollama serve >/tmp/log 2>&1 &
i=0
until grep "inference compute" /tmp/log; do
    i=$((i+1))
    test $i -lt 240 || { tail -n 20 /tmp/log; echo "Ollama named no device within a minute"; exit 1; }
    sleep 0.25
done
grep -q "inference compute.*library=.\\?CUDA" /tmp/log && exit 0
grep -i "too old" /tmp/log
echo "Ollama does not use the card: its driver is too old (branch 580 is right), or this image has no CUDA library for it"
exit 1
""".strip()


def actions(host: Host, state: HostState) -> list[Action]:
    """Pull what is missing. A tag that is pinned does not change, so an image that is there is not asked for again."""
    return [
        Action(f"pull {image}", pull_script(image), long=True, image=image)
        for image in host.images()
        if not state.images.get(image)
    ]


def engine_images(host: Host) -> dict[str, str]:
    """Image -> engine, for every image that uses a card."""
    return {
        host.image_of(instance): instance.engine
        for _, instance in host.instances()
        if host.profile_of(instance).uses_cards
    }


def notes(host: Host) -> list[str]:
    """What is not proved, and why: one line for each image."""
    return [
        f"no proof that {image} computes on a card: {reason}"
        for image, reason in {
            host.image_of(instance): host.profile_of(instance).not_applicable for _, instance in host.instances()
        }.items()
        if reason
    ]


def proof_path(engine: str, image: str) -> str:
    return f"{PROBES}/{engine}-{image.translate(str.maketrans('/:@', '___'))}"


def probes(host: Host, state: HostState) -> list[Action]:
    """Prove once for each image, driver and card that a container can compute on it."""
    found = []
    for image, engine in engine_images(host).items():
        used = {name for _, i in host.instances() if host.image_of(i) == image for name in i.gpus}
        cards = identity.chosen(state, used)
        path = proof_path(engine, image)
        proven = _proven(state, image, path)
        lacking = [gpu for gpu in cards if gpu.uuid not in proven]
        if not lacking:
            continue
        runs = []
        for gpu in lacking:
            card = (
                f"--device nvidia.com/gpu={gpu.uuid}"
                if host.settings.docker.gpus_by_cdi
                else f"--gpus device={gpu.uuid}"
            )
            run = f"docker run --rm --network none {card}"
            if engine == "vllm":
                runs.append(f"{run} --entrypoint python3 {shlex.quote(image)} -c {shlex.quote(_TORCH_PROBE)}")
            else:
                runs.append(f"{run} --entrypoint sh {shlex.quote(image)} -c {shlex.quote(_OLLAMA_PROBE)} {gpu.uuid}")
        # What was proven before stays: a run with --only looks at some of the cards.
        uuids = " ".join([*proven, *(gpu.uuid for gpu in lacking)])
        write = f"id=$(docker image inspect -f '{{{{.Id}}}}' {shlex.quote(image)}) && printf '%s\\n' \"$id {state.driver} {uuids}\" >{shlex.quote(path)}"
        names = ", ".join(sorted({gpu.name for gpu in lacking}))
        found.append(Action(f"prove that {image} computes on {len(lacking)} x {names}", " && ".join([*runs, write])))
    return found


def _proven(state: HostState, image: str, path: str) -> list[str]:
    """UUIDs of the cards on which this very image has computed with this driver: ``image-id driver uuid...``."""
    words = state.contents.get(path, "").split()
    return words[2:] if words[:2] == [state.images.get(image), state.driver] else []
