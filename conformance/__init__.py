"""The conformance suite of the ckptfmt checkpoint format: cases, and the runner that puts them to an implementation.

It needs the standard library and msgpack, and nothing of the package `ckptfmt`: what it expects comes from SPEC.md.
"""

from pathlib import Path

VERSION = "5.2.0"  # of the suite; apart from that of SPEC.md
HERE = Path(__file__).parent
SPEC = HERE.parent / "SPEC.md"
COMPANIONS = HERE.parent / "docs" / "spec"
DOCUMENTS = (SPEC, COMPANIONS / "migrations.md", COMPANIONS / "signatures.md")  # what has statements
VECTORS = HERE / "vectors"
