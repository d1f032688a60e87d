"""The machine's own memory, where engines use it."""

from __future__ import annotations

from stoker.plan.look import Look, Reason, Reasons

#: Left to the system and Docker beside engines that use the machine's own memory.
SYSTEM_MEMORY_GIB = 1.0


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    """Engines without a card take the machine's own memory, all of them together."""
    users = {
        instance.name: (memory, memory.of(instance.environment))
        for _, instance in host.instances()
        if (memory := host.profile_of(instance).host_memory)
    }
    needs = {name: gib for name, (_, gib) in users.items()}
    sure = not any(memory.estimated for memory, _ in users.values())
    need, have = sum(needs.values()) + SYSTEM_MEMORY_GIB, state.memory_kib / (1 << 20)
    if needs and state.memory_kib and have < need:
        each = ", ".join(f"{name} {gib:.1f}" for name, gib in needs.items())
        yield Reason(
            f"it has {have:.1f} GiB of memory, its engines need {need:.1f} ({each}, the system {SYSTEM_MEMORY_GIB:.1f}): "
            + (
                "they are CPU builds"
                if sure
                else "they work on the processor, and what a model takes there is an estimate"
            ),
            "describe fewer instances, or lower the cache of each by its environment"
            if sure
            else "describe fewer instances, or smaller models",
            "host-memory",
            "refuse" if sure else "warn",
        )
