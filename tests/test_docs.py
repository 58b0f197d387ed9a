"""The documents: what they show runs, what they link to is there, and what they call commands are commands."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from unittest import mock

import ckptfmt_jax
import ckptfmt_numpy
import pytest
from pages import DRAWN, RUNNERS, blocks, run_page
from peers import peer
from public import CALLS

import ckptfmt
from ckptfmt import manager, recompute, testing
from ckptfmt.cli.overview import COMMANDS

ckptfmt_torch, torch_recompute = peer("ckptfmt_torch"), peer("ckptfmt_torch.recompute")

ROOT = Path(__file__).parents[1]
DOCS = sorted(path for path in ROOT.glob("docs/**/*.md"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / name for name in ("adapters/README.md", "conformance/README.md")), *DOCS]
GUIDES = [
    "convert",
    "frameworks",
    "guide",
    "index",
    "jax",
    "manager",
    "migrations",
    "parallel",
    "recompute",
    "repair",
    "torch",
]
RUN = [*ROOT.glob("docs/tutorials/*.md"), *ROOT.glob("docs/howto/*.md"), *(ROOT / f"docs/{name}.md" for name in GUIDES)]
REPOSITORY = re.compile("^https://github.com/ckptfmt/ckptfmt/(blob|tree)/main/")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN, ids=named)
def test_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks as one program, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with mock.patch.dict(os.environ):  # which a page may change
        run_page(page)
    assert not list(tmp_path.rglob(".*.ckptfmt-tmp"))


@pytest.mark.parametrize("page", RUN, ids=named)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page.read_text()):
        assert block.title or block.language in (*RUNNERS, *DRAWN), f"{named(page)}:{block.line}"


def links(page: Path) -> list[str]:
    """Where a page links to, in its text or in a list of its own."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=named)
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


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_exist(page: Path) -> None:
    code = re.findall(r"`([^`\n]+)`|^\$ (.*)$", page.read_text(), re.MULTILINE)
    for inline, line in code:
        for command in re.findall(r"(?<![\w/.\]])ckptfmt ([a-z]+)\b", inline or line):
            assert command in COMMANDS, command


REFERENCE = ROOT / "docs/reference"
PUBLIC = {"ckptfmt": ckptfmt, "ckptfmt.manager": manager}
PUBLIC |= {"ckptfmt.recompute": recompute, "ckptfmt.testing": testing}
PUBLIC |= {"ckptfmt_torch.recompute": torch_recompute}
PUBLIC |= {"ckptfmt_torch": ckptfmt_torch, "ckptfmt_jax": ckptfmt_jax, "ckptfmt_numpy": ckptfmt_numpy}
# modules, which have pages of their own; a str; what stands in its room
NO_PAGE = {"errors", "manager", "recompute", "testing", "__version__", "CheckpointManager"}


def test_every_public_name_has_its_place_in_the_reference() -> None:
    told = [name for page in REFERENCE.glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)]
    assert len(told) == len(set(told))
    public = {f"{home}.{name}" for home, module in PUBLIC.items() for name in module.__all__}
    assert public - set(told) == {
        f"ckptfmt.{name}" for name in NO_PAGE
    }  # the strict build of the site looks for what is told


def test_every_option_is_in_the_table() -> None:
    """Of the verbs that share them."""
    rows = re.findall(r"^\| (`[^|]*`) \|", (REFERENCE / "options.md").read_text(), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    verbs = (ckptfmt.save, ckptfmt.open, ckptfmt.load, ckptfmt_torch.load, ckptfmt_jax.load)
    there = {
        name
        for verb in verbs
        for name, option in inspect.signature(verb).parameters.items()
        if option.kind is option.KEYWORD_ONLY or name == "like"
    }
    assert not there - told
    assert not told - {option for call in CALLS.values() for option in call.options}, "which no call has"


RECORDS = sorted((ROOT / "docs/decisions").glob("0*.md"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_its_parts(record: Path) -> None:
    text = record.read_text()
    number, title, date = re.findall(r"\A# (\d+)\. (.+)\n\nDecided (\d{4}-\d\d-\d\d)", text)[0]
    assert record.name.startswith(f"{int(number):04}-")
    assert re.findall(r"^\*\*([\w ]+)\.\*\* ", text, re.MULTILINE) == [
        "Question",
        "Decision",
        "Measured",
        "What it costs",
    ]
    assert f"| {number} | [{title}]({record.name}) | {date} |" in record.with_name("index.md").read_text()


def test_records_are_numbered_without_gaps() -> None:
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))
