"""The rows of the closed registry of error codes (SPEC.md section 16), which `errors` reads once there is an error."""

from __future__ import annotations

from typing import NamedTuple


class CodeRow(NamedTuple):
    """The name of the error class, the phase, what it means, what to do."""

    error: str
    phase: str
    meaning: str
    advice: str


_CHECK = "Ask ckptfmt.check(tree) before a run; nothing was written"
_RESTORE = "Restore this file from another copy"
TABLE: dict[str, CodeRow] = {
    # locate
    "not-found": CodeRow("MissingError", "locate", "nothing is at the path", "Check the path"),
    "not-a-checkpoint": CodeRow(
        "NotACheckpointError", "locate", "what is there is no checkpoint", "Give the path of a ckptfmt checkpoint"
    ),
    "temporary": CodeRow(
        "NotACheckpointError",
        "locate",
        "the temporary of an unfinished save",
        "Use the checkpoint beside it; the temporary can be deleted once no save runs",
    ),
    "truncated": CodeRow(
        "CorruptError",
        "locate",
        "begins like a checkpoint and has no commit record",
        "The copy or download is incomplete: fetch it again",
    ),
    "permission": CodeRow("StorageError", "storage", "the system denied access", "Check owner and permissions"),
    "io": CodeRow("StorageError", "storage", "the system reported an I/O error", "Check the disk, then try again"),
    "disk-full": CodeRow(
        "StorageError",
        "storage",
        "no space left, or quota reached",
        "Free some space and save again; nothing that was stored is affected",
    ),
    "temporary-lost": CodeRow(
        "StorageError",
        "storage",
        "what a save had written was removed before it was published",
        "Save again; nothing was committed, and what was there is untouched",
    ),
    "exclusive-unsupported": CodeRow(
        "StorageError",
        "storage",
        "the storage cannot create exclusively",
        "Save with overwrite=True and a single writer, or elsewhere",
    ),
    # commit
    "bad-record": CodeRow("CorruptError", "commit", "the commit record is damaged", _RESTORE),
    "newer-format": CodeRow(
        "UnsupportedError", "commit", "a major version that this reader does not know", "Upgrade ckptfmt"
    ),
    "older-format": CodeRow(
        "UnsupportedError",
        "commit",
        "an earlier version that this reader does not read any more",
        "Upgrade it with an earlier release of ckptfmt",
    ),
    # manifest
    "manifest-digest": CodeRow("CorruptError", "manifest", "manifest bytes do not match their sha256", _RESTORE),
    "bad-manifest": CodeRow(
        "CorruptError",
        "manifest",
        "the manifest breaks the specification",
        "The program that wrote it is at fault: report it there",
    ),
    "bad-extent": CodeRow(
        "CorruptError", "manifest", "a chunk lies outside its object, overlaps another or has a wrong length", _RESTORE
    ),
    "unknown-feature": CodeRow(
        "UnsupportedError", "manifest", "a required feature that this reader does not know", "Upgrade ckptfmt"
    ),
    "unknown-dtype": CodeRow(
        "UnsupportedError", "manifest", "a dtype that this reader does not know", "Upgrade ckptfmt"
    ),
    "unknown-codec": CodeRow(
        "UnsupportedError",
        "manifest",
        "a codec chain that this reader does not know",
        "Upgrade ckptfmt, or save with zstd, gzip, blosc or none",
    ),
    "unknown-digest": CodeRow(
        "UnsupportedError",
        "manifest",
        "a digest algorithm that this reader does not know",
        "Upgrade ckptfmt, or install the package that the message names",
    ),
    "limit-exceeded": CodeRow(
        "UnsupportedError", "manifest", "larger than the reader's limit", "If you trust the file, raise the limit"
    ),
    # chunk
    "missing-object": CodeRow("CorruptError", "chunk", "an object of the checkpoint is missing", _RESTORE),
    "short-object": CodeRow("CorruptError", "chunk", "an object is shorter than its chunk", _RESTORE),
    "linked-object": CodeRow(
        "LinkedError",
        "chunk",
        "an object is a symbolic link, or lies behind one",
        "Follow links into the cache: follow_links=True; or fetch it without links: local_dir=",
    ),
    "block-digest": CodeRow(
        "CorruptError",
        "chunk",
        "a block's bytes do not match their digest",
        "Restore this tensor from another copy; the other tensors still load",
    ),
    "bad-chunk": CodeRow(
        "CorruptError",
        "chunk",
        "a chunk does not decode to its array",
        "Restore this tensor from another copy; the other tensors still load",
    ),
    "frame-digest": CodeRow(
        "CorruptError",
        "chunk",
        "bytes outside chunks and manifest changed",
        "All values are intact; save again from a load to mend the file for other tools",
    ),
    "bad-statistics": CodeRow(
        "CorruptError",
        "chunk",
        "stored statistics are not those of the elements",
        "The elements are verified and right: measure them, and tell whoever wrote the file",
    ),
    # select
    "no-such-path": CodeRow(
        "SelectionError", "select", "the tree has no such path", "See `ckptfmt inspect` for the paths"
    ),
    "ambiguous-path": CodeRow(
        "SelectionError",
        "select",
        "a path text that fits two values",
        "Give the exact path: ckpt['a', 0]",
    ),
    "no-match": CodeRow("SelectionError", "select", "select= matches nothing", "See `ckptfmt inspect` for the paths"),
    "bad-index": CodeRow(
        "SelectionError",
        "select",
        "an index that does not fit, or that the interface does not take",
        "Use ints, slices and ..., or read the tensor and index the array",
    ),
    "mismatch": CodeRow(
        "MismatchError",
        "select",
        "target and checkpoint differ",
        "Mend the target",
    ),
    "missing-base": CodeRow(
        "InputError",
        "select",
        "a tensor of a patch is made of its base, which was not given",
        "Give the base, or a folder with it: base=PATH",
    ),
    "wrong-base": CodeRow(
        "InputError",
        "select",
        "what was given as the base of a patch is another checkpoint",
        "Give the checkpoint that the patch was made against, or a folder with it",
    ),
    "framework-dtype": CodeRow(
        "MismatchError",
        "select",
        "a framework has no tensors of a stored dtype",
        "Ask for cast=True, leave the tensor out with select=, or load it as NumPy array",
    ),
    # save
    "unsupported-leaf": CodeRow("InputError", "save", "a leaf that has no encoding", _CHECK),
    "unsupported-key": CodeRow("InputError", "save", "a dict key that is neither str nor int", _CHECK),
    "unsupported-dtype": CodeRow("InputError", "save", "an array dtype that has no encoding", _CHECK),
    "too-deep": CodeRow(
        "InputError",
        "save",
        "containers nested too deeply, or containing themselves",
        "Flatten the tree; nothing was written",
    ),
    "shards-missing": CodeRow(
        "InputError",
        "save",
        "elements of a tensor that no process holds",
        "Save from all processes together, with coordinator=; nothing was written",
    ),
    "shards-overlap": CodeRow(
        "InputError",
        "save",
        "elements of a tensor that two processes hold in different shards",
        "Give each element to one shard; nothing was committed",
    ),
    "ranks-differ": CodeRow(
        "InputError",
        "save",
        "processes that act together hold different trees or options, or make different calls",
        "Give every process the same calls, options, plain values, shapes and dtypes; nothing was committed",
    ),
    "rank-failed": CodeRow(
        "StorageError",
        "storage",
        "another process that takes part failed",
        "See to the error of that process, then try again with all",
    ),
    "rank-lost": CodeRow(
        "StorageError",
        "storage",
        "a process that takes part has ended, or did not answer in time",
        "Look at the processes named, and make a new coordinator; until rank 0 has published nothing is committed",
    ),
    "writer-lost": CodeRow(
        "StorageError",
        "storage",
        "the process that writes for a manager has ended, or cannot be started",
        "Save again: another process is started; look for the step first, as it may be there as a whole",
    ),
    "no-memory": CodeRow(
        "StorageError",
        "storage",
        "the system has no memory for the copy of a tree",
        "Save with block=True, which needs no copy, or with fewer saves in flight",
    ),
    "name-too-long": CodeRow(
        "InputError", "save", "a node name that the storage cannot hold", "Shorten it; layout='file' takes longer keys"
    ),
    "name-collision": CodeRow(
        "InputError",
        "save",
        "two node names that the storage cannot tell apart",
        "Rename one, or use layout='file' for keys",
    ),
    "bad-option": CodeRow(
        "InputError",
        "save",
        "an option's value is not allowed",
        "Change the option that the message names: help() of the call says what it takes",
    ),
    "has-nan": CodeRow(
        "InputError",
        "save",
        "tensors with NaNs, where on_nan='refuse' asks to save none",
        "Find where they come from; nothing was committed, and what was there before stays",
    ),
    "exists": CodeRow("ExistsError", "save", "the target exists", "Choose another path, or replace it: overwrite=True"),
    "not-replaceable": CodeRow(
        "ExistsError",
        "save",
        "the target cannot be replaced atomically",
        "Choose another path, or remove the target yourself",
    ),
    # recompute
    "not-deterministic": CodeRow(
        "InputError",
        "recompute",
        "a step that is called again gives another state",
        "Put what it draws from into the state",
    ),
    "state-changed": CodeRow(
        "InputError",
        "recompute",
        "a state has another tree than the initial one",
        "Give all states one form: pad what grows",
    ),
    # migrate
    "bad-migration": CodeRow(
        "InputError",
        "migrate",
        "a migration document breaks the specification",
        "Mend the document: docs/spec/migrations.md has its rules",
    ),
    "no-migration": CodeRow(
        "InputError",
        "migrate",
        "no chain of migrations leads there",
        "Add the missing migration, or name other versions",
    ),
    "ambiguous-migration": CodeRow(
        "InputError", "migrate", "more than one chain of migrations leads there", "Migrate in steps, or remove an edge"
    ),
    "migration-mismatch": CodeRow(
        "InputError",
        "migrate",
        "migrations and checkpoint do not fit",
        "Mend the migration; no tensor was read and nothing was written",
    ),
    "irreversible-migration": CodeRow(
        "InputError",
        "migrate",
        "a chain of migrations that cannot be run backwards without loss",
        "Restore the checkpoint of the earlier version, or allow what is merely lossy",
    ),
    "unknown-extern": CodeRow(
        "InputError", "migrate", "a migration requires a function that was not given", "Give the function with externs="
    ),
    # sign
    "not-signed": CodeRow(
        "SignatureError",
        "sign",
        "there is no signature",
        "Get the file with it (its name ends in .sig), or read without trust= what you need not trust",
    ),
    "bad-signature": CodeRow(
        "SignatureError",
        "sign",
        "a signature that breaks the specification, or that the key has not made",
        "Fetch checkpoint and signature again; if that does not help, do not use them, and tell who published them",
    ),
    "untrusted-key": CodeRow(
        "SignatureError",
        "sign",
        "signed by none of those who are trusted",
        "Ask who publishes it for the public key, by another way than the checkpoint came",
    ),
    "other-checkpoint": CodeRow(
        "SignatureError",
        "sign",
        "the signature is of another checkpoint",
        "Fetch checkpoint and signature anew, together; whoever changed the checkpoint has to sign it again",
    ),
    "weak-digest": CodeRow(
        "SignatureError",
        "sign",
        "digests of blocks that do not withstand an adversary",
        'Save it with digest="sha256", or write it anew: `ckptfmt convert --digest sha256 SOURCE TARGET`',
    ),
    "bad-key": CodeRow("InputError", "sign", "a key or certificate that cannot be used", "Give a key in PEM"),
    # convert
    "unknown-format": CodeRow(
        "InputError",
        "convert",
        "a format that no converter knows, or cannot read or write",
        "Name it with source_format= or target_format=; `ckptfmt convert --formats` lists them",
    ),
    "ambiguous-source": CodeRow(
        "InputError", "convert", "a folder with several checkpoints, of which none comes first", "Give the path of one"
    ),
    "missing-package": CodeRow(
        "UnsupportedError", "convert", "a package that is required here is missing", "Install it, then try again"
    ),
    "bad-source": CodeRow(
        "CorruptError",
        "convert",
        "a file of another format breaks that format's rules",
        "Fetch or write the file again",
    ),
    "unsafe-source": CodeRow(
        "UnsupportedError",
        "convert",
        "a source asks to run code, or to open what lies outside it",
        "Nothing was run; if you trust it, load it with the program that wrote it and save the tensors",
    ),
    "unsupported-source": CodeRow(
        "UnsupportedError",
        "convert",
        "a source holds something that no checkpoint here can hold",
        "Load it with the program that wrote it and save what is left out as tensors or plain values",
    ),
    "lossy": CodeRow(
        "InputError",
        "convert",
        "the target format cannot hold everything",
        "Choose another target, or allow it: allow_loss=True",
    ),
    "not-equal": CodeRow(
        "CorruptError",
        "convert",
        "what was written differs from the source",
        "Nothing was published: the source has changed meanwhile, or a disk or memory errs; convert again",
    ),
}
