"""The part of CDDL (RFC 8610) that the annex of SPEC.md is written in: rules, choices, maps, arrays, literals, ranges
and `.size`. A value fits a rule or not.

It stands here because the validators on PyPI do not do: they accept arrays whose items fit none of the alternatives, or
cannot be imported beside the newest cbor2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Form = Callable[[Any], bool]
_TOKEN = re.compile(r'\s*(?:;.*\s*)*("[^"]*"|-?\d+|\.\.|\.size|=>|[a-zA-Z][a-zA-Z0-9_-]*|[\[\]{}()=/:,?*+])')
_PRELUDE: dict[str, Form] = {
    "any": lambda value: True,
    "nil": lambda value: value is None,
    "bool": lambda value: type(value) is bool,
    "int": lambda value: type(value) is int,
    "uint": lambda value: type(value) is int and value >= 0,
    "float": lambda value: type(value) is float,
    "tstr": lambda value: type(value) is str,
    "bstr": lambda value: type(value) is bytes,
}


class Grammar:
    """A parsed text; `fits(rule, value)` applies one of its `rules`."""

    def __init__(self, text: str) -> None:
        self.tokens, at = [], 0
        while text[at:].strip() and (match := _TOKEN.match(text, at)):
            self.tokens.append(match[1])
            at = match.end()
        if re.sub(";.*", "", text[at:]).strip():
            raise ValueError(f"no token of CDDL: {text[at:][:40]!r}")
        self.at = 0
        self.rules: dict[str, Form] = {}
        self.named: set[str] = set()
        while self.at < len(self.tokens):
            name = self.take()
            self.take("=")
            if name in self.rules or name in _PRELUDE:
                raise ValueError(f"{name} is defined twice")
            self.rules[name] = self.type()
        if missing := self.named - self.rules.keys():
            raise ValueError(f"no rule {missing}")

    def fits(self, rule: str, value: Any) -> bool:
        return self.rules[rule](value)

    # ---- parsing

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if expected and token != expected:
            raise ValueError(f"{token!r} stands where {expected!r} has to")
        self.at += 1
        return token

    def type(self) -> Form:
        forms = [self.single()]
        while self.peek() == "/":
            self.take()
            forms.append(self.single())
        return forms[0] if len(forms) == 1 else lambda value: _any_fits(forms, value)

    def single(self) -> Form:
        token = self.take()
        if token == "[":
            return self.array()
        if token == "{":
            return self.map()
        if token == "(":
            form = self.type()
            self.take(")")
        elif token.startswith('"'):
            form = self.literal(token[1:-1])
        elif re.fullmatch(r"-?\d+", token):
            form = self.number(int(token))
        elif token in _PRELUDE:
            form = _PRELUDE[token]
        else:
            self.named.add(token)
            form = lambda value: self.rules[token](value)  # noqa: E731
        if self.peek() == ".size":
            self.take()
            return self.sized(form, self.single())
        return form

    def literal(self, text: str) -> Form:
        return lambda value: type(value) is str and value == text

    def number(self, first: int) -> Form:
        last = first
        if self.peek() == "..":
            self.take()
            last = int(self.take())
        return lambda value: type(value) is int and first <= value <= last

    def sized(self, form: Form, size: Form) -> Form:
        return lambda value: form(value) and size(len(value.encode() if type(value) is str else value))

    def array(self) -> Form:
        items: list[tuple[str, Form]] = []  # how often, and what
        while self.peek() != "]":
            often = self.take() if self.peek() in ("?", "*", "+") else ""
            if self.peek(1) == ":":
                self.take()
                self.take(":")
            items.append((often, self.type()))
            if self.peek() == ",":
                self.take()
        self.take("]")
        return lambda value: type(value) is list and _all_fit(items, value)

    def map(self) -> Form:
        entries: dict[str, tuple[bool, Form]] = {}  # by key: whether it may be missing, and its value
        is_open = False
        while self.peek() != "}":
            often = self.take() if self.peek() in ("?", "*") else ""
            key = self.take()
            if self.peek() == "=>":
                self.take()
                if (often, key, self.take()) != ("*", "tstr", "any"):
                    raise ValueError("the only open entry is `* tstr => any`")
                is_open = True
            else:
                self.take(":")
                entries[key] = often == "?", self.type()
            if self.peek() == ",":
                self.take()
        self.take("}")

        def form(value: Any) -> bool:
            if type(value) is not dict or not (is_open or value.keys() <= entries.keys()):
                return False
            for key, (optional, one) in entries.items():  # noqa: SIM110
                if not (one(value[key]) if key in value else optional):
                    return False
            return True

        return form


def _any_fits(forms: list[Form], value: Any) -> bool:
    """No `any`, nor `all` elsewhere, through which Python 3.12 does not go as deep."""
    for form in forms:  # noqa: SIM110
        if form(value):
            return True
    return False


def _all_fit(items: list[tuple[str, Form]], values: list[Any]) -> bool:
    """Whether the values are items in their order; a repeated item stands last."""
    at = 0
    for often, form in items:
        if often in ("*", "+"):
            rest = values[at:]
            for value in rest:
                if not form(value):
                    return False
            return len(rest) >= (often == "+")
        if at < len(values) and form(values[at]):
            at += 1
        elif often != "?":
            return False
    return at == len(values)
