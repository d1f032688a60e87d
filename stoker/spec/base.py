"""The types that every part of the description is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


class Spec(BaseModel):
    """A part of the description: unknown fields are errors, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _pinned(image: str) -> str:
    name, _, digest = image.partition("@")
    if digest:
        return image
    tag = name.rpartition("/")[2].partition(":")[2]
    if not tag:
        raise ValueError(f"the image has no tag, which means `latest`; write {image}:VERSION")
    if tag == "latest" or tag.startswith("latest-"):
        raise ValueError("`latest` changes under you; name a version, for instance the default in group_data/all.py")
    return image


#: A TCP port that a service can be published on.
Port = Annotated[int, Field(ge=1, le=65535)]

#: Docker's rule for container names (moby ``RestrictedNamePattern``), without what a shell would trip over.
ContainerName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$")]

#: Compose's rule for project names (compose-spec ``name``).
ProjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

#: Compose's rule for service names; lower case only so that they are valid host names too.
ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]

#: The name under which a model is asked for in requests: as in OpenAI's ``model`` field.
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,95}$")]

#: A plain file name, no directory.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]

#: An absolute path without ``..`` and without anything that needs quoting.
AbsolutePath = Annotated[
    str, StringConstraints(pattern=r"^(/[A-Za-z0-9_@%+=.-]*[A-Za-z0-9_@%+=-][A-Za-z0-9_@%+=.-]*)+$")
]

#: An image reference with a tag other than ``latest``, or a digest.
Image = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-zA-Z0-9_.:/@-]*$"), AfterValidator(_pinned)]

#: http or https, without a trailing slash: paths are appended to it.
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*[^\s?#/])?$")]
