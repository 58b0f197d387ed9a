"""Keys and certificates (docs/spec/signatures.md, section 3), by the package `cryptography`."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from ..errors import CkptError, fault
from ..packages import package
from .bundle import Bundle, pae

SignatureKey = str | os.PathLike[str] | bytes | Any
"""A path of a PEM file, its bytes, or a key or certificate of `cryptography`."""

CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # and the hash that goes with each
MAKE = "openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub"
EXPECTED = "Ed25519, or ECDSA on P-256, P-384 or P-521"


class Trusted(NamedTuple):
    """Whom to believe: public keys, and certificates of those who vouch for signers."""

    keys: tuple[Any, ...]
    roots: tuple[Any, ...]


def private_key(key: SignatureKey, password: str | bytes | None = None) -> Any:
    """The private key that signs; raises `bad-key`."""
    if hasattr(key, "private_bytes"):
        return _known(key, "key=")
    data, what = _pem(key, "key=")
    if b"PRIVATE KEY" not in data:
        raise _no_key(f"{what} is not a private key in PEM", "Give the private key; trust= takes the public one")
    secret = password.encode() if isinstance(password, str) else password
    with _reading(what, "Give its password, if it has one"):
        return _known(_serialization().load_pem_private_key(data, secret), what)


def certificates(chain: SignatureKey | Sequence[SignatureKey], key: Any) -> tuple[bytes, ...]:
    """The certificate of a key and those above it, in DER; raises `bad-key`."""
    found = [one for part in _several(chain) for one in _certificates(part)]
    if not found or _raw(found[0].public_key()) != _raw(key.public_key()):
        raise _no_key("the first certificate is not that of the key", "Give the certificate of the key first")
    return tuple(one.public_bytes(_serialization().Encoding.DER) for one in found)


def trusted(trust: SignatureKey | Iterable[SignatureKey]) -> Trusted:
    """Those whom `trust=` names; raises `bad-key`."""
    keys: list[Any] = []
    roots: list[Any] = []
    for one in _several(trust):
        data = b"" if hasattr(one, "public_bytes") else _pem(one, "trust=")[0]
        if hasattr(one, "issuer") or b"BEGIN CERTIFICATE" in data:
            roots += _certificates(one)
        else:
            keys.append(_public_key(one, data))
    if not keys and not roots:
        raise _no_key("trust= names no key", "Give the public key of those who may have signed")
    return Trusted(tuple(keys), tuple(roots))


def sign(key: Any, payload: bytes, chain: tuple[bytes, ...] = ()) -> Bundle:
    """The bundle of a payload that a private key signs. [SIG-004]"""
    signature = key.sign(pae(payload), *_scheme(key))
    return Bundle(payload, (signature,), "" if chain else key_id(key.public_key()), chain)


def signer(bundle: Bundle, whom: Trusted) -> str:
    """Who of those that are trusted has signed: the id of a key, or the subject of a certificate; raises
    `untrusted-key`, or `bad-signature` where a trusted key is named whose signature it is not. [SIG-007]"""
    keys = {key_id(key): key for key in whom.keys}
    if bundle.certificates and whom.roots:
        leaf = _leaf(bundle.certificates, whom.roots)
        if _has_signed(leaf.public_key(), bundle):
            return str(leaf.subject.rfc4514_string())
        raise fault("bad-signature", "the signature is not that of the certificate beside it")
    for name, key in keys.items():
        if _has_signed(key, bundle):
            return name
    if bundle.hint in keys:
        raise fault("bad-signature", "the trusted key is named, but has not signed this", found=bundle.hint)
    by = "a certificate" if bundle.certificates else f"the key {bundle.hint}" if bundle.hint else "another key"
    whose = [*keys, *(one.subject.rfc4514_string() for one in whom.roots)]
    raise fault("untrusted-key", f"it is signed by {by}, which is not trusted", found=by, expected=", ".join(whose))


def signer_of(bundle: Bundle) -> str:
    """Who says to have signed: what `signer` gives of a bundle whose signature is theirs."""
    if not bundle.certificates:
        return bundle.hint
    return str(_x509().load_der_x509_certificate(bundle.certificates[0]).subject.rfc4514_string())


def key_id(key: Any) -> str:
    """What names a public key: the sha256 of its PEM. [SIG-003]"""
    serialization = _serialization()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def _has_signed(key: Any, bundle: Bundle) -> bool:
    refused = package("cryptography.exceptions", "signing").InvalidSignature
    for signature in bundle.signatures:
        try:
            key.verify(signature, pae(bundle.payload), *_scheme(key))
        except refused:
            continue
        return True
    return False


def _leaf(chain: tuple[bytes, ...], roots: tuple[Any, ...]) -> Any:
    """The first certificate of a chain, once it is known to lead to a root that is trusted; raises `untrusted-key`.
    It may sign, as its use says; its time is that of its beginning, as no clock tells when it signed. [SIG-008]"""
    x509 = _x509()
    try:
        found = [x509.load_der_x509_certificate(der) for der in chain]
        leaf = found[0]
        _check_use(leaf, x509)
        at: datetime = leaf.not_valid_before_utc
        verification = x509.verification
        policy = verification.ExtensionPolicy
        builder = verification.PolicyBuilder().store(verification.Store(list(roots))).time(at)
        builder = builder.extension_policies(ca_policy=policy.webpki_defaults_ca(), ee_policy=policy.permit_all())
        builder.build_client_verifier().verify(leaf, found[1:])
    except (ValueError, x509.verification.VerificationError) as error:
        raise fault("untrusted-key", f"its certificate leads to none that is trusted: {error}") from None
    _known(leaf.public_key(), "the certificate")
    return leaf


def _check_use(leaf: Any, x509: Any) -> None:
    """Raise ValueError unless a certificate is for signing."""
    oid = x509.oid.ExtendedKeyUsageOID.CODE_SIGNING
    uses = {type(one.value): one.value for one in leaf.extensions}
    usage, extended = uses.get(x509.KeyUsage), uses.get(x509.ExtendedKeyUsage)
    if not (usage and usage.digital_signature) and not (extended and oid in extended):
        raise ValueError("it is not for signing")


def _known(key: Any, what: str) -> Any:
    """A key, if it is of a kind that signatures have. [SIG-003]"""
    curve = getattr(getattr(key, "curve", None), "name", None)
    kind = type(key).__name__.replace("Private", "").replace("Public", "")
    if not kind.lower().startswith("ed25519") and curve not in CURVES:
        found = f"{kind} {curve}" if curve else kind
        raise _no_key(f"{what} is a key of another kind", f"Make one: {MAKE}", found=found, expected=EXPECTED)
    return key


def _scheme(key: Any) -> tuple[Any, ...]:
    """What `sign` and `verify` of a key take besides. [SIG-003]"""
    if not hasattr(key, "curve"):
        return ()
    hashes = package("cryptography.hazmat.primitives.hashes", "signing")
    ec = package("cryptography.hazmat.primitives.asymmetric.ec", "signing")
    return (ec.ECDSA(getattr(hashes, CURVES[key.curve.name])()),)


def _public_key(one: Any, data: bytes) -> Any:
    if hasattr(one, "public_bytes"):
        return _known(one, "trust=")
    what = "trust=" if isinstance(one, bytes) else os.fspath(one)
    if b"PRIVATE KEY" in data:
        raise _no_key(f"{what} is a private key", "Give the public one, and keep this where nobody reads it")
    with _reading(what, f"Make one: {MAKE}"):
        return _known(_serialization().load_pem_public_key(data), what)


def _certificates(one: Any) -> list[Any]:
    if hasattr(one, "public_bytes"):
        return [one]
    data, what = _pem(one, "certificates=")
    with _reading(what, "Give certificates in PEM"):
        return list(_x509().load_pem_x509_certificates(data))


@contextmanager
def _reading(what: str, advice: str) -> Iterator[None]:
    """What cannot be read as PEM raises `bad-key`; TypeErrors are of passwords that are missing, or needless."""
    unsupported = package("cryptography.exceptions", "signing").UnsupportedAlgorithm
    try:
        yield
    except CkptError:  # some are ValueErrors
        raise
    except (ValueError, TypeError, unsupported) as error:
        raise _no_key(f"{what} cannot be read: {error}", advice) from None


def _pem(key: Any, option: str) -> tuple[bytes, str]:
    """The bytes of a key, and what it is called in messages."""
    if isinstance(key, bytes):
        return key, option
    if not isinstance(key, str | os.PathLike):
        found = type(key).__name__
        raise _no_key(f"{option} has a {found}", "Give a path, the bytes of PEM, or a key of cryptography", found=found)
    path = os.fspath(key)
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20), path
    except OSError as error:
        raise _no_key(f"the key {path} cannot be read: {error.strerror}", "Check its path") from None


def _several(keys: Any) -> list[Any]:
    one = isinstance(keys, str | bytes | os.PathLike) or hasattr(keys, "public_bytes")
    return [keys] if one else list(keys)


def _raw(key: Any) -> bytes:
    serialization = _serialization()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(serialization.Encoding.DER, form))


def _no_key(message: str, advice: str, **place: Any) -> CkptError:
    return fault("bad-key", message, advice=advice, **place)


def _serialization() -> Any:
    return package("cryptography.hazmat.primitives.serialization", "signing")


def _x509() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it will give up, which is not used here
        package("cryptography.x509.verification", "certificates")
        return package("cryptography.x509", "certificates")
