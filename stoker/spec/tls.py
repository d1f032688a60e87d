"""HTTPS at a gateway: the site's own certificate, or one that an authority issues by ACME."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from stoker.spec.base import AbsolutePath, Port, Spec, Url, form

#: Where the certificates of domains by ACME lie on the host, one directory each.
HOST_CERTIFICATES = "/var/lib/stoker/tls"

#: What a certificate by ACME is proved by (RFC 8555, 8.3: http-01): the authority asks this port, and no other.
ACME_PORT = 80

#: A name that resolves, as a certificate has it.
DomainName = Annotated[
    str,
    form(r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$", "a name such as llm.example.org"),
]

#: Directories that hold more than a certificate, all of which the container would see.
_CROWDED = ("", "/etc", "/etc/stoker", "/etc/ssl", "/etc/letsencrypt", "/root", "/home", "/var", "/usr", "/opt")


class Acme(Spec):
    """An authority that issues certificates by ACME. Who writes this agrees to its terms of service."""

    #: Its directory. It must be one that the host trusts by TLS.
    directory: Url = "https://acme-v02.api.letsencrypt.org/directory"
    #: Where the authority writes to when something is wrong.
    email: Annotated[str, form(r"^[^\s@'\"]+@[^\s@'\"]+$", "an address such as ops@example.org")] | None = None


class Tls(Spec):
    """HTTPS. The files of a certificate of one's own lie on the gateway's host."""

    #: Not given: the gateway's own port speaks HTTPS, and there is no plain one. Given: HTTPS is there, and the plain port stays.
    port: Port | None = None
    #: The name in the certificate that clients use; not given: the host's address.
    domain: DomainName | None = None
    #: The certificate and those between it and its authority, in this order, as PEM.
    certificate: AbsolutePath | None = None
    #: Its private key, as PEM, without a passphrase; of root, mode 600.
    key: AbsolutePath | None = None
    #: In place of the two files: a certificate for the domain is fetched, and renewed.
    acme: Acme | None = None

    @property
    def certificate_file(self) -> str:
        return self.certificate or f"{HOST_CERTIFICATES}/{self.domain}/fullchain.pem"

    @property
    def key_file(self) -> str:
        return self.key or f"{HOST_CERTIFICATES}/{self.domain}/privkey.pem"

    @property
    def directory(self) -> str:
        """What the container sees: the directory, so that a renewed file is seen too."""
        return self.certificate_file.rpartition("/")[0]

    @model_validator(mode="after")
    def _one_source(self) -> Tls:
        if self.acme:
            if self.certificate or self.key:
                raise ValueError(
                    "the certificate is either your own or one by acme; remove certificate and key, or acme"
                )
            if not self.domain:
                raise ValueError("acme needs the domain that the certificate is for; add domain")
        elif not (self.certificate and self.key):
            raise ValueError("certificate and key are missing; name both files, or write a domain and acme")
        return self

    @model_validator(mode="after")
    def _one_directory(self) -> Tls:
        if self.key_file.rpartition("/")[0] != self.directory or self.key_file == self.certificate_file:
            raise ValueError(
                "certificate and key must be two files in one directory, which the gateway's container sees"
            )
        if self.directory in _CROWDED:
            raise ValueError(
                f"the gateway's container sees the whole directory {self.directory or '/'}; "
                "keep the two files in one of their own, for instance /etc/stoker/tls"
            )
        return self
