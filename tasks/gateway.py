"""The entry points run the configuration that stands on the disk, with a certificate where they speak HTTPS."""

import os

from pyinfra import host

from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import acme, gateway, service_keys


def configuration() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="Gateway configuration",
        run=run,
        step=lambda state: [
            action
            for stack in described.stacks
            if not run.only
            for action in gateway.actions(run.fleet, described, stack, state)
        ],
    )


def first_certificates() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="First certificates",
        run=run,
        step=lambda state: [action for stack in described.stacks for action in acme.placeholders(stack, state)],
    )


def keys_of_services() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="Keys of services",
        run=run,
        step=lambda state: [] if run.only else service_keys.actions(described, state, os.environ),
    )


def certificates() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="Certificates",
        run=run,
        step=lambda state: [
            action for stack in described.stacks if not run.only for action in acme.issue(described, stack, state)
        ],
    )
