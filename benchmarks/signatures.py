"""`python -m benchmarks.signatures`: signing a checkpoint and looking who has signed it, beside model-signing.

Both in one process, warm, interleaved. model-signing hashes every byte; here only the manifest is read, whose digests
every later read compares. Beside them: what a whole verification takes, which reads every byte as model-signing does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt

warnings.filterwarnings("ignore", module="cryptography|model_signing|sigstore")


def keys(folder: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = ec.generate_private_key(ec.SECP256R1())  # of which model-signing knows, too
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def calls(folder: Path, private: Path, public: Path) -> dict[str, Callable[[], object]]:
    from importlib import import_module

    signing, verifying = import_module("model_signing.signing"), import_module("model_signing.verifying")

    path, theirs = folder / "model.ckpt", folder / "theirs.sig"
    signer = signing.Config().use_elliptic_key_signer(private_key=private)
    return {
        "model-signing, sign": lambda: signer.sign(path, theirs),
        "model-signing, verify": lambda: (
            verifying.Config().use_elliptic_key_verifier(public_key=public).verify(path, theirs)
        ),
        "ckptfmt, sign": lambda: ckptfmt.sign(path, private, overwrite=True),
        "ckptfmt, verify_signature": lambda: ckptfmt.verify_signature(path, public),
        "ckptfmt, open": lambda: ckptfmt.open(path).close(),
        "ckptfmt, open(trust=)": lambda: ckptfmt.open(path, trust=public).close(),
        "ckptfmt, verify: every byte": lambda: ckptfmt.verify(path),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--tensors", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--digest", default="sha256", choices=["sha256", "blake3"])
    parser.add_argument("--dir", default=".")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=".benchmark-", dir=options.dir))
    try:
        count = options.mb * 1_000_000 // 4 // options.tensors
        one: Any = np.random.default_rng(0).standard_normal(count, np.float32)
        tree = {f"layer{n}": one + np.float32(n) for n in range(options.tensors)}
        ckptfmt.save(folder / "model.ckpt", tree, digest=options.digest, durable=False)
        del tree
        times: dict[str, list[float]] = {}
        asked = calls(folder, *keys(folder))
        for _ in range(options.rounds):
            for name, call in asked.items():
                begin = time.perf_counter()
                call()
                times.setdefault(name, []).append(time.perf_counter() - begin)
    finally:
        shutil.rmtree(folder)
    theirs = statistics.median(times["model-signing, verify"])
    packages = ", ".join(f"{name} {version(name)}" for name in ("ckptfmt", "model-signing", "cryptography"))
    print(
        f"{packages}; {options.mb} MB in {options.tensors} tensors, {options.digest}; load {os.getloadavg()[0]:.1f}\n"
    )
    print("| | ms, median (least to greatest) | model-signing's verify over it |")
    print("|---|---:|---:|")
    for name, found in times.items():
        median, least, most = (1000 * seconds for seconds in (statistics.median(found), min(found), max(found)))
        print(f"| {name} | {median:.1f} ({least:.1f}–{most:.1f}) | {1000 * theirs / median:,.1f} |")


if __name__ == "__main__":
    main()
