"""Patterns over paths: how a migration names the tensors that it moves (docs/spec/migrations.md). Pure.

A pattern is the text of a path, or an array of its keys; a key in quotes is a str in a text, too, as in the labels that
messages show: `vars/'0'`. Keys are cut into **segments** at `.`, as the keys of state dicts are; a segment is a literal
or a capture, and nothing is ever matched within a segment but a number after a literal (`Dense_{i:int}`). The same
pattern matches paths and builds them, so that every rule can be read backwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..format.names import Key, Path, path_label
from ..near import near_pattern, suggestion

Token = str | int  # a segment, or the separator between two: "/" between keys, "." within one
Captures = dict[str, Any]  # int, str or, for `**`, a tuple of tokens

_PART = re.compile(r"\{\{|\}\}|\{[^{}]*\}|/|\.|[^{}/.]+")
_CAPTURE = re.compile(
    r"\{(?:(?P<scale>[1-9][0-9]{0,8})\*)?(?P<name>[a-z][a-z0-9_]*)(?:(?P<sign>[+-])(?P<offset>[0-9]{1,9}))?"
    r"(?::(?P<kind>[^{}]+))?\}"
)
_CAPTURED = re.compile(r"\{[^{}]*\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_UNQUOTED = re.compile(r"(?:\{\{|\}\}|\{[^{}]*\}|[^{}/])*+")


class CaptureKind(NamedTuple):
    """What a capture stands for: `form` "int", "digits", "text" or "rest"; bounds of a number; the texts allowed."""

    form: str
    low: int = 0
    high: int | None = None
    texts: tuple[str, ...] | None = None


class Capture(NamedTuple):
    """A capture in its place: after a literal `prefix`, and with `scale` * value + `offset` for a number."""

    name: str
    prefix: str = ""
    scale: int = 1
    offset: int = 0


TEXT = CaptureKind("text")
Segment = str | int | Capture


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern. `segments` and `separators` alternate; `text` is how it was written."""

    text: str
    segments: tuple[Segment, ...]
    separators: tuple[str, ...]
    kinds: Mapping[str, CaptureKind]

    @property
    def captures(self) -> frozenset[str]:
        return frozenset(segment.name for segment in self.segments if isinstance(segment, Capture))

    def match(self, tokens: tuple[Token, ...]) -> Captures | None:
        """What the captures stand for in a path (as `tokens_of` gives it), or None."""
        count = len(self.segments)
        found: Captures = {}
        rest = next((i for i, segment in enumerate(self.segments) if self._is_rest(segment)), None)
        if rest is None:
            if len(tokens) != max(0, 2 * count - 1) or tokens[1::2] != self.separators:
                return None
            pairs = zip(self.segments, tokens[::2], strict=True)
            return found if all(self._take(*pair, found) for pair in pairs) else None
        after = count - rest - 1
        if len(tokens) < 2 * count - 1:
            return None
        stop = len(tokens) - 2 * after
        if tokens[1 : 2 * rest : 2] != self.separators[:rest] or tokens[stop::2] != self.separators[rest:]:
            return None
        heads = zip(self.segments[:rest], tokens[: 2 * rest : 2], strict=True)
        tails = zip(self.segments[rest + 1 :], tokens[stop + 1 :: 2], strict=True)
        if not all(self._take(*pair, found) for pair in (*heads, *tails)):
            return None
        found[self.segments[rest].name] = tokens[2 * rest : stop]  # type: ignore[union-attr]
        return found

    def build(self, captures: Captures) -> Path:
        """The path for these captures; ValueError if a number becomes negative."""
        tokens: list[Token] = []
        for number, segment in enumerate(self.segments):
            if number:
                tokens.append(self.separators[number - 1])
            tokens += self._give(number, segment, captures)
        return _path(tokens)

    def _is_rest(self, segment: Segment) -> bool:
        return isinstance(segment, Capture) and self.kinds[segment.name].form == "rest"

    def _take(self, segment: Segment, token: Token, found: Captures) -> bool:
        if not isinstance(segment, Capture):
            return type(segment) is type(token) and segment == token
        kind = self.kinds[segment.name]
        value: Any
        if kind.form == "text":
            if type(token) is not str or (kind.texts is not None and token not in kind.texts):
                return False
            value = token
        else:
            digits = token[len(segment.prefix) :] if type(token) is str and token.startswith(segment.prefix) else ""
            if type(token) is int:
                number = token
            elif _NUMBER.fullmatch(digits) and len(digits) < 19:
                number = int(digits)
            else:
                return False
            value, remainder = divmod(number - segment.offset, segment.scale)
            if remainder or value < kind.low or (kind.high is not None and value > kind.high):
                return False
        return found.setdefault(segment.name, value) == value and self._fits(segment, token)

    def _fits(self, segment: Capture, token: Token) -> bool:
        """Whether a number has the type that its place asks for: int for a whole key, else decimal digits."""
        form = self.kinds[segment.name].form
        return form == "text" or (type(token) is int) == (form == "int" and self._is_key(segment))

    def _is_key(self, segment: Capture) -> bool:
        number = self.segments.index(segment)
        around = self.separators[max(0, number - 1) : number + 1]
        return not segment.prefix and "." not in around

    def _give(self, number: int, segment: Segment, captures: Captures) -> Iterable[Token]:
        if not isinstance(segment, Capture):
            return (segment,)
        value = captures[segment.name]
        form = self.kinds[segment.name].form
        if form == "rest":
            return tuple(value)
        if form == "text":
            return (value,)
        result = segment.scale * value + segment.offset
        if result < 0:
            raise ValueError(f"{self.text!r} gives the number {result} for {segment.name} = {value}")
        return (result if form == "int" and self._is_key(segment) else f"{segment.prefix}{result}",)


