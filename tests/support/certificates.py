"""Certificates for tests, made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def certificate(
    begins: datetime.datetime,
    days: int,
    name: str = "gateway.test",
    address: str = "127.0.0.1",
    issuer: str = "",
) -> tuple[str, str]:
    """A certificate that signs itself, and its key; both PEM. ``issuer``: somebody else's name stands as its issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]) if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + days * DAY)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def write_pair(directory: Path, days: int = 30) -> Path:
    """A pair that is valid now, as fullchain.pem and privkey.pem; returns the path of the certificate."""
    public, private = certificate(datetime.datetime.now(datetime.UTC) - DAY, days)
    directory.mkdir(exist_ok=True)
    for name, text in (("privkey.pem", private), ("fullchain.pem", public)):
        new = directory / f"{name}.new"
        new.touch(mode=0o600)
        new.write_text(text)
        new.rename(directory / name)
    return directory / "fullchain.pem"
