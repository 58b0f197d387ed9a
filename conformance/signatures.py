"""`python -m conformance.signatures` writes signatures.json: signature files, whom a user trusts, the manifest that a
program reads by, and what docs/spec/signatures.md has it say. Needs the package `cryptography`, and nothing of
`ckptfmt`. Keys and ECDSA signatures are random, so that each run gives other cases of the same kinds.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from . import HERE

CASES = HERE / "signatures.json"
TYPE = "application/vnd.in-toto+json"
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
MANIFEST = hashlib.sha256(b"a manifest").hexdigest()
HASHES: dict[int, Any] = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}


def statement(sha256: str = MANIFEST, **changes: Any) -> bytes:
    """A statement, as JSON. [SIG-001]"""
    said = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model.ckpt", "digest": {"sha256": sha256}}],
        "predicateType": "https://ckptfmt.dev/checkpoint/v1",
        "predicate": {"format": [1, 0], "layout": "file", "digest": "sha256", "tensors": 1},
    }
    return json.dumps(said | changes, indent=1).encode()


def pem(key: Any) -> str:
    return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def signed(key: Any, payload: bytes, *, form: bytes = TYPE.encode(), chain: tuple[Any, ...] = ()) -> dict[str, Any]:
    """A signature file. [SIG-004] [SIG-005]"""
    data = b"DSSEv1 %d %s %d %s" % (len(form), form, len(payload), payload)
    is_edwards = isinstance(key, ed25519.Ed25519PrivateKey)
    signature = key.sign(data) if is_edwards else key.sign(data, ec.ECDSA(HASHES[key.key_size]()))
    material: dict[str, Any] = {"publicKey": {"hint": hashlib.sha256(pem(key.public_key()).encode()).hexdigest()}}
    if chain:
        certificates = [{"rawBytes": text(one.public_bytes(Encoding.DER))} for one in chain]
        material = {"x509CertificateChain": {"certificates": certificates}}
    return {
        "mediaType": MEDIA,
        "verificationMaterial": {**material, "tlogEntries": []},
        "dsseEnvelope": {"payload": text(payload), "payloadType": TYPE, "signatures": [{"sig": text(signature)}]},
    }


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def certificate(subject: str, key: Any, issuer: str, by: Any, *, is_ca: bool, signs: bool = True) -> Any:
    """A certificate of ten years."""
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (issuer, subject)]
    begin = datetime.datetime(2025, 1, 1)
    usage = x509.KeyUsage(not is_ca and signs, False, not is_ca, False, False, is_ca, is_ca, False, False)
    identifiers = [
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()),
    ]
    builder = x509.CertificateBuilder().issuer_name(names[0]).subject_name(names[1]).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin)
    builder = builder.not_valid_after(begin + datetime.timedelta(days=3650))
    builder = builder.add_extension(x509.BasicConstraints(is_ca, None), critical=True).add_extension(
        usage, critical=True
    )
    for extension in identifiers:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(by, hashes.SHA256())


def case(name: str, spec: str, file: Any, trust: list[str], expected: str, digest: str = "sha256") -> dict[str, Any]:
    """`signature`: the file as text; `trust`: keys and certificates in PEM; `digest`: that of the manifest, whose
    sha256 is `manifest`; `expected`: a code, or "accepted"."""
    content = file if isinstance(file, str) else json.dumps(file)
    about = {"name": name, "spec": spec.split(), "manifest": MANIFEST, "digest": digest}
    return {**about, "trust": trust, "signature": content, "expected": expected}


def of_keys() -> list[dict[str, Any]]:
    keys: dict[str, Any] = {
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "p521": ec.generate_private_key(ec.SECP521R1()),
    }
    own = [pem(key.public_key()) for key in keys.values()]
    alice, other = keys["ed25519"], [pem(ed25519.Ed25519PrivateKey.generate().public_key())]
    good = signed(alice, statement())
    hinted = json.loads(json.dumps(good))
    hinted["verificationMaterial"] = {"publicKey": {"hint": ""}}
    forged = json.loads(json.dumps(good))
    forged["dsseEnvelope"]["payload"] = text(statement(sha256="0" * 64))
    elsewhere = signed(alice, statement("0" * 64))
    twice = json.dumps(good).replace('{"mediaType"', '{"mediaType": "x", "mediaType"', 1)
    accepted = [
        case(f"signed by {name}", "SIG-003 SIG-004", signed(key, statement()), own, "accepted")
        for name, key in keys.items()
    ]
    return [
        *accepted,
        case("no hint", "SIG-003", hinted, own, "accepted"),
        case("blake3", "SIG-009", good, own, "accepted", "blake3"),
        case("weak digest", "SIG-009", good, own, "weak-digest", "xxh3-128"),
        case("another key", "SIG-007", good, other, "untrusted-key"),
        case("another key, other checkpoint: the key counts", "SIG-007", elsewhere, other, "untrusted-key"),
        case("another checkpoint", "SIG-001", elsewhere, own, "other-checkpoint"),
        case("changed after it was signed", "SIG-004", forged, own, "bad-signature"),
        case(
            "not the encoding of DSSE", "SIG-004", signed(alice, statement(), form=b"text/plain"), own, "bad-signature"
        ),
        case("a repeated key", "SIG-005", twice, own, "bad-signature"),
        case("another media type", "SIG-005", good | {"mediaType": "application/json"}, own, "bad-signature"),
        case("no JSON", "SIG-005", "signed", own, "bad-signature"),
        case("another predicate", "SIG-006", signed(alice, statement(predicateType="x")), own, "bad-signature"),
        case("another statement", "SIG-006", signed(alice, statement(_type="x")), own, "bad-signature"),
        case("two subjects", "SIG-006", signed(alice, statement(subject=[{}, {}])), own, "bad-signature"),
        case("another predicate within", "SIG-001", signed(alice, statement(predicate={"x": 1})), own, "accepted"),
    ]


def of_certificates() -> list[dict[str, Any]]:
    root, between, key, stranger = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
    top = certificate("root", root, "root", root, is_ca=True)
    middle = certificate("between", between, "root", root, is_ca=True)
    own = certificate("alice", key, "between", between, is_ca=False)
    useless = certificate("alice", key, "between", between, is_ca=False, signs=False)
    trust = [top.public_bytes(Encoding.PEM).decode()]
    other = [certificate("root", stranger, "root", stranger, is_ca=True).public_bytes(Encoding.PEM).decode()]
    said = statement()
    return [
        case("a certificate", "SIG-008", signed(key, said, chain=(own, middle)), trust, "accepted"),
        case("another root", "SIG-008", signed(key, said, chain=(own, middle)), other, "untrusted-key"),
        case("nothing leads to the root", "SIG-008", signed(key, said, chain=(own,)), trust, "untrusted-key"),
        case("not for signing", "SIG-008", signed(key, said, chain=(useless, middle)), trust, "untrusted-key"),
        case("a borrowed certificate", "SIG-008", signed(stranger, said, chain=(own, middle)), trust, "bad-signature"),
        case("a certificate in the place of its key", "SIG-007", signed(key, said), trust, "untrusted-key"),
        case(
            "the key of a certificate",
            "SIG-007",
            signed(key, said, chain=(own, middle)),
            [pem(key.public_key())],
            "accepted",
        ),
    ]


if __name__ == "__main__":
    CASES.write_text(json.dumps([*of_keys(), *of_certificates()], indent=1) + "\n")
