"""Model directories that a person filled: whole, before anything is started with them."""

from __future__ import annotations

from stoker.plan.local_models import described, problems
from stoker.plan.look import Look, Reason, Reasons


def check(look: Look) -> Reasons:
    for directory, model in described(look.host).items():
        wrong = list(problems(directory, model, look.state))
        if wrong:
            users = ", ".join(
                instance.name
                for _, instance in look.host.instances()
                if look.host.settings.models.get(instance.model) is model
            )
            yield Reason(
                f"{directory}: {'; '.join(wrong)}",
                "copy the model's files there (all of the repository but originals in other formats), "
                "or give the model its `repository`: a deploy then downloads and verifies it",
                "local-model",
                "refuse",
                users,
            )
