"""The types that every part of the description is made of."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from stoker.spec.own_images import refuse_unknown


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


#: Pattern -> the same in words, for messages.
FORMS: dict[str, str] = {}


def form(pattern: str, words: str) -> StringConstraints:
    """Text of a certain form; ``words`` complete the sentence "write ..."."""
    FORMS[pattern] = words
    return StringConstraints(pattern=pattern)


_NAME = "letters, digits, and _ . - after the first sign"

#: A TCP port that a service can be published on.
Port = Annotated[int, Field(ge=1, le=65535)]

#: Docker's rule for container names (moby ``RestrictedNamePattern``), without what a shell would trip over.
ContainerName = Annotated[str, form(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$", f"at most 63 signs: {_NAME}")]

#: Compose's rule for project names (compose-spec ``name``).
ProjectName = Annotated[
    str,
    form(r"^[a-z0-9][a-z0-9_-]{0,62}$", "at most 63 signs: lower-case letters, digits, and _ - after the first sign"),
]

#: Compose's rule for service names; lower case only so that they are valid host names too.
ServiceName = Annotated[
    str,
    form(
        r"^[a-z0-9][a-z0-9_.-]{0,62}$", "at most 63 signs: lower-case letters, digits, and _ . - after the first sign"
    ),
]

#: The name under which a model is asked for in requests: as in OpenAI's ``model`` field.
ModelName = Annotated[
    str,
    form(
        r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,95}$", "at most 96 signs: letters, digits, and . _ : / - after the first sign"
    ),
]

#: A plain file name, no directory.
FileName = Annotated[str, form(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$", f"a file name without a directory: {_NAME}")]

#: An absolute path without ``..`` and without anything that needs quoting.
AbsolutePath = Annotated[
    str,
    form(
        r"^(/[A-Za-z0-9_@%+=.-]*[A-Za-z0-9_@%+=-][A-Za-z0-9_@%+=.-]*)+$",
        "a path that begins with / and has no spaces, no .. and no / at its end",
    ),
]

#: An image reference with a tag other than ``latest``, or a digest.
Image = Annotated[
    str,
    form(r"^[a-z0-9][a-zA-Z0-9_.:/@-]*$", "an image with its tag, for instance nginx:1.30.6-alpine"),
    AfterValidator(_pinned),
    AfterValidator(refuse_unknown),
]

#: http or https, without a trailing slash: paths are appended to it.
Url = Annotated[
    str,
    form(
        r"^https?://[^\s/?#@]+(/[^\s?#]*[^\s?#/])?$",
        "an address that begins with http:// or https://, without / at its end",
    ),
]

#: Name of an environment variable.
EnvironmentName = Annotated[str, form(r"^[A-Za-z_][A-Za-z0-9_]*$", "a name of letters, digits and _")]


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        try:
            network = ipaddress.ip_interface(text).network
        except ValueError:
            raise ValueError("this is no IP network; write for instance 192.168.31.0/24 or fd00:31::/64") from None
        raise ValueError(f"the address has bits beyond its prefix; write {network}, or one address alone") from None
    return text


#: An IPv4 or IPv6 network, or one address.
Network = Annotated[str, AfterValidator(_network)]
