"""An OpenAI-compatible service elsewhere that serves a pool in the place of instances."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from stoker.spec.base import EnvironmentName, ModelName, Spec, Url, form

#: What a service calls its model; other people's names have more forms than ours.
ServiceModel = Annotated[
    str, form(r"^[A-Za-z0-9@][A-Za-z0-9@._:/+-]{0,199}$", "the name that the service's documentation gives the model")
]

#: A name or an IPv4 address, and a port; a path below it. What nginx reads nothing else in.
_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_IPV4 = re.compile(r"[0-9]+(?:\.[0-9]+){3}")

#: A bearer token as RFC 6750 (2.1) has it, and the colon that some services use.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/:-]+=*")

#: A request goes through two of nginx's internal redirects a try, and nginx allows ten.
MOST_RETRIES = 4


class External(Spec):
    """Where the service is, and what it calls the model."""

    #: As clients of OpenAI's library have it in ``base_url``; what follows ``/v1`` in our own paths is appended.
    url: Url
    #: Environment variable of the control machine that holds the service's key; None: the service needs none.
    key: EnvironmentName | None = None
    model: ServiceModel
    #: Further names under which clients may ask for it.
    aliases: tuple[ModelName, ...] = ()
    #: Length of the vectors, for the smoke checks.
    dimensions: int | None = Field(default=None, ge=1, le=65536)
    #: How often a request is sent again after 429 or 503, or when no connection came about.
    retries: int = Field(default=2, ge=0, le=MOST_RETRIES)

    @field_validator("aliases", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if not _ADDRESS.fullmatch(parts.netloc) or not _PATH.fullmatch(parts.path):
            raise ValueError("write a host name or an IPv4 address, perhaps a port, and a plain path")
        if ".." in parts.netloc or not 1 <= (_port(url) or 0) <= 65535:
            raise ValueError("this is no host with a port between 1 and 65535")
        if parts.scheme == "https" and _IPV4.fullmatch(parts.netloc.partition(":")[0]):
            raise ValueError("nginx compares a certificate with a name, not with an address; write the service's name")
        return url

    @property
    def secure(self) -> bool:
        return self.url.startswith("https://")

    @property
    def host(self) -> str:
        """The name that its certificate must have."""
        return self.authority.partition(":")[0]

    @property
    def authority(self) -> str:
        """For the header Host: with a port where the URL has one."""
        return urlsplit(self.url).netloc

    @property
    def address(self) -> str:
        """``host:port``"""
        return f"{self.host}:{_port(self.url)}"

    @property
    def has_name(self) -> bool:
        """A name has to be resolved."""
        return not _IPV4.fullmatch(self.host)

    def path(self, target: str) -> str:
        """The service's path for one of ours (``/v1/...``)."""
        return urlsplit(self.url).path + target.removeprefix("/v1")


def _port(url: str) -> int | None:
    parts = urlsplit(url)
    try:
        return parts.port if parts.port is not None else (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None


Trouble = Literal["missing", "unusable"]


def trouble_with(variable: str, environment: Mapping[str, str]) -> Trouble | None:
    """Why the secret in an environment variable cannot be used. It must fit into one header."""
    value = environment.get(variable, "")
    return "missing" if not value else None if _TOKEN.fullmatch(value) else "unusable"
