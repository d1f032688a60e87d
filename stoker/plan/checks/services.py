"""Services elsewhere that gateways pass requests to: their keys are at hand, and the way there is direct."""

from __future__ import annotations

from stoker.plan.look import Look, Reason, Reasons
from stoker.spec.external import trouble_with
from stoker.steps import service_keys


def check(look: Look) -> Reasons:
    for path, variable in service_keys.wanted(look.host).items():
        trouble = trouble_with(variable, look.environment)
        if trouble == "missing" and path not in look.state.files:
            yield Reason(
                f"{path} is not there yet, and the environment of this machine has no {variable}",
                f"export {variable}=..., or remove `key` from `external` if the service needs none",
                "service-key",
            )
        elif trouble == "unusable":
            yield Reason(
                f"{variable} holds something that is no key: it has signs that no bearer token has, a space or a line end perhaps",
                f"export {variable} with the key alone",
                "service-key",
            )
    yield from _proxied(look)


def _proxied(look: Look) -> Reasons:
    proxy = look.host.settings.proxy
    for stack in look.host.stacks if proxy.http or proxy.https else ():
        for pool, external in stack.gateway.externals if stack.gateway else ():
            yield Reason(
                f"the gateway asks {external.url} (pool {pool.name}) directly and not through `proxy`, which nginx cannot use",
                "",
                "service-key",
                "note",
            )
