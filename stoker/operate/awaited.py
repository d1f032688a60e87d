"""What a wait is for, by what was found on a host; or why nothing can be waited for there. Pure."""

from __future__ import annotations

from collections.abc import Collection

from stoker.facts.state import HostState
from stoker.models.card import Cards
from stoker.ready.target import Target
from stoker.smoke.ssh import AccessError
from stoker.spec.fleet import Host
from stoker.spec.gpu_name import label
from stoker.steps.informed import informed
from stoker.steps.stack import uuids
from stoker.steps.waiting import unproven


def awaited(
    host: Host, state: HostState, cards: Cards, names: Collection[str], everything: bool = False
) -> list[Target]:
    """The named instances that have not answered since their start; ``everything``: all of them, for they are started anew.

    Raises AccessError where Docker does not answer or cards are not there: no engine would come up.
    """
    if state.docker_error:
        raise AccessError(f"Docker does not answer: {state.docker_error}", "see systemctl status docker there")
    wanted = dict.fromkeys(name for _, instance in host.instances() for name in instance.gpus)
    if wanted and state.gpu_error:
        raise AccessError(f"its cards are gone: {state.gpu_error}", "see dmesg | grep -i -e nvrm -e xid there")
    absent = [label(name) for name in wanted if name not in uuids(state)]
    if absent:
        raise AccessError(f"{', '.join(absent)} is not there", "compare with nvidia-smi -L there")
    return informed(unproven(host, state, names, everything), host, cards, state)
