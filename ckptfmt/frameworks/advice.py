"""What helps where a target and a checkpoint differ: said with each difference, and only what can help. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..format.renaming import stripped
from .target import Difference, MatchReport, castable

_TOKENS = re.compile(r"[^./]*[./]|[^./]+")
SAMPLE = 4  # names that the others are compared with to find what they differ by
MOST = 3  # differences of shape that are explained


def advice(report: MatchReport, *, strict: bool, matched: bool) -> str:
    """What to do about differences. `matched`: whether the target has anything that the checkpoint has, too."""
    texts = [*_of_names(report, strict, matched), *_of_shapes(report.shape), *_of_dtypes(report.dtype)]
    if report.kind:
        texts.append("Make what is of another kind as the checkpoint has it, or leave it out and ask for strict=False")
    if report.readonly:
        texts.append("like= makes new arrays")
    if report.shared:
        texts.append("Give each of them memory of its own")
    return ". ".join(texts) or "Mend the target"


class Infix(NamedTuple):
    """What names have more than others: `text`, a prefix if `leads`; `covered` of the others are there without it."""

    text: str
    leads: bool
    covered: int


def infixes(longer: Collection[str], shorter: Collection[str]) -> list[Infix]:
    """What most names of `shorter` lack, and are then among `longer`: more than one where that is open."""
    wanted = set(shorter)
    sample = [_TOKENS.findall(name) for name in list(shorter)[:SAMPLE]]
    candidates = Counter(text for name in longer for text in _between(_TOKENS.findall(name), sample))
    found = [_covered(text, longer, wanted) for text, _ in candidates.most_common(SAMPLE)]
    best = max(((one.covered, one.leads) for one in found), default=(0, False))
    return [one for one in found if one.covered and (one.covered, one.leads) == best]


def _between(tokens: list[str], sample: list[list[str]]) -> Iterator[str]:
    for short in sample:
        more = len(tokens) - len(short)
        same = 0
        while more > 0 and same < len(short) and tokens[same] == short[same]:
            same += 1
        if more > 0 and tokens[same + more :] == short[same:]:
            yield "".join(tokens[same : same + more])


def _covered(text: str, longer: Iterable[str], wanted: set[str]) -> Infix:
    """How many names are there without a text, and whether it always leads a name, or a key in a path."""
    start = re.compile(rf"(?<![^./]){re.escape(text)}")
    leading: set[str] = set()
    anywhere: set[str] = set()
    for name in longer:
        places = list(start.finditer(name))
        for found in places:
            without = name[: found.start()] + name[found.end() :]
            (leading if found.start() == 0 or name[found.start() - 1] == "/" else anywhere).add(without)
        if len(places) > 1:
            anywhere.add(start.sub("", name))
    count = len(wanted & (leading | anywhere))
    return Infix(text, len(wanted & leading) == count, count)


def _of_names(report: MatchReport, strict: bool, matched: bool) -> Iterator[str]:
    missing, unexpected = report.missing, report.unexpected
    there, here = infixes(unexpected, missing), infixes(missing, unexpected)
    covered = [found[0].covered if found else 0 for found in (there, here)]
    if there and covered[0] >= covered[1]:
        yield f"{_share(there, missing, matched)}, which the checkpoint has: {_taken_off(there, unexpected, missing)}"
    elif here:
        yield f"{_share(here[:1], missing, matched)}, which the target has: {_put_before(here[0], missing)}"
    if (missing or unexpected) and 2 * max(covered) < len(missing or unexpected):
        if not matched and not max(covered):
            yield "No name of the target is in the checkpoint: see `ckptfmt inspect` for its names"
        elif strict and not missing:
            yield "select= takes a part of the checkpoint; strict=False passes over what is unexpected"
        elif strict and matched:
            yield "Mend the target, or allow what is missing and unexpected: strict=False"


def _share(found: list[Infix], missing: Collection[str], matched: bool) -> str:
    first, texts = found[0], " or ".join(repr(one.text) for one in found)
    names = "The missing names differ" if matched else "All names differ"
    if first.covered < len(missing):
        names = f"{first.covered} of {len(missing)} missing names differ"
    return f"{names} by the prefix {texts}" if first.leads else f"{names} by {texts} in them"


def _taken_off(found: list[Infix], unexpected: Collection[str], missing: Collection[str]) -> str:
    first, wanted = found[0], set(missing)
    text = first.text
    at_top = {name.removeprefix(text) for name in unexpected if name.startswith(text)}
    others = len(unexpected) > len(at_top) or "/" in text or len(found) > 1
    if len(at_top & wanted) == first.covered and others:
        return f"prefix={text.removesuffix('/')!r} loads what is below it"
    off = {"/".join(stripped(key, text) for key in name.split("/")) for name in unexpected}
    if len(off & wanted) >= first.covered:
        return f"strip_prefix={text!r} takes it off"
    return "a migration renames them (docs/migrations.md)"


def _put_before(found: Infix, missing: Iterable[str]) -> str:
    inner = "load into the module that is wrapped, or into the same module before it is wrapped or compiled"
    if found.text.endswith("/"):
        inner = "give what is below it as the target"
    at_top = sum(name.startswith(found.text) for name in missing)
    return f"add_prefix={found.text!r} puts it before, or {inner}" if at_top >= found.covered else inner


def _of_shapes(differences: Iterable[Difference]) -> list[str]:
    """What other shapes look like, and what helps then: of each kind for its first."""
    told: dict[Any, str] = {}
    for name, found, expected in differences:
        kind, text = _of_shape(name or "the root", tuple(found), tuple(expected))
        told.setdefault(kind, text)
    return list(told.values())[:MOST]


def _of_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> tuple[Any, str]:
    migration = "a migration (docs/migrations.md)"
    if len(found) == len(expected) > 1 and sorted(found) == sorted(expected):
        what = "is transposed" if len(found) == 2 else "has its axes in another order"
        return what, f"{name} {what}: {migration} with `rearrange` turns it"
    if found and found[1:] == expected:
        return "unstack", f"{name} looks like {found[0]} of what is expected: {migration} with `unstack` parts them"
    if expected and expected[1:] == found:
        return "stack", f"{name} looks like one of {expected[0]} in the target: {migration} with `stack` joins them"
    if len(found) == len(expected) and found[1:] == expected[1:]:
        what = f"{found[0]} along its first axis, not {expected[0]} (another vocabulary or number of classes?)"
        way = "make the target of that size, and change it after loading, or leave it as it is: mismatched='skip'"
        return (found[0], expected[0]), f"{name} has {what}: {way}"
    way = "make the target as the checkpoint has it, or leave it as it is: mismatched='skip'"
    return None, f"No option changes a shape: {way}"


def _of_dtypes(differences: Iterable[Difference]) -> list[str]:
    pairs = [(found, expected) for _, found, expected in differences]
    if not pairs:
        return []
    if all(_is_dtype(found) and _is_dtype(expected) and castable(found, expected) for found, expected in pairs):
        return ["cast=True takes the dtypes of the target"]
    return ["Give the target the dtypes of the checkpoint: a cast keeps the kind of number, or widens it"]


def _is_dtype(value: Any) -> bool:
    return isinstance(value, np.dtype)
