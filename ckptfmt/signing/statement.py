"""In-toto statements: what a signature says of a checkpoint (docs/spec/signatures.md, section 1). Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from .bundle import bad, parsed

STATEMENT = "https://in-toto.io/Statement/v1"
CHECKPOINT = "https://ckptfmt.dev/checkpoint/v1"  # predicate type, whose subject is a manifest
FILES = "https://model_signing/signature/v1.0"  # that of model-signing, whose subject is a list of digests of files
IGNORED = (".git", ".gitignore", ".gitattributes", ".github")  # by model-signing, unless it is asked otherwise


class ManifestStatement(NamedTuple):
    """That a checkpoint has the manifest with this sha256 (hexadecimal)."""

    name: str
    sha256: str
    predicate: dict[str, Any]

    def encode(self) -> bytes:
        return _encoded(self.name, self.sha256, CHECKPOINT, self.predicate)


class FileStatement(NamedTuple):
    """That a model consists of files with these sha256 (hexadecimal), as model-signing has it; one file alone has the
    name ".". What begins with an `ignored` name is not of the model."""

    name: str
    files: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...] = IGNORED

    def encode(self) -> bytes:
        serialization = {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": list(self.ignored),
        }
        resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in self.files]
        predicate = {"serialization": serialization, "resources": resources}
        return _encoded(self.name, _root(self.files), FILES, predicate)


def decode(payload: bytes) -> ManifestStatement | FileStatement:
    """The statement of a payload; raises `bad-signature`. [SIG-006]"""
    document = parsed(payload, "what is signed")
    match document:
        case {
            "_type": str(kind),
            "subject": [{"name": str(name), "digest": {"sha256": str(sha256)}}],
            "predicateType": str(predicate_type),
            "predicate": dict(predicate),
        } if kind == STATEMENT:
            if predicate_type == CHECKPOINT:
                return ManifestStatement(name, sha256, predicate)
            if predicate_type == FILES:
                return _files(name, sha256, predicate)
            raise bad(f"what is signed is of the type {predicate_type!r}")
    raise bad("what is signed is no in-toto statement of one subject")


def _files(name: str, sha256: str, predicate: dict[str, Any]) -> FileStatement:
    match predicate:
        case {
            "serialization": {"method": "files", "hash_type": "sha256", **serialization},
            "resources": list(resources),
        }:
            rows = [
                (one["name"], one["digest"])
                for one in resources
                if isinstance(one, dict) and one.get("algorithm") == "sha256"
                if isinstance(one.get("name"), str) and isinstance(one.get("digest"), str)
            ]
            ignored: Any = serialization.get("ignore_paths") or []
            is_list = isinstance(ignored, list) and all(type(one) is str for one in ignored)
            if is_list and len(rows) == len(resources) and _root(rows) == sha256:
                return FileStatement(name, tuple(rows), tuple(ignored))
    raise bad("what is signed is a list of files that is not of the form of model-signing, by sha256 of whole files")


def _root(files: Any) -> str:
    """The digest of a list of files: that of their digests, one after another."""
    try:
        return hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in files)).hexdigest()
    except ValueError:
        raise bad("a digest of a file is not hexadecimal") from None


def _encoded(name: str, sha256: str, predicate_type: str, predicate: dict[str, Any]) -> bytes:
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha256}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    return json.dumps(statement, separators=(",", ":"), ensure_ascii=False).encode()
