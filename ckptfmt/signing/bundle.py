"""Signature files: a DSSE envelope in a bundle of sigstore, as JSON (docs/spec/signatures.md, section 2). Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import CkptError, fault

PAYLOAD = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
LARGEST = 64 << 20  # bytes of a signature file; those of model-signing name every file of a folder


class Bundle(NamedTuple):
    """What a signature file says: the signed `payload`, its `signatures`, and the hint of the key or the DER
    `certificates` of the signer, its own first."""

    payload: bytes
    signatures: tuple[bytes, ...]
    hint: str = ""
    certificates: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        material: dict[str, Any] = {"publicKey": {"hint": self.hint}}
        if self.certificates:
            chain = [{"rawBytes": _base64(der)} for der in self.certificates]
            material = {"x509CertificateChain": {"certificates": chain}}
        envelope = {
            "payload": _base64(self.payload),
            "payloadType": PAYLOAD,
            "signatures": [{"sig": _base64(signature), "keyid": ""} for signature in self.signatures],
        }
        document = {
            "mediaType": BUNDLE,
            "verificationMaterial": {**material, "tlogEntries": []},
            "dsseEnvelope": envelope,
        }
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def pae(payload: bytes) -> bytes:
    """The bytes that are signed for a payload: those of DSSE. [SIG-004]"""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def decode(data: bytes) -> Bundle:
    """The bundle of a signature file; raises `bad-signature` for anything else. [SIG-005]"""
    document = parsed(data, "the signature file")
    match document:
        case {
            "mediaType": str(media),
            "verificationMaterial": dict(material),
            "dsseEnvelope": {"payloadType": str(kind), "payload": str(payload), "signatures": list(signatures)},
        } if media == BUNDLE and kind == PAYLOAD and signatures:
            found = tuple(_bytes(one.get("sig") if isinstance(one, dict) else None) for one in signatures)
            return Bundle(_bytes(payload), found, *_material(material))
    raise bad(f"the signature file is no bundle of {BUNDLE} with an envelope of {PAYLOAD}")


def _material(material: dict[str, Any]) -> tuple[str, tuple[bytes, ...]]:
    """The hint of a key, and certificates; one certificate alone has a form of its own."""
    match material:
        case {"x509CertificateChain": {"certificates": list(chain)}} if chain:
            return "", tuple(_bytes(one.get("rawBytes") if isinstance(one, dict) else None) for one in chain)
        case {"certificate": {"rawBytes": str(one)}}:
            return "", (_bytes(one),)
        case {"publicKey": {"hint": str(hint)}}:
            return hint, ()
        case {"publicKey": dict()}:
            return "", ()
    raise bad("the signature file says of no key and no certificate")


def parsed(data: bytes, what: str) -> Any:
    """A JSON document that repeats no key, of which readers differ; raises `bad-signature`. [SIG-005]"""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands there twice")
        return found

    try:
        return json.loads(data.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise bad(f"{what} is no JSON: {error}") from None


def bad(message: str) -> CkptError:
    """The exception for a signature file that breaks the specification."""
    return fault("bad-signature", message)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise bad("the signature file has something else where base64 should be") from None
