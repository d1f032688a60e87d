"""Container images: there, and able to use this host's cards."""

from __future__ import annotations

import shlex

from stoker.facts import identity
from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.spec.own_images import own_name
from stoker.steps import build
from stoker.steps.action import Action
from stoker.steps.layout import PROBES
from stoker.steps.pull import pull_script


def actions(host: Host, state: HostState) -> list[Action]:
    """Pull what is missing, build what is ours. A tag that is pinned does not change, so an image that is there is not asked for again."""
    pulls = [
        Action(f"pull {image}", pull_script(image), long=True, image=image)
        for image in host.images()
        if not own_name(image) and not state.images.get(image)
    ]
    return [*pulls, *build.actions(host, state)]


def proofs(host: Host) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Image -> engine and how it proves itself, for every image that uses a card."""
    return {
        host.image_of(instance): (instance.engine, host.profile_of(instance).card_proof)
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
    for image, (engine, (program, *arguments)) in proofs(host).items():
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
            words = [gpu.uuid if word == "{uuid}" else word for word in arguments]
            runs.append(f"{run} --entrypoint {shlex.join([program, image, *words])}")
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
