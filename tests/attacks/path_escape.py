"""Names of objects and tensors that lead out of the checkpoint: `..`, absolute paths, drive letters, NUL, backslashes.
[CHK-007] [NAME-006] [SEC-003]"""

from __future__ import annotations

from typing import Any

from attack import attempt, folder, hostile, load

PATHS = (
    "../secret",
    "/etc/passwd",
    "a/../../secret",
    "packs/..",
    "C:/secret",
    "C:secret",
    "\\\\host\\share",
    "a\\b",
    "a\0b",
)
PATHS += ("", ".", "a//b", "a/", "/", "a/./b", "~/\u202e", "packs/00000.zip\n", "COMMIT\0.zip", "\ud7ff", "x" * 70_000)


def main() -> None:
    with folder() as here:
        (here / "secret").write_bytes(bytes(4096))
        for number, name in enumerate(PATHS):

            def rename_object(document: dict[str, Any], name: str = name) -> None:
                document["parts"][0]["object"] = name

            def rename_table(document: dict[str, Any], name: str = name) -> None:
                document["parts"][0]["chunks"]["path"] = name

            def rename_tensor(document: dict[str, Any], name: str = name) -> None:
                document["tensors"]["name"][0] = name

            shown = ascii(name[:20])
            for title, layout, change in (
                ("object", "packed", rename_object),
                ("part manifest", "packed", rename_table),
                ("tensor", "loose", rename_tensor),
                ("tensor", "file", rename_tensor),
            ):
                path = hostile(here / f"{title}-{layout}-{number}.ckpt", change, layout=layout)
                attempt(f"{title} {shown} in layout {layout}", path, "bad-manifest", actions=(load,))


if __name__ == "__main__":
    main()
