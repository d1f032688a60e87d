"""Whether the cards hold what is described on them, by the memory plan. A tight fit that starts for certain is `stoker plan`'s to tell."""

from __future__ import annotations

from stoker.plan.finding import Severity
from stoker.plan.look import Look, Reason, Reasons
from stoker.plan.memory.predict import Prediction
from stoker.plan.memory.verdict import Finding
from stoker.plan.memory_plan import HostPlan, plan_host


def check(look: Look) -> Reasons:
    if look.cards is None or look.state.gpu_error:
        return
    plan = plan_host(look.host, look.cards, look.state)
    yield from _instances(plan)
    for card in plan.cards:
        for finding in card.verdict.findings:
            if finding.level != "fit":
                yield Reason(
                    f"{card.label} ({card.name}): {finding.text}",
                    " or ".join(finding.remedies) or "move an instance to another card",
                    "plan-memory",
                    finding.level,
                )


def _instances(plan: HostPlan) -> Reasons:
    told: dict[Finding, list[str]] = {}
    for one in plan.instances:
        for finding in one.verdict.findings if one.verdict else ():
            if finding.level == "refuse" or (finding.level == "warn" and one.prediction and not starts(one.prediction)):
                told.setdefault(finding, []).append(one.name)
    for finding, names in told.items():
        severity: Severity = "warn" if finding.level == "warn" else "refuse"
        remedy = " or ".join(finding.remedies) or "use a smaller model, or a card with more memory"
        yield Reason(finding.text, remedy, "plan-memory", severity, ", ".join(names))


def starts(one: Prediction) -> bool:
    """For certain, also on a start that is left with little."""
    return one.has_cache and one.least_available >= one.needed