def tokens_of(path: Path) -> tuple[Token, ...]:
    """A path as segments with their separators between them."""
    tokens: list[Token] = []
    for key in path:
        if isinstance(key, int):
            tokens += ("/", key)
            continue
        separator = "/"
        for segment in key.split("."):
            tokens += (separator, segment)
            separator = "."
    return tuple(tokens[1:])


def _path(tokens: list[Token]) -> Path:
    keys: list[Key] = []
    for separator, token in zip(["/", *tokens[1::2]], tokens[::2], strict=True) if tokens else ():
        if separator == "/":
            keys.append(token)
        else:
            keys[-1] = f"{keys[-1]}.{token}"
    return tuple(keys)


def parse_patterns(written: Iterable[Any]) -> list[Pattern]:
    """The patterns of one rule, which share their captures; ValueError says what is wrong."""
    drafts = [_parse(item) for item in written]
    kinds: dict[str, CaptureKind] = {}
    for _, _, _, declared in drafts:
        for name, kind in declared:
            if kind is not None and kinds.setdefault(name, kind) != kind:
                raise ValueError(f"the capture {name!r} is declared in two ways")
    for _, _, _, declared in drafts:
        for name, _ in declared:
            kinds.setdefault(name, TEXT)
    patterns = [Pattern(text, segments, separators, kinds) for text, segments, separators, _ in drafts]
    for pattern in patterns:
        _check(pattern)
    return patterns


def near_paths(pattern: Pattern, paths: Iterable[tuple[Token, ...]]) -> str:
    """What to add to a message that says that a pattern matches none of the paths, which are given as tokens."""
    tokens = {path_label(_path(list(path))): path for path in paths}

    def fits(text: str, labels: Iterable[str]) -> bool:
        try:
            (other,) = parse_patterns([text])
        except ValueError:
            return False
        mended = replace(other, kinds={**other.kinds, **pattern.kinds})  # some are declared in another pattern
        return any(mended.match(tokens[label]) is not None for label in labels)

    return suggestion(near_pattern(pattern.text, _CAPTURED, tokens, fits))


def literal_path(written: Any) -> Path:
    """The path that a pattern without captures stands for; ValueError if it has some."""
    (pattern,) = parse_patterns([written])
    if pattern.captures:
        raise ValueError(f"{pattern.text!r} must not have captures")
    return pattern.build({})


