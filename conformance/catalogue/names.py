"""Names of Zarr nodes. SPEC.md section 4."""

from __future__ import annotations

from ..build import Checkpoint
from ..model import tensor
from . import edit, fault, valid

ONE, TWO = tensor("int8", (2,), "one"), tensor("int8", (2,), "two")
ODD = [
    *("", "a b", "a/b", "~", ".", "..", "...", "a.", "zarr.json", "__x", "0", "-1", "00", "c", "é", "漢", "\0", "\n"),
    *("CON", "aux.txt", "x" * 200, "%41", "~41", "A", "-", "_", "_a", "a~", "zarr.jsonx", ".hidden"),
]
UNFIT = {"CON", "aux.txt", "x" * 200}  # which a checkout may have no room for as the names of files
for _layout in ("file", "loose"):
    _keys = ODD if _layout == "file" else [key for key in ODD if key not in UNFIT]
    valid(
        f"names-odd-{_layout}",
        f"Tensors under keys that need escapes, in layout {_layout}.",
        "NAME-006 NAME-002",
        Checkpoint({key: tensor("uint8", (1,), key) for key in _keys}, layout=_layout),
    )
valid(
    "names-other-way",
    "The names of the manifest count, whatever the paths would give.",
    "NAME-006",
    Checkpoint({"a": ONE, "b": {"c": TWO}}, names=["x/y.z", "something-else~ZZ"]),
)
valid(
    "names-other-way-loose",
    "The same in plain files: chunks stand under the manifest's names.",
    "NAME-006 LAY-003",
    Checkpoint({"a": ONE, "b": {"c": TWO}}, names=["x/y.z", "other"], layout="loose"),
)
valid(
    "names-longest",
    "A name of 65,000 bytes.",
    "NAME-006",
    Checkpoint({"a": ONE}, names=["a" * 65_000]),
)
valid("names-two", "Two tensors side by side.", "NAME-006", Checkpoint({"a": ONE, "b": TWO}))
valid("names-common-prefix", "A name may be the beginning of another.", "NAME-006", Checkpoint({"a": ONE, "ab": TWO}))
BAD = {
    "repeated": ("Two tensors of one name.", "b"),
    "beneath": ("A tensor beneath another.", "b/c"),
    "far-beneath": ("A tensor far beneath another.", "b/c/d/e"),
    "empty-beside": ("The empty name beside another.", ""),
    "empty-segment": ("An empty segment.", "a//c"),
    "leading-slash": ("A name that begins with a slash.", "/a"),
    "trailing-slash": ("A name that ends with a slash.", "a/"),
    "dot": ("A segment that is one period.", "a/."),
    "dot-dot": ("A segment that leads upwards.", "../a"),
    "dot-dot-inside": ("A segment that leads upwards, inside.", "a/../../c"),
    "dots": ("A segment of periods alone.", "..."),
    "zarr-json": ("A segment that is a node document.", "a/zarr.json"),
    "reserved": ("A segment that begins with two underscores.", "__a"),
    "reserved-inside": ("A later segment that begins with two underscores.", "a/__b"),
    "space": ("A blank.", "a b"),
    "backslash": ("A backslash.", "a\\c"),
    "colon": ("A colon.", "c:a"),
    "non-ascii": ("A letter beyond ASCII.", "é"),
    "line-feed": ("A line feed.", "a\n"),
    "line-feed-inside": ("A line feed inside.", "a\nc"),
    "zero": ("A zero byte.", "a\0"),
    "too-long": ("A name of 65,001 bytes.", "a" * 65_001),
}
for _name, (_title, _bad) in BAD.items():
    fault(
        f"names-bad-{_name}",
        _title,
        "NAME-006 ERR-001" + (" SEC-003" if "dot-dot" in _name else ""),
        "names-two",
        edit("/tensors/name/0", _bad),
        "bad-manifest",
    )
fault("names-number", "A name that is a number.", "MAN-002", "names-two", edit("/tensors/name/0", 7), "bad-manifest")
