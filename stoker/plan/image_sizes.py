"""How much room an image takes before it has been pulled: what is known of the engines' images, and what is assumed where that says nothing.

Measured on other releases than the pinned one: a registry says only what is downloaded, and only when asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from stoker.engine.registry import engine_of, engines
from stoker.spec.fleet import Host

GIB = 1 << 30
_GB = 1_000_000_000


@dataclass(frozen=True)
class ImageSize:
    """Bytes of an image. ``assumed``: nobody measured this image; the figure is that of a similar one."""

    unpacked: int
    packed: int  #: as it is downloaded; containerd's image store keeps this beside the unpacked one
    assumed: bool = False


#: Repository -> size of what images are built on that the hosts build.
BASES = {
    # Nobody measured the pinned one. Of torch with its CUDA libraries alone an image had 8 GB (IBM/text-generation-inference pull
    # request 50, 2024-03); the wheels are about half of that.
    "pytorch/pytorch": ImageSize(8 * _GB, 4 * _GB, assumed=True),
}

#: An image of another name is taken to be as large as the publisher's of the same engine; one without an engine, this.
OTHER = ImageSize(_GB, _GB, assumed=True)


def image_size(host: Host, image: str) -> ImageSize:
    """The size that the description names, else the table's, else an assumption."""
    said = host.settings.image_gib.get(_repository(image))
    if said is not None:
        return ImageSize(round(said * GIB), round(said * GIB))
    base = BASES.get(_repository(image))
    if base:
        return base
    for _, engine in engines():
        if "/".join(_repository(image).split("/")[-2:]) == engine.published.repositories[0]:
            return ImageSize(engine.published.unpacked, engine.published.packed)
    used = {instance.engine for _, instance in host.instances() if host.image_of(instance) == image}
    sizes = [ImageSize(one.unpacked, one.packed) for one in (engine_of(name).published for name in used)]
    largest = max(sizes, key=lambda size: size.unpacked, default=OTHER)
    return ImageSize(largest.unpacked, largest.packed, assumed=True)


def _repository(image: str) -> str:
    """``docker.io/vllm/vllm-openai:v1@sha256:...`` -> ``vllm/vllm-openai``."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return (head + slash + last.partition(":")[0]).removeprefix("docker.io/")
