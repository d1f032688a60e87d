"""Stand-in for torch in the images of doubles: only what a probe asks, answered from the simulated driver."""

from __future__ import annotations

from torch import cuda
from torch.build import VERSION

__version__ = VERSION

half = float16 = "torch.float16"
bfloat16 = "torch.bfloat16"
float32 = "torch.float32"


class Tensor:
    """A vector of one value, enough to be summed and printed."""

    def __init__(self, value: float, count: int, device: str, dtype: str) -> None:
        self.value, self.count, self.device, self.dtype = value, count, device, dtype

    def sum(self) -> Tensor:
        return Tensor(self.value * self.count, 1, self.device, self.dtype)

    def item(self) -> float:
        return self.value

    def __repr__(self) -> str:
        shown = f"{self.value:g}." if float(self.value).is_integer() else f"{self.value:g}"
        inner = shown if self.count == 1 else "[" + ", ".join([shown] * self.count) + "]"
        where = f", device='{self.device}:0'" if self.device == "cuda" else ""
        kind = f", dtype={self.dtype}" if self.dtype != float32 else ""
        return f"tensor({inner}{where}{kind})"


def ones(count: int, device: str = "cpu", dtype: str = float32) -> Tensor:
    """A tensor of ones. Raises as torch does when the card has no code in this build or there is no card."""
    if device.startswith("cuda"):
        cuda.require_kernel_image()
    return Tensor(1.0, count, device.split(":")[0], dtype)
