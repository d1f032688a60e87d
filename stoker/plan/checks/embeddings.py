"""Another embedding model than the one before: what is stored no longer fits."""

from __future__ import annotations

from stoker.plan import embeddings
from stoker.plan.look import Look, Reason, Reasons
from stoker.render.compose import stack_directory


def check(look: Look) -> Reasons:
    for stack in look.host.stacks:
        before = embeddings.noted(look.state.contents.get(f"{stack_directory(look.host, stack)}/{embeddings.NOTE}", ""))
        said = embeddings.change(before, embeddings.described(look.host, stack))
        if said:
            yield Reason(
                said,
                "compute what your application has stored anew after the deploy; or keep the old model under another name beside it",
                "embedding-model-changed",
                "warn",
            )
