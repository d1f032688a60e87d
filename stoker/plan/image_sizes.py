"""How much room an image takes before it has been pulled: a table, and what is assumed where it says nothing."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.spec.fleet import Host

GIB = 1 << 30
_GB = 1_000_000_000


@dataclass(frozen=True)
class ImageSize:
    """Bytes of an image. ``assumed``: nobody measured this image; the figure is that of a similar one."""

    unpacked: int
    packed: int  #: as it is downloaded; containerd's image store keeps this beside the unpacked one
    assumed: bool = False


#: Repository -> size. Measured on other releases than the pinned one: a registry says only what is downloaded, and only when asked.
MEASURED = {
    # `docker images` says 28.6 GB of v0.12 (vllm-project/vllm pull request 22377, update of 2025-12-10); about 12 GB are
    # downloaded (vllm-project/vllm issue 27154, 2025-10).
    "vllm/vllm-openai": ImageSize(28_600_000_000, 12 * _GB),
    # 3.5 GB (stratosphereips/stratocyberlab issue 57, 2026-09). `du` in the image said 3302 MB of 0.6 (ollama/ollama issue
    # 9982, 2025-03). How much of it is downloaded is not known: it is taken to be as much.
    "ollama/ollama": ImageSize(3_500_000_000, 3_500_000_000),
}

#: An image of another name is taken to be as large as the publisher's of the same engine; one without an engine, this.
OTHER = ImageSize(_GB, _GB, assumed=True)

_PUBLISHERS = {"vllm": "vllm/vllm-openai", "ollama": "ollama/ollama"}


def image_size(host: Host, image: str) -> ImageSize:
    """The size that the description names, else the table's, else an assumption."""
    said = host.settings.image_gib.get(_repository(image))
    if said is not None:
        return ImageSize(round(said * GIB), round(said * GIB))
    measured = MEASURED.get(_repository(image))
    if measured:
        return measured
    engines = {instance.engine for _, instance in host.instances() if host.image_of(instance) == image}
    sizes = [MEASURED[_PUBLISHERS[engine]] for engine in engines]
    largest = max(sizes, key=lambda size: size.unpacked, default=OTHER)
    return ImageSize(largest.unpacked, largest.packed, assumed=True)


def _repository(image: str) -> str:
    """``docker.io/vllm/vllm-openai:v1@sha256:...`` -> ``vllm/vllm-openai``."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return (head + slash + last.partition(":")[0]).removeprefix("docker.io/")
