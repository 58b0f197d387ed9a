"""`ckptfmt sign`: a signature of checkpoints, beside each."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from .. import SignatureReport
from .. import sign as sign_checkpoint
from . import options
from .console import console, print_json
from .text import visible


@click.command(
    epilog="""\b
Examples:
  openssl genpkey -algorithm ed25519 -out key.pem
  openssl pkey -in key.pem -pubout -out key.pub
  ckptfmt sign --key key.pem model.ckpt
  ckptfmt verify --signed-by key.pub model.ckpt

The signature is of the manifest, which has the digests of all else; so the checkpoint must have digests that withstand
an adversary: save it with digest="sha256" or "blake3", or write it anew: ckptfmt convert --digest sha256 SOURCE TARGET.

The object of --json has: path, signature, signer, manifest_sha256 and form.

Exit codes: 0 fine, 1 the checkpoint is damaged, or its digests are too weak, 2 anything else.
""",
)
@click.argument("path", metavar="PATH", type=click.Path())
@click.option("--key", "-k", required=True, metavar="FILE", help="Private key: PEM, Ed25519 or ECDSA on P-256/384/521.")
@click.option(
    "--password", metavar="TEXT", envvar="CKPTFMT_KEY_PASSWORD", help="Of the key; or in $CKPTFMT_KEY_PASSWORD."
)
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    metavar="FILE",
    help="That of the key, then those up to one that is trusted; may be given several times.",
)
@click.option("--signature", "-o", metavar="FILE", help="Where to put it: by default at PATH.sig.")
@click.option(
    "--model-signing", is_flag=True, help="One that `model_signing verify` takes, of every byte of the files."
)
@options.overwrite("Replace a signature that is there.")
@options.follow_links
@options.as_json
def sign(path: str, model_signing: bool, as_json: bool, **asked: Any) -> int:
    """Sign the checkpoint at PATH, for `ckptfmt verify --signed-by` and load(trust=)."""
    report = sign_checkpoint(path, form="model-signing" if model_signing else "ckptfmt", **asked)
    if as_json:
        print_json(document(report))
    else:
        console().print(f"{visible(report.path)}: signed by {visible(report.signer)}: {visible(report.signature)}")
    return 0


def document(report: SignatureReport) -> dict[str, Any]:
    """A signature, for --json."""
    return dataclasses.asdict(report)
