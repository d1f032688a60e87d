"""How a container proves on a host that it computes on a card: ``docker run`` arguments, the entry point first, then what follows the image.

What it prints is shown where it fails; the exit status decides. ``{uuid}`` stands for the card.
"""

from __future__ import annotations

_TORCH = """
import sys, torch
major, minor = torch.cuda.get_device_capability()
have = torch.cuda.get_arch_list()
print(torch.__version__, torch.cuda.get_device_name(), have)
def runs(arch):
    # Machine code runs on later cards of the same generation (sm_86 on 8.9), compute_ is compiled by the driver.
    kind, _, number = arch.partition("_")
    if not number.isdigit():
        return False
    if kind == "sm":
        return int(number) // 10 == major and int(number) % 10 <= minor
    return int(number) <= 10 * major + minor
if not any(map(runs, have)):
    sys.exit(f"this image has no code for compute capability {major}.{minor}; it was built for {', '.join(have)}")
print(torch.ones(4, device="cuda", dtype=torch.half).sum())
""".strip()

#: For images with torch: is there code for this card, and does it compute?
TORCH = ("python3", "-c", _TORCH)
