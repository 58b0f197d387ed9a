"""The browser of the tests sees what it should: requests, errors, what is against a policy, and what axe knows."""

from __future__ import annotations

from pathlib import Path

from browser import Visited, chromium, visit

__all__ = ["chromium"]
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
GOOD = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title>
<meta http-equiv="Content-Security-Policy" content="{POLICY}"></head>
<body><main><h1>A page</h1>{{}}</main></body></html>"""


def seen(chromium: object, folder: Path, body: str, page: str = GOOD) -> tuple[Visited, list[str]]:
    (folder / "page.html").write_text(page.format(body))
    with visit(chromium, (folder / "page.html").as_uri()) as visited:
        return visited, visited.axe()


def test_a_good_page(chromium: object, tmp_path: Path) -> None:
    """A page whose policy lets no script run is still looked at."""
    visited, found = seen(
        chromium, tmp_path, "<p>Words</p><img src='data:image/gif;base64,R0lGODlhAQABAAAAACw=' alt='x'>"
    )
    assert (visited.outside(), visited.problems, found) == ([], [], [])


def test_what_is_asked_for_outside_is_told(chromium: object, tmp_path: Path) -> None:
    free = GOOD.replace(POLICY, "img-src *")
    visited, _ = seen(chromium, tmp_path, "<img alt='' src='http://127.0.0.1:9/outside.png'>", free)
    assert visited.outside() == ["http://127.0.0.1:9/outside.png"]


def test_what_a_policy_forbids_is_told(chromium: object, tmp_path: Path) -> None:
    visited, _ = seen(chromium, tmp_path, "<script>document.title = 'run'</script>")
    assert len(visited.problems) == 1
    assert "Content Security Policy" in visited.problems[0]


def test_what_axe_finds_is_told(chromium: object, tmp_path: Path) -> None:
    _, found = seen(chromium, tmp_path, "<p style='color: #bbb; background: #fff'>pale</p><button></button>")
    assert sorted(line.partition(":")[0] for line in found) == ["button-name", "color-contrast"]


def test_light_and_dark(chromium: object, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(GOOD.format(""))
    for dark in (False, True):
        with visit(chromium, (tmp_path / "page.html").as_uri(), dark=dark, width=400) as visited:
            assert visited.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
            assert visited.page.evaluate("innerWidth") == 400
