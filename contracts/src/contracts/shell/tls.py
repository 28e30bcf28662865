"""A certificate authority of one installation, made at the first start, and the certificates that it signs.

<home>/tls/ca.pem is what clients trust; <home>/tls/ca.key never leaves the machine. The authority is bound to server
certificates: path length 0.
"""

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from contracts.shell.files import locked, write_atomically

_CA_DAYS = 3650
_LEAF_DAYS = 397
_RENEW_BEFORE = timedelta(days=30)


def ca_path(home: Path) -> Path:
    """The file that a client trusts (curl --cacert, REQUESTS_CA_BUNDLE)."""
    return home / "tls" / "ca.pem"


def server_context(home: Path, name: str, hosts: Sequence[str], now: datetime | None = None) -> ssl.SSLContext:
    """A TLS 1.2+ server context for `hosts` (names, wildcards, addresses), with a certificate signed by the authority.

    Authority and certificate are made when missing. At a start, a certificate that ends within 30 days
    or is for other `hosts` is made anew.
    """
    now = now or datetime.now(UTC)
    folder = home / "tls"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    chain = folder / f"{name}.pem"
    with locked(folder / ".lock"):
        if not (folder / "ca.key").exists():
            _make_authority(folder, now)
        if not chain.exists() or not _serves(chain, hosts, now):
            _make_leaf(folder, chain, hosts, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain)
    return context


def _make_authority(folder: Path, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Endpunkt local authority")])
    certificate = (
        _unsigned(name, name, key.public_key(), now, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_atomically(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    # The key last: it is what says that the authority is complete.
    write_atomically(folder / "ca.key", _pem(key))


def _make_leaf(folder: Path, chain: Path, hosts: Sequence[str], now: datetime) -> None:
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _unsigned(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])]),
            authority.subject,
            key.public_key(),
            now,
            _LEAF_DAYS,
        )
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    write_atomically(chain, _pem(key) + certificate.public_bytes(serialization.Encoding.PEM))


def _serves(chain: Path, hosts: Sequence[str], now: datetime) -> bool:
    certificate = x509.load_pem_x509_certificate(chain.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        set(names) == {_general_name(host) for host in hosts} and certificate.not_valid_after_utc - now > _RENEW_BEFORE
    )


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
