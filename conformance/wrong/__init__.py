"""Implementations that are wrong on purpose, each in one way: the tester is tested by what it says of them.

`python -m conformance.wrong NAME` runs one; `MUST_FAIL` names cases that each of them has to fail, at the least.
"""

from __future__ import annotations

MUST_FAIL: dict[str, list[str]] = {
    "accepts-everything": ["tree-missing", "record-crc32", "locate-text", "version-next", "node-map"],
    "refuses-everything": ["tree-base", "dtype-float32", "grid-uneven-file", "manifest-unknown-keys"],
    "ignores-digests": ["block-first-byte", "block-zeroed", "digest-sha256-file-bit", "block-digest-column"],
    "ignores-commit-record": ["record-crc32", "record-bit-in-sha256", "version-next", "manifest-bit"],
    "ignores-crc32": ["record-digit-in-crc32", "record-digit-in-frame", "record-digit-in-crc32-loose"],
    "ignores-frame-size": ["record-frame-size", "record-frame-size-loose"],
    "follows-links": ["link-chunk", "link-directory", "link-verify", "pages-packed-link", "pages-loose-link"],
    "trusts-zip-directory": ["zip-directory-lies"],
    "swaps-endianness": ["dtype-little-endian", "dtype-float32", "slice-all", "zarr-int16"],
    "drops-aliases": ["tree-aliases", "tree-aliases-list"],
    "pads-wrongly": ["write-edge-chunks"],
    "reads-whole-file": ["budget-slice"],
    "decodes-float-text": ["tree-floats"],
    "forgets-tuples": ["tree-containers"],
    "sorts-dicts": ["tree-dict-order"],
    "names-wrong-tensor": ["block-first-byte", "block-other-chunk"],
    "no-flush": ["commit-exclusive-file", "commit-exclusive-loose"],
    "leaves-temporary": ["refuse-existing-file-file", "refuse-leaf-file"],
    "overwrites": ["refuse-existing-file-file", "refuse-existing-other-file"],
    "clock-in-file": ["write-file-sha256"],
    "crashes": ["node-map", "record-crc32"],
    "prints-junk": ["tree-base"],
    "lies-about-features": ["codec-zstd"],
    "ignores-tensor-order": ["tree-index-order"],
    "migrates-in-place": ["migrate-move"],
    "upgrades-by-copying": ["upgrade-0-9-file", "upgrade-0-9-loose"],
    "forgets-provenance": ["migrate-move", "migrate-provenance"],
    "expands-pages-twice": ["pages-tree-twice"],
    "trusts-pages": ["pages-damaged-tensors", "pages-damaged-tree", "pages-tensors-sha256"],
    "forgets-what-pages-show-together": ["pages-verify-name", "pages-verify-plain-keys-true", "pages-verify-overlap"],
    "trusts-pages-of-directories": [
        *("pages-packed-damaged", "pages-packed-verify-damaged", "pages-loose-damaged", "pages-loose-verify-damaged"),
        *("pages-packed-verify-page-and-frame", "pages-loose-verify-page-and-frame"),
    ],
    "takes-first-part": ["pages-packed-base", "pages-packed-read", "pages-packed-part-beyond", "pages-packed-no-part"],
    "counts-parts-by-rows": ["pages-packed-base", "pages-packed-part-beyond", "pages-packed-part-fewer"],
    "ignores-packs": ["pages-packed-extent-beyond", "pages-packed-extent-overlap"],
    "takes-parts-as-they-are": ["pages-packed-parts-table", "pages-packed-parts-no-chunks", "pages-loose-parts"],
    "takes-pages-from-anywhere": ["pages-packed-offset", "pages-loose-offset"],
    "forgets-packs-without-tables": [
        "packed-verify-part-manifest-and-pack-longer-changed",
        "pages-packed-verify-page-and-pack-longer",
    ],
    "forgets-the-end-of-pages": ["pages-packed-verify-longer", "pages-loose-verify-longer"],
    "forgets-frames-of-paged-packs": ["pages-packed-verify-frame", "pages-packed-verify-pack-longer"],
    "takes-any-base": ["patch-wrong-base", "patch-wrong-base-again"],
    "ignores-sources": ["patch-source-beyond", "patch-source-count", "patch-source-width", "patch-source-same-dtype"],
    "takes-differences-for-elements": ["patch-read", "patch-codec-zstd", "golden-1-1-0-patch"],
    "believes-bases": ["patch-of-damaged-w"],
    "ignores-forms": ["patch-read", "patch-root-same", "patch-missing-base-w"],
}
