"""The certificate of a gateway that speaks HTTPS: there, readable, private, and valid for a while."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509

from stoker.plan.look import Look, Reason, Reasons
from stoker.spec.tls import Tls

#: Days before the end at which a person is told. ACME clients renew 30 days before, so by then something is broken.
SOON_DAYS = 14

_DAY = 86400


def check(look: Look) -> Reasons:
    for stack in look.host.stacks:
        if stack.gateway and stack.gateway.tls:
            yield from _check(look, stack.gateway.tls)


def _check(look: Look, tls: Tls) -> Reasons:
    missing = [path for path in (tls.certificate_file, tls.key_file) if path not in look.state.files]
    if missing and tls.acme:
        return  # the deploy makes them
    if missing:
        yield Reason(
            f"{' and '.join(missing)} is not there" if len(missing) == 1 else f"{' and '.join(missing)} are not there",
            "bring the certificate and its key to the host, or remove `tls` from the gateway",
            "certificate",
        )
        return
    mode = look.state.files[tls.key_file].mode
    if int(mode, 8) & 0o077:
        yield Reason(
            f"the private key {tls.key_file} has mode {mode}: others than root can read it",
            f"chmod 600 {tls.key_file}",
            "certificate",
            "warn",
        )
    try:
        chain = x509.load_pem_x509_certificates(look.state.contents.get(tls.certificate_file, "").encode())
    except ValueError:
        yield Reason(
            f"{tls.certificate_file} is no certificate in PEM", "bring the right file to the host", "certificate"
        )
        return
    if tls.acme and chain[0].issuer == chain[0].subject:
        yield Reason(
            f"{tls.certificate_file} is a placeholder that signs itself: no authority has issued a certificate for {tls.domain} yet",
            f"deploy again: certbot says what is wrong, for instance that {tls.domain}:80 does not lead here from outside",
            "acme",
            "warn",
        )
        return
    yield from _validity(look.now, tls, min(chain, key=lambda one: one.not_valid_after_utc), chain[0])


def _validity(now: int, tls: Tls, earliest: x509.Certificate, own: x509.Certificate) -> Reasons:
    """``earliest``: the one of the chain that ends first; clients refuse the whole from then on."""
    ends, begins = earliest.not_valid_after_utc.timestamp(), own.not_valid_before_utc.timestamp()
    renew = (
        "certbot has not renewed it: `certbot renew`, `systemctl list-timers certbot.timer`, /var/log/letsencrypt"
        if tls.acme
        else "renew it and deploy again: the gateway reads it anew"
    )
    if now >= ends:
        yield Reason(f"{tls.certificate_file} ended {int(now - ends) // _DAY} days ago", renew, "certificate", "warn")
    elif now < begins:
        yield Reason(
            f"{tls.certificate_file} is valid from {datetime.fromtimestamp(begins, UTC):%Y-%m-%d %H:%M} UTC on only",
            "wait, or look at the clocks of this machine and of the one that made it",
            "certificate",
            "warn",
        )
    elif ends - now < SOON_DAYS * _DAY:
        yield Reason(f"{tls.certificate_file} ends in {int(ends - now) // _DAY} days", renew, "certificate", "warn")
    else:
        yield Reason(
            f"{tls.certificate_file} ends on {earliest.not_valid_after_utc:%Y-%m-%d}", "", "certificate", "note"
        )
