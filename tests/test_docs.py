"""The documents: what they show runs, what they link to is there, and what they call commands are commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ckptfmt.cli.overview import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "SPEC.md", ROOT / "adapters/README.md", ROOT / "conformance/README.md"]
PAGES += sorted(ROOT.glob("docs/**/*.md"))
REPOSITORY = re.compile("^https://github.com/ckptfmt/ckptfmt/(blob|tree)/main/")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one program, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(BLOCK.findall((ROOT / "docs/guide.md").read_text())), "guide.md", "exec"), {})
    assert not list(tmp_path.glob(".*"))


def links(page: Path) -> list[str]:
    """Where a page links to, in its text or in a list of its own."""
    text = page.read_text()
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        place, is_ours = REPOSITORY.subn("", target)
        if is_ours:  # the page is shown elsewhere too
            assert (ROOT / place.partition("#")[0]).exists(), target
            assert (ROOT / place.partition("#")[0]).is_dir() == ("/tree/" in target), target
        elif not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_package_index_can_follow_the_links_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(link.startswith("https://") for link in links(ROOT / "README.md"))
    defined = set(re.findall(r"^\[([^\]]+)\]: https://", text, re.MULTILINE))
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    used = set(re.findall(r"\[([^\]]+)\](?![\[(:])", prose))
    assert used == defined
    assert len(used) > 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    code = re.findall(r"`([^`\n]+)`|^\$ (.*)$", page.read_text(), re.MULTILINE)
    for inline, line in code:
        for command in re.findall(r"(?<![\w/.])ckptfmt ([a-z]+)\b", inline or line):
            assert command in COMMANDS, command
