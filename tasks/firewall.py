"""Engine ports that only the gateways may use."""

from pyinfra import host

from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import firewall


def engine_ports() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="Engine ports",
        run=run,
        # With some of the instances alone the host as a whole is not brought to its description.
        step=lambda state: [] if run.only else firewall.actions(run.fleet, described, state),
        reloads=True,
        needs_gpus=False,
    )
