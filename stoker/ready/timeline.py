"""When an instance entered each phase of its present start."""

from __future__ import annotations

from stoker.ready.phase import Phase

#: What a start goes through once it has its turn, and before it answers.
_OWN = range(Phase.STARTING, Phase.READY)


class Timeline:
    """Times are seconds of the watch's clock."""

    def __init__(self, begun: float, whole: bool) -> None:
        """`begun` is when the start began; `whole`: it is seen from then on, not found somewhere in its middle."""
        self._begun: float | None = begun
        self._entered: dict[Phase, float] = {}
        self.whole = whole

    def enter(self, phase: Phase, now: float) -> None:
        """Note that it is in this phase now. What came before its turn on the GPU does not count."""
        if phase not in _OWN:
            self._entered, self._begun, self.whole = {}, None, True
        elif phase not in self._entered:
            self._entered[phase] = now if self._entered or self._begun is None else self._begun

    def in_phase(self, phase: Phase, now: float) -> float:
        return now - self._entered.get(phase, now)

    def seconds(self, end: float) -> dict[Phase, float]:
        """How long each phase took, in their order; a phase ends where the next that was seen begins."""
        steps = sorted(self._entered.items(), key=lambda step: step[1])
        ends = [*(entered for _, entered in steps[1:]), end]
        return {phase: until - entered for (phase, entered), until in zip(steps, ends, strict=False)}
