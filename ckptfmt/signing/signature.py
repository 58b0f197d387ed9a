"""Signing checkpoints, and looking who has signed one (docs/spec/signatures.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ..brief import Brief
from ..calls import takes
from ..errors import CkptError, fault
from ..reading.checkpoint import StoredCheckpoint
from ..storage import path_of
from ..storage.held import HeldPlace
from . import beside, keys, statement
from .bundle import decode
from .keys import SignatureKey
from .statement import FileStatement, ManifestStatement

SignatureForm = Literal["ckptfmt", "model-signing"]

STRONG = ("sha256", "blake3")  # digests of blocks that withstand an adversary [SIG-009]


@dataclass(frozen=True, slots=True, repr=False)
class SignatureReport(Brief):
    """Whose signature a checkpoint has. `path`: of the checkpoint; `signature`: of the file with it; `signer`: the id
    of the key (the sha256 of its PEM) or the subject of the certificate; `form`: "ckptfmt", of the manifest with the
    sha256 `manifest_sha256`, which stands for all of it, or "model-signing", of every byte of its files."""

    path: str
    signature: str
    signer: str
    manifest_sha256: str
    form: SignatureForm


@takes()
def sign(
    path: str | os.PathLike[str],
    key: SignatureKey,
    *,
    password: str | bytes | None = None,
    certificates: SignatureKey | Sequence[SignatureKey] = (),
    signature: str | os.PathLike[str] | None = None,
    form: SignatureForm = "ckptfmt",
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> SignatureReport:
    """Sign the checkpoint at `path`, a path or URL: its manifest, which has the digests of all else, so that nothing
    but that is read. [SIG-001]

    `key`: a path of a private key in PEM, its bytes, or a key of the package `cryptography`: Ed25519, or ECDSA on
    P-256, P-384 or P-521; `password`, if it has one. `certificates`: that of the key, and those between it and one that
    is trusted. `signature`: where to put it, by default at `path` with ".sig" behind; `overwrite` replaces one that is
    there. `form="model-signing"`: a signature that `model_signing verify` takes, of the sha256 of every file; by an
    ECDSA key. `storage_options` and `follow_links` are as in `ckptfmt.open`.

    Raises `bad-key`, `weak-digest` for a checkpoint whose digests do not withstand an adversary (save it with
    digest="sha256" or "blake3"), `exists`, and what `ckptfmt.open` raises.
    """
    place = path_of(path)
    owner = keys.private_key(key, password)
    chain = keys.certificates(certificates, owner) if certificates else ()
    if form not in ("ckptfmt", "model-signing"):
        raise fault("bad-option", f"form= is {form!r}", expected="'ckptfmt' or 'model-signing'")
    with StoredCheckpoint(place, storage_options=storage_options, follow_links=follow_links) as stored:
        if form == "ckptfmt":
            _check_strength(stored)
            said: Any = _statement_of(stored)
        else:
            said = _statement_of_files(place, owner, follow_links)
        sha256 = stored.manifest_sha256
    bundle = keys.sign(owner, said.encode(), chain)
    where = beside.beside(place) if signature is None else path_of(signature)
    beside.write(where, bundle.encode(), overwrite=overwrite, durable=True, options=storage_options)
    return SignatureReport(place, where, keys.signer_of(bundle), sha256, form)


@takes()
def verify_signature(
    path: str | os.PathLike[str],
    trust: SignatureKey | Iterable[SignatureKey],
    *,
    signature: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> SignatureReport:
    """Tell who of `trust` has signed the checkpoint at `path`, a path or URL; reads its manifest, and no chunk.

    `trust`: public keys or certificates of those to whom others lead: paths of PEM files, their bytes, or such of the
    package `cryptography`, one or several. `signature`: the file with it, by default `path` with ".sig" behind; one
    that model-signing has made with a key or a certificate is taken, too, and then every byte is read. The others are
    those of `ckptfmt.open`. `ckptfmt.open(path, trust=...)` and `load` do the same, and read nothing unverified.

    Raises `not-signed`, `bad-signature`, `untrusted-key`, `other-checkpoint`, `weak-digest`, `bad-key`, and what
    `ckptfmt.open` raises.
    """
    place = path_of(path)
    with StoredCheckpoint(place, storage_options=storage_options, follow_links=follow_links) as stored:
        where = beside.beside(place) if signature is None else path_of(signature)
        return _check(stored, trust, where, storage_options, partial(_check_files, follow_links=follow_links))


def check(
    stored: StoredCheckpoint,
    trust: SignatureKey | Iterable[SignatureKey],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> SignatureReport:
    """Who of `trust` has signed an open checkpoint of which more will be read; see `ckptfmt.open`."""
    if isinstance(stored.path, HeldPlace):
        message = "bytes and open files have no signature beside them"
        raise fault("not-signed", message, path=stored.path, advice="Give the path of the checkpoint")
    return _check(stored, trust, beside.beside(stored.path), storage_options, _refuse_files)


def _check(
    stored: StoredCheckpoint,
    trust: SignatureKey | Iterable[SignatureKey],
    where: str,
    storage_options: Mapping[str, Any] | None,
    check_files: Callable[[StoredCheckpoint, FileStatement, str], None],
) -> SignatureReport:
    """In this order: who has signed, then what, as nothing that a stranger has signed is worth looking at. [SIG-007]"""
    whom = keys.trusted(trust)
    try:
        data = beside.read(where, storage_options)
        if data is None:
            raise fault("not-signed", f"there is no signature at {where}")
        bundle = decode(data)
        signer, said = keys.signer(bundle, whom), statement.decode(bundle.payload)
        if isinstance(said, FileStatement):
            check_files(stored, said, where)
        else:
            _check_manifest(stored, said)
    except CkptError as error:
        error.path = error.path or stored.path
        raise
    form: SignatureForm = "model-signing" if isinstance(said, FileStatement) else "ckptfmt"
    return SignatureReport(stored.path, where, signer, stored.manifest_sha256, form)


def _refuse_files(stored: StoredCheckpoint, said: FileStatement, where: str) -> None:
    """What is read later may be other bytes than those that are hashed now. [SIG-010]"""
    raise fault(
        "bad-signature",
        "the signature is one of model-signing, of files: it tells nothing of what will be read later",
        advice="Ask ckptfmt.verify_signature, or sign the checkpoint with `ckptfmt sign`",
    )


def _check_files(stored: StoredCheckpoint, said: FileStatement, where: str, *, follow_links: bool) -> None:
    from .files import check_files

    check_files(stored, said, (where,), follow_links)


def _check_manifest(stored: StoredCheckpoint, said: ManifestStatement) -> None:
    """[SIG-001]"""
    if said.sha256 != stored.manifest_sha256:
        raise fault(
            "other-checkpoint",
            f"it is signed, but for another checkpoint, {said.name!r}: what stands here is not what was signed",
            found=stored.manifest_sha256,
            expected=said.sha256,
        )
    _check_strength(stored)


def _check_strength(stored: StoredCheckpoint) -> None:
    """[SIG-009] Of a patch, that of the base, too, of which the patch has the sha256. [PATCH-004]"""
    if stored.base is not None:
        _check_strength(stored.base)
    digest = stored.manifest.digest
    if digest not in STRONG:
        raise fault(
            "weak-digest",
            f"its blocks have digests of {digest}, under which others could be slipped",
            path=stored.path,
            found=digest,
            expected=" or ".join(STRONG),
        )


def _statement_of(stored: StoredCheckpoint) -> ManifestStatement:
    manifest = stored.manifest
    predicate = {
        "format": list(manifest.format),
        "layout": manifest.layout,
        "digest": manifest.digest,
        "tensors": len(manifest.names),
    }
    return ManifestStatement(_name(stored.path), stored.manifest_sha256, predicate)


def _statement_of_files(place: str, key: Any, follow_links: bool) -> FileStatement:
    from .files import digests_of

    if not hasattr(key, "curve"):
        raise fault("bad-key", "model-signing knows no such keys", found="Ed25519", expected="ECDSA")
    return FileStatement(_name(place), digests_of(place, (), follow_links))


def _name(place: str) -> str:
    return os.path.basename(place.rstrip("/")) or place
