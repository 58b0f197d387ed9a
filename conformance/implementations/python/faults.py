"""How the reader refuses (SPEC.md section 16)."""


class Fault(Exception):
    """A refusal with a `code` of the registry; `where` holds tensor, chunk, block, offset and object as they apply."""

    def __init__(self, code: str, message: str, **where: int | str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.where = code, where


class Unsupported(Exception):
    """The checkpoint may be whole, but this reader lacks something: a `feature` such as `codec:zstd`."""

    def __init__(self, feature: str) -> None:
        super().__init__(f"this reader lacks {feature}")
        self.feature = feature


def need(holds: object, rule: str, what: str, code: str = "bad-manifest") -> None:
    """Refuse, quoting the statement `rule`, unless something holds."""
    if not holds:
        raise Fault(code, f"{what} [{rule}]")
