"""One row of the table: when it holds, and what it says then."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stoker.plan.compatibility.image import EngineVersion, release

Verdict = Literal["refuse", "warn", "note"]
Capability = tuple[int, int]
Numbers = tuple[int, ...]
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Question:
    """Will this image run this model on this card? What is unknown stays empty, and no row concludes anything from it."""

    engine: str
    image: str
    card: str
    compute_capability: Capability | None
    driver: str = ""
    kernel_module: Literal["proprietary", "open", ""] = ""
    #: The engine's arguments as in group_data: without dashes in front, with - between words.
    arguments: Mapping[str, Value] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    model: str = ""  #: its name or repository
    quantization: str = ""  #: quant_method of config.json's quantization_config
    quantization_bits: int | None = None
    torch_dtype: str = ""  #: of config.json
    model_type: str = ""  #: of config.json

    @property
    def method(self) -> str:
        """The quantisation that is asked for, else the checkpoint's own."""
        return str(self.arguments.get("quantization") or self.quantization)

    @property
    def dtype(self) -> str:
        """The argument's, ``auto`` when there is none."""
        return str(self.arguments.get("dtype") or "auto")

    @property
    def attention_backend(self) -> str:
        return str(self.arguments.get("attention-backend") or self.environment.get("VLLM_ATTENTION_BACKEND") or "")

    @property
    def branch(self) -> Numbers | None:
        """Major version of the driver."""
        found = re.match(r"\d+", self.driver)
        return (int(found.group()),) if found else None


@dataclass(frozen=True)
class Row:
    """A fact. All its conditions have to hold; one that is left out always does.

    Ranges are from (inclusive) to below (exclusive). ``reason`` and ``remedy`` may hold {card}, {capability}, {image}, {version},
    {driver}, {value} (of the argument or variable) and {assumed}.
    """

    name: str  #: unique; tests and documentation speak of it
    what: str  #: the condition in words, for docs/compatibility.md
    verdict: Verdict
    reason: str
    remedy: str
    source: str
    anchor: str
    engine: str | None = None
    version_from: str = ""
    version_below: str = ""
    capability_from: Capability | None = None
    capability_below: Capability | None = None
    driver_from: Numbers | None = None  #: branch
    driver_below: Numbers | None = None
    cuda: int | None = None
    kernel_module: str = ""
    method: tuple[str, ...] = ()  #: effective quantisation
    bits: tuple[int | None, ...] = ()  #: None among them: not known
    dtype: tuple[str, ...] = ()
    torch_dtype: str = ""
    backend: str = ""  #: beginning of the attention backend's name
    argument: str = ""
    environment: str = ""
    values: tuple[Value, ...] = ()  #: of the argument; empty: any but None
    model_types: tuple[str, ...] = ()  #: of config.json
    models: tuple[str, ...] = ()  #: parts of the model's name
    assumed: bool = False  #: the version is an assumption
    fork: bool = False  #: not the publisher's image

    def certain(self, version: EngineVersion) -> bool:
        """Whether it is true of that image, and not only of the release that its name makes one think of."""
        by_version = bool(self.version_from or self.version_below or self.cuda)
        if version.fork and (by_version or self.engine):
            return False
        return not (by_version and version.assumed) or version.newest

    def holds(self, question: Question, version: EngineVersion) -> bool:
        return (
            self.engine in (None, question.engine)
            and self._image_fits(version)
            and _within(question.compute_capability, self.capability_from, self.capability_below)
            and _within(question.branch, self.driver_from, self.driver_below)
            and self.kernel_module in ("", question.kernel_module)
            and self._model_fits(question)
            and self._settings_fit(question)
        )

    def value(self, question: Question) -> Value:
        return question.arguments.get(self.argument, question.environment.get(self.environment))

    def _image_fits(self, version: EngineVersion) -> bool:
        low = release(self.version_from) if self.version_from else None
        high = release(self.version_below) if self.version_below else None
        return (
            _within(release(version.version), low, high)
            and self.cuda in (None, version.cuda)
            and (not self.assumed or bool(version.assumed))
            and (not self.fork or version.fork)
        )

    def _model_fits(self, question: Question) -> bool:
        return (
            (not self.method or question.method in self.method)
            and (not self.bits or question.quantization_bits in self.bits)
            and (not self.dtype or question.dtype in self.dtype)
            and self.torch_dtype in ("", question.torch_dtype)
            and (not self.model_types or question.model_type in self.model_types)
            and (not self.models or any(part in question.model.lower() for part in self.models))
        )

    def _settings_fit(self, question: Question) -> bool:
        value = self.value(question)
        return question.attention_backend.upper().startswith(self.backend) and (
            not (self.argument or self.environment)
            or (value in self.values if self.values else value is not None and value is not False)
        )


def _within(value: Numbers | None, low: Numbers | None, high: Numbers | None) -> bool:
    """Whether a value lies in a range; an unknown one only in a range without ends."""
    if low is None and high is None:
        return True
    return value is not None and (low is None or value >= low) and (high is None or value < high)
