"""The public calls that lead through several rooms: what is asked for goes to the room that does it. Each other call
stands in the room that does it alone; `ckptfmt` names them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from .calls import takes
from .checkpoint import Checkpoint, within
from .errors import CorruptError
from .reading.checkpoint import REPLACED

if TYPE_CHECKING:
    from .format.tree import Tree
    from .options import LoadOptions, OpenOptions
    from .save_options import SaveOptions
    from .storage import Place, Storage
    from .writing.writer import SaveReport


@takes("ckptfmt.options.OpenOptions")
def open(path: Place, **options: Unpack[OpenOptions]) -> Checkpoint:
    """Open the checkpoint at `path`: reads commit record and manifest only. [READ-001] [READ-002]

    `path`: a path, or a URL of any protocol that fsspec knows ("s3://bucket/model.ckpt"), for which `storage_options`
    are handed to fsspec, or with `{"engine": "obstore", ...}` the others to obstore; or the bytes of a checkpoint in
    layout "file", or an open binary file, which holds one from where it stands to its end (a pipe is read into memory).
    `verify=False` reads exactly the wanted bytes, unchecked. `limits` bounds the memory that an untrusted checkpoint
    may take. `follow_links`: also through symbolic links in a checkpoint's folder to files in it, or in `blobs` beside
    it or beside the `snapshots` above it, as a cache of Hugging Face has them. [CHK-010] `prefix`, `strip_prefix` and
    `add_prefix` change the names of the tensors as in `load`. `framework`: "torch", "jax" or another that has an
    adapter, or an adapter: slices and whole tensors are that framework's. `base`: of a patch (`is_patch`), the
    checkpoint that it was made against, as a path or open, or several among which that is and, if it is a patch itself,
    its own base; a folder is looked through. Without it a base that lies beside the patch, on a disk, is found. What
    is no patch needs none. `trust`: public keys (paths, bytes of PEM, or keys of the package `cryptography`), one or
    several, or certificates: only if one of them has signed it, and with nothing read unverified; see
    `verify_signature`.

    With `schema`, a version of the checkpoint's parameter layout, or its id and version: the checkpoint as it is there,
    planned on the manifest and read lazily. `migrations`: a `MigrationSet`, documents (as dicts), paths of JSON or
    msgpack files, or an iterable of these. `source_schema`: id and version of a checkpoint that does not say its own.
    `down`: against the edges, through exact migrations; `lossy` allows lossy ones. `parameters`: values for those of
    the documents. `externs`: the functions that they name.

    Raises `MissingError` (`not-found`), `NotACheckpointError`, `CorruptError` (`truncated`, `bad-record`,
    `manifest-digest`, `bad-manifest`, `bad-extent`), `UnsupportedError` (`newer-format`, `unknown-…`,
    `limit-exceeded`), `LinkedError` (`linked-object`) and `StorageError`; with `base` also `wrong-base`; with `prefix`
    also `no-such-path`; with
    `trust` also `bad-key` and `SignatureError` (`not-signed`, `bad-signature`, `untrusted-key`, `other-checkpoint`,
    `weak-digest`); with
    `schema` also `bad-migration`, `unknown-extern`, `no-migration`, `ambiguous-migration`, `irreversible-migration`,
    and `migration-mismatch` with all faults of the plan in `.report`.
    """
    return Checkpoint(path, **options)


@takes("ckptfmt.options.LoadOptions")
def load(path: Place, **options: Unpack[LoadOptions]) -> Tree:
    """Load a checkpoint as the tree that was saved, with NumPy arrays. `path` is as in `open`.

    - `prefix`: only what stands at that path ("model", or its exact keys), or under names that begin with it
      ("model."), and without it. `strip_prefix`: a prefix, or several, that is taken off all names which begin with it:
      "module.", of DataParallel; those of torch.compile, FSDP and activation checkpointing ("_orig_mod.",
      "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.") wherever they stand; "model/" is a level at the top.
      `add_prefix` is put before the names at the top. In this order, before all else: migrations, too, see such names.
    - `select`: one or more globs over path texts ("model/**"); what they leave out is missing from dicts and `OMITTED`
      in lists and tuples; of a target or template it stays as it is, and is not missing.
    - `into`: a tree whose tensors (of any framework with an adapter) are filled in place; returns that tree with the
      checkpoint's plain values. Objects with `state_dict()` and `load_state_dict()` get their state as they load it
      themselves. Differences raise `MismatchError` before anything is written; `strict=False` allows missing and
      unexpected leaves, `cast=True` other dtypes of the same or a wider kind, `mismatched="skip"` tensors of other
      shapes, which stay as they are in the target. `on_match(report)` is called at the end, for `like`, too, with the
      differences that were allowed.
    - `like`: a tree of tensors or descriptions of tensors (such as `jax.ShapeDtypeStruct` with a sharding): returns a
      new tree of the same containers, NamedTuples and dataclasses too, with such tensors. Differences raise as for
      `into`; the text of an int where the template has that int as a key or an index, and None for an empty container
      are none.
    - `framework`: "torch", "jax" or another that has an adapter, or an adapter: tensors and tagged values of that
      framework. A dtype that it lacks raises `framework-dtype`; `cast=True` takes another of its kind.
    - `mmap`: raw tensors are private, copy-on-write mappings of the file, which nothing verifies unless `verify=True`
      says so. With `into`, of modules: their parameters and buffers on the host become such mappings; what else is read
      for them is verified.
    - `verify`: check every block's digest; True unless mapped.
    - `progress(done, total)` is called with bytes now and then, from any thread. `max_bytes_in_flight` bounds the host
      memory of tensors on their way to a device, but for the largest one, and of network buffers, but for one block.
    - `limits`: how much memory it may take beyond what is stored; see `Limits`.
    - `storage_options`: for URLs, handed to fsspec, or with `{"engine": "obstore", ...}` the others to obstore.
    - `follow_links`: also through symbolic links in its folder, as `open` says.
    - `trust`: as in `open`; `mmap=True` then verifies, too, and `verify=False` is refused.
    - `base`: the base of a patch, as in `open`; where it is neither given nor beside the patch, `missing-base` is
      raised for tensors that are made of it.
    - `schema`, with `migrations`, `source_schema`, `down`, `lossy`, `parameters` and `externs`, as in `open`: the tree
      as it is at that version.

    Raises what `open` raises, `no-match` for a pattern that selects nothing, and `CorruptError` for damage in what is
    read.
    """
    from .options import divided  # here, as opening needs no options where none is given

    opening, loading = divided(dict(options))
    for attempts_left in reversed(range(REPLACED + 1)):
        with Checkpoint(path, **opening) as checkpoint:
            try:
                return checkpoint.load(**loading)
            except CorruptError:
                # a directory's files go away when another takes its place
                if not attempts_left or not checkpoint.was_replaced():
                    raise
    raise AssertionError("the last attempt returns or raises")


@takes("ckptfmt.save_options.SaveOptions")
def save(path: Place, tree: Tree, **options: Unpack[SaveOptions]) -> SaveReport:
    """Save `tree` as one checkpoint at `path`: all of it, or nothing.

    - `tree`: nested dict / list / tuple of NumPy arrays (any shape, byte order and strides), NumPy scalars, None, bool,
      int, float, complex, str and bytes; other plain values of Python (docs/guide.md has the table), Enum members,
      NamedTuples, dataclasses, and what the adapters of imported frameworks know.
    - `skip`: patterns of paths, as `select` of `load` takes them: the entries of dicts, and of objects that are stored
      as such, that are left out. Items of lists and tuples keep their places.
    - `layout`: "file" (one file, the default), "packed" (a directory of packs) or "loose" (one of plain Zarr chunks).
    - `path`: a path, or a URL of any protocol that fsspec can write ("s3://bucket/model.ckpt"); then
      `storage_options` are handed to fsspec, or with `{"engine": "obstore", ...}` the others to obstore. Or an open
      binary file or pipe: once all is there it is written where that stands, as layout "file".
    - `overwrite=False` never touches what exists; True replaces it atomically: a file, or a directory that is a
      checkpoint with all that is in it. Permissions are those that the umask gives to new files.
    - `compression`: None (raw, can be mapped), "weights" (a codec for each dtype, which shrinks floats by what their
      exponents have in common), "zstd", "gzip", "blosc", a map of `name` and its options, or rules {pattern: one of
      these}, of which the first that matches a tensor's path counts.
    - `schema`: id and version of the parameter layout. `metadata`: a tree of plain values.
    - `durable`: flush to the disk before publishing. `digest`: "xxh3-128", "sha256" or "blake3".
    - `progress(done, total)` is called with bytes now and then, `before_commit()` once all is written. What they raise
      ends the save, and nothing is committed.
    - `coordinator`: save together with other processes (`ckptfmt.parallel`), all of which call this with the same path
      and options and with the parts of tensors that they hold; the layout is "packed".
    - `max_bytes_in_flight`: bounds the memory of uploads, of each process, but for eight parts of 5 MiB, or larger
      ones where the checkpoint would need more than 9,000 of them.
    - `extra`: further keys of the manifest, which readers ignore [MAN-003].
    - `paged`: whether names, tree and chunk tables stand in pages that are read when they are asked for, and in a file
      small tensors in stacks: None, the default, with 8192 tensors or a tree of 1 MiB and more. Such a checkpoint takes
      ckptfmt 1.1 to be read. [PAGE-010] With `coordinator`, rank 0 has the tables of all chunks in memory; None makes
      no pages of more than 1,048,576 chunks then.
    - `share_with`: the path of an earlier checkpoint in layout "packed" (so this one is, too) or "loose": what has not
      changed since is not written again, but linked, or copied by the store where both are. Each of the two stays whole
      without the other. The report says how much was shared, and why no more. [LAY-008]
    - `statistics`: whether least, greatest and mean element, deviation, counts of zeros, NaNs and others of each tensor
      are stored in the manifest, so that `stats(stored=True)` reads nothing for them. They are computed as the bytes
      pass.
    - `on_nan`: None; "refuse" raises `has-nan` where a tensor has a NaN, before anything is committed, so that what was
      there stays; "warn" commits, and then gives a `NanWarning`. Infinities are none: masks have them.
    - `check(checkpoint)`: called with what was written, opened, before it takes its name. What it raises is raised, and
      what was there before stays. A file for a store is made on this machine first. None of `extra`, `check`
      and `before_commit` goes together with `coordinator`.

    Raises `InputError` (codes `unsupported-…`, `too-deep`, `bad-option`, `name-…`, `shards-…`, `ranks-differ`,
    `has-nan`) before anything is committed, `ExistsError` (`exists`, `not-replaceable`), `MissingError` (no directory
    to save into) and `StorageError` (`disk-full`, `permission`, `io`, `rank-failed`, `rank-lost`). SPEC.md section 11.
    """
    asked: dict[str, Any] = dict(options)
    coordinator, check = asked.pop("coordinator", None), asked.pop("check", None)
    if coordinator is not None:
        from .parallel.save import save_together
        from .storage import path_of

        alone = {name: asked.pop(name, None) for name in ("extra", "before_commit")}
        return save_together(path_of(path, tree), tree, coordinator, alone={"check": check, **alone}, **asked)

    def examine(storage: Storage) -> None:
        with within(storage) as checkpoint:
            check(checkpoint)

    from .writing.writer import save as save_alone  # here, as reading needs no writer

    return save_alone(path, tree, check=None if check is None else examine, **asked)
