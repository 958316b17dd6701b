"""A certificate authority for one deployment: the server's certificate, and a key for each node.

    ca.pem, ca.key             the authority; whoever trusts it trusts what it has signed, and nobody else
    server.pem, server.key     the SuperLink's, for localhost and 127.0.0.1 or the names that are given
    node0.key, node0.pub …     a SuperNode's identity: the server lets in those whose public half was registered

Elliptic curves of NIST (P-256 for TLS, P-384 for nodes, which Flower asks for). Private keys can be read by their owner only.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = ("localhost", "127.0.0.1")
DAYS, MOST = 7.0, 3650.0
NAME = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")         # a DNS name or IPv4; IPv6
EARLIER = datetime.timedelta(minutes=5)         # for clocks that are a little behind


def certificates(folder: str | Path, hosts: str | Sequence[str] = LOOPBACK, days: float = DAYS) -> None:
    """Write a new authority and a server certificate signed by it. hosts: DNS names and addresses that clients will use."""
    hosts = [hosts] if isinstance(hosts, str) else list(hosts)
    if not hosts or not 0 < days <= MOST:
        raise ValueError(f"a certificate is for at least one host and some days (at most {MOST:g}), not {hosts} and {days:g}")
    if odd := [host for host in hosts if not (isinstance(host, str) and NAME.fullmatch(host))]:
        raise ValueError(f"{odd[0]!r} is neither a DNS name nor an address: give it as clients will, without https:// and port")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    us = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fl_course authority")])
    root = _certificate(us, us, authority.public_key(), days)
    root = root.add_extension(x509.BasicConstraints(True, 0), True)
    root = root.add_extension(_usage(signs_certificates=True), True)
    root = root.add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), False)
    leaf = _certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])]), us, server.public_key(), days)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), False)
    leaf = leaf.add_extension(x509.BasicConstraints(False, None), True)
    leaf = leaf.add_extension(_usage(signs_certificates=False), True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
    _write(folder / "ca.pem", root.sign(authority, hashes.SHA256()).public_bytes(s.Encoding.PEM))
    _write(folder / "ca.key", _private(authority, s.PrivateFormat.PKCS8), secret=True)
    _write(folder / "server.pem", leaf.sign(authority, hashes.SHA256()).public_bytes(s.Encoding.PEM))
    _write(folder / "server.key", _private(server, s.PrivateFormat.PKCS8), secret=True)


def node_key(folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write a new identity NAME.key and NAME.pub (OpenSSH's formats); returns both paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    _write(private, _private(key, s.PrivateFormat.OpenSSH), secret=True)
    _write(public, key.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH) + b"\n")
    return private, public


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - EARLIER).not_valid_after(now + datetime.timedelta(days=days))


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey, form: s.PrivateFormat) -> bytes:
    return key.private_bytes(s.Encoding.PEM, form, s.NoEncryption())


def _write(path: Path, content: bytes, secret: bool = False) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644), "wb") as file:
        file.write(content)
