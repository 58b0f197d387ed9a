"""Keys and certificates for tests of signatures."""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # cryptography says what it will give up when x509 is imported
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

GOOD = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
}
OTHERS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed448": ed448.Ed448PrivateKey.generate,
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "dsa": lambda: dsa.generate_private_key(2048),
}
BEGIN = datetime.datetime(2025, 1, 1)


def written(folder: Path, name: str, key: Any, password: bytes | None = None) -> tuple[Path, Path]:
    """The paths of a private key and of its public one."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    hidden = BestAvailableEncryption(password) if password else NoEncryption()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def pair(folder: Path, name: str = "key", kind: str = "ed25519") -> tuple[Path, Path]:
    """A new pair of keys, as files."""
    return written(folder, name, {**GOOD, **OTHERS}[kind]())


def certificate(
    subject: str, key: Any, issuer: str, by: Any, *, is_ca: bool, signs: bool = True, days: int = 3650
) -> Any:
    """A certificate of a key, as another key gives it."""
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, issuer)]
    builder = (
        x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number(), BEGIN)
        .not_valid_after(BEGIN + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    usage = x509.KeyUsage(not is_ca and signs, False, not is_ca, False, False, is_ca, is_ca, False, False)
    builder = builder.add_extension(usage, critical=True)
    if not is_ca and signs:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return builder.sign(by, hashes.SHA256())


class Authority:
    """A root, one between, and Alice, whose certificate leads to the root. All are files in a folder."""

    def __init__(self, folder: Path, **alice: Any) -> None:
        root, between, own = (GOOD["p256"]() for _ in range(3))
        self.key, _ = written(folder, "alice", own)
        made = {
            "root": certificate("root", root, "root", root, is_ca=True),
            "between": certificate("between", between, "root", root, is_ca=True),
            "own": certificate("alice", own, "between", between, is_ca=False, **alice),
        }
        for name, one in made.items():
            (folder / f"{name}.crt").write_bytes(one.public_bytes(Encoding.PEM))
        self.root, self.chain = folder / "root.crt", [folder / "own.crt", folder / "between.crt"]