def _check(pattern: Pattern) -> None:
    captures = [segment for segment in pattern.segments if isinstance(segment, Capture)]
    if len({capture.name for capture in captures}) < len(captures):
        raise ValueError(f"{pattern.text!r} uses a capture twice")
    for capture in captures:
        form = pattern.kinds[capture.name].form
        if form not in ("int", "digits") and (capture.prefix or capture.scale != 1 or capture.offset):
            raise ValueError(f"{pattern.text!r} computes with {capture.name!r}, which is not an int")
    if sum(pattern.kinds[capture.name].form == "rest" for capture in captures) > 1:
        raise ValueError(f"{pattern.text!r} has more than one '**'")


_ParsedPattern = tuple[str, tuple[Segment, ...], tuple[str, ...], list[tuple[str, CaptureKind | None]]]


def _parse(written: Any) -> _ParsedPattern:
    match written:
        case str():
            keys: list[Any] = _keys(written)
        case [*items] if all(type(item) in (str, int) for item in items):
            keys = [item if type(item) is int else _parts(item) for item in items]
        case _:
            raise ValueError(f"a pattern is a string or an array of keys, not {written!r:.60}")
    segments: list[Segment] = []
    separators: list[str] = []
    declared: list[tuple[str, CaptureKind | None]] = []
    for key in keys:
        separator = "/"
        for parts in [[key]] if type(key) is int else _segments(key):
            if segments:
                separators.append(separator)
            separator = "."
            segments.append(_segment(parts, declared, str(written)))
    text = written if isinstance(written, str) else repr(written)
    return text, tuple(segments), tuple(separators), declared


def _parts(text: str) -> list[str]:
    parts = _PART.findall(text)
    if sum(map(len, parts)) != len(text):
        raise _unbalanced(text)
    return parts


def _unbalanced(text: str) -> ValueError:
    return ValueError(f"the braces of {text!r} do not match; a brace of a name is written twice")


def _keys(text: str) -> list[int | list[str]]:
    """The keys of a pattern text: an int for one of digits alone, as in the names of tensors, else its parts."""
    keys: list[int | list[str]] = []
    closed = f"{text}/"
    last = {quote: closed.rfind(f"{quote}/") for quote in "'\""}  # where the last key in such quotes ends
    start = 0
    while start < len(text) or text[start - 1 : start] == "/":
        quote = text[start : start + 1]
        if last.get(quote, -1) > start:
            end = closed.index(f"{quote}/", start + 1) + 1
            keys.append(_parts(text[start + 1 : end - 1]))
        else:
            found = _UNQUOTED.match(text, start)
            assert found is not None  # it can be empty
            end = found.end()
            if text[end : end + 1] not in ("", "/"):
                raise _unbalanced(text)
            keys.append(int(found[0]) if _NUMBER.fullmatch(found[0]) else _parts(found[0]))
        start = end + 1
    return keys


def _segments(parts: list[str]) -> list[list[str]]:
    segments: list[list[str]] = [[]]
    for part in parts:
        if part == ".":
            segments.append([])
        else:
            segments[-1].append(part)
    return segments


def _segment(parts: list[Any], declared: list[tuple[str, CaptureKind | None]], pattern: str) -> Segment:
    if len(parts) == 1 and type(parts[0]) is int:
        return parts[0]
    is_capture = [part[0] == "{" and part != "{{" for part in parts]
    literal = "".join({"{{": "{", "}}": "}"}.get(part, part) for part in parts[: len(parts) - any(is_capture)])
    if not any(is_capture):
        return literal
    capture = _CAPTURE.fullmatch(parts[-1])
    if capture is None or sum(is_capture) > 1 or not is_capture[-1]:
        raise ValueError(f"{''.join(parts)!r} in {pattern!r} is neither a literal nor a capture")
    declared.append((capture["name"], _kind(capture["kind"])))
    if literal and literal[-1].isdigit():
        raise ValueError(f"{''.join(parts)!r} in {pattern!r} has a digit before a number")
    offset = int(capture["offset"] or 0) * (-1 if capture["sign"] == "-" else 1)
    return Capture(capture["name"], literal, int(capture["scale"] or 1), offset)


def _kind(written: str | None) -> CaptureKind | None:
    if written is None:
        return None
    if written in ("int", "digits"):
        return CaptureKind(written)
    if written == "**":
        return CaptureKind("rest")
    bounds = _RANGE.fullmatch(written)
    if bounds:
        return CaptureKind("int", int(bounds[1]), int(bounds[2]))
    return CaptureKind("text", texts=tuple(written.split("|")))
