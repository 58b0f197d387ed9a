"""How the reader refuses (SPEC.md section 16)."""


class Fault(Exception):
    """A refusal with a `code` of section 16; `where` holds tensor, chunk, block, offset and object as they apply."""

    def __init__(self, code: str, message: str, **where: int | str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.where = code, where


def need(holds: object, what: str, code: str = "bad-manifest") -> None:
    if not holds:
        raise Fault(code, what)
