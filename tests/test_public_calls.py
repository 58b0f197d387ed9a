"""Each public call is described in full: what it does, its options and its errors, which are those of the pages; and a
misspelt option is one error that helps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from error_table import TABLE, load_generator
from public import CALLS, HOMES, Call, misspelt, names

import ckptfmt
from ckptfmt.errors import CODES

FUNCTIONS = [name for name, one in CALLS.items() if not inspect.isclass(one.call)]
CLASSES = [name for name, one in CALLS.items() if inspect.isclass(one.call)]
VERBS = re.compile(
    "Check|Close|Compare|Convert|Copy|Delete|Describe|Do|Draw|Fill|Find|Hold|Let|List|Load|Make|Measure|Open|Raise|Read|"
    "Refuse|Register|Remove|Restore|Return|Save|Say|Sign|Sort|Take|Tell|Wait|Watch|Give"
)
# made by calls of the package, not by programs
RESULTS = re.compile(
    r".*Report|Change|Damage|DamagedStep|Garbage|Lineage|LineageStep|Lost|Migration|MigrationPlan|Overflow|Pruned|Refusal"
)
RESULTS = re.compile(rf"({RESULTS.pattern}|RetentionPlan|RunReader|Saved|Step|Tensor|TensorStats)")
RESULTS = re.compile(rf"({RESULTS.pattern}|Gradient|PlannedSchedule|RecomputePlan)")


def is_made_here(one: Call) -> bool:
    return inspect.isclass(one.call) and bool(RESULTS.fullmatch(one.call.__name__))


# ---- what stands there


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_what_it_is(name: str) -> None:
    text = CALLS[name].text
    assert re.match(r"[A-Z`\"].*\.", text, re.DOTALL), "a sentence"
    assert not text.startswith(name.rpartition(".")[2] + "("), "the signature, as a dataclass without a text has it"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_call_begins_with_a_verb(name: str) -> None:
    assert VERBS.fullmatch(re.split(r"\W", CALLS[name].text)[0]), CALLS[name].text[:80]
    assert "." in CALLS[name].text


def properties() -> Iterator[tuple[str, Any]]:
    for home in HOMES:
        for name, value in names(home):
            if inspect.isclass(value) and not issubclass(value, BaseException):
                for attribute in dir(value):
                    found = inspect.getattr_static(value, attribute)
                    if attribute[:1] != "_" and hasattr(found, "__get__") and not inspect.isroutine(found):
                        yield f"{name}.{attribute}", found


SLOT = re.compile(r"member_descriptor|_tuplegetter")  # of fields, which the text of their class describes


@pytest.mark.parametrize(
    ("name", "found"), [(name, found) for name, found in properties() if not SLOT.search(type(found).__name__)]
)
def test_each_property_is_described(name: str, found: Any) -> None:
    assert inspect.getdoc(found), name


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"ckptfmt.manager.Policy"}))  # a protocol, which is not made
def test_no_option_is_without_a_type(name: str) -> None:
    for parameter in inspect.signature(CALLS[name].call).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            assert str(parameter.annotation).startswith("Unpack["), parameter
        elif parameter.name != "self":
            assert parameter.annotation is not parameter.empty, parameter


# ---- options

WITH_OPTIONS = [name for name, one in CALLS.items() if one.options and not is_made_here(one)]
NEED_A_RUN = {name for name in WITH_OPTIONS if name.endswith(".restore")}  # tests/test_manager_options.py has them


def near(one: Call) -> Iterator[Call]:
    """The calls that a text names, whose options or errors it has."""
    package = one.name.partition(".")[0]
    for text in re.findall(r"`([\w.]+)`", one.text):
        owner = one.name.rpartition(".")[0]
        for name in (text, f"{package}.{text}", f"ckptfmt.{text}", f"ckptfmt.manager.{text}", f"{owner}.{text}"):
            if name in CALLS and name != one.name:
                yield CALLS[name]
                break


def told(one: Call, seen: frozenset[str] = frozenset()) -> str:
    """The text of a call, and of those that it names."""
    others = [other for other in near(one) if other.name not in seen]
    return "\n".join([one.text, *(told(other, seen | {one.name}) for other in others)])


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_each_option_is_named(name: str) -> None:
    """In the text of the call, or in that of one whose options they are, as it says."""
    text = told(CALLS[name])
    assert [option for option in CALLS[name].options if not re.search(rf"\b{option}\b", text)] == []


@pytest.mark.parametrize("name", sorted(set(WITH_OPTIONS) - NEED_A_RUN))
def test_a_misspelt_option_is_one_error(name: str) -> None:
    one = CALLS[name]
    required = [
        parameter
        for parameter in inspect.signature(one.call).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    for option in one.options:
        wrong = misspelt(option)
        with pytest.raises(ckptfmt.InputError) as caught:
            one.call(*(None for _ in required), **{wrong: None})
        assert caught.value.code == "bad-option"
        title, _, advice = caught.value.message.partition(f" has no option {wrong!r}")
        assert set(re.findall(r"\w+", title)) & set(re.findall(r"\w+", name)), "it names the call"
        assert repr(option) in advice or len(option) < 4


# ---- errors


def codes_in(text: str) -> set[str]:
    """What is written as an error code: `not-found`, or a family of them, `unknown-…`."""
    found = re.findall(r"`([a-z]+(?:-[a-z0-9]+)*-?…?)`", text)
    return {code for code in found if code in CODES or "-" in code} - {"process-00003"}


def of_family(code: str, family: str) -> bool:
    return code == family or (family.endswith("…") and code.startswith(family[:-1]))


@pytest.mark.parametrize("name", CALLS)
def test_each_code_exists(name: str) -> None:
    for code in codes_in(CALLS[name].text):
        assert any(of_family(one, code) for one in CODES), code


LACKING = ("load_into", "ckptfmt_torch.", "ckptfmt_jax.") if len(HOMES) < 8 else ()  # of frameworks that are not here


def listed() -> dict[str, set[str]]:
    """The codes that docs/errors.md lists for each call; "Tensor[...]" and "save(skip=)" are a class and a call."""
    found: dict[str, set[str]] = {}
    generator = load_generator()
    for code, entry in TABLE.items():
        for call in generator.calls_of(entry):
            name = re.split(r"[(\[]", call)[0]
            for public in (name, f"ckptfmt.{name}", f"ckptfmt_torch.{name}"):
                if public in CALLS:
                    found.setdefault(public, set()).add(code)
                    break
            else:
                assert name.startswith(("ckptfmt ", *LACKING)), f"{name}: neither a call nor a command"
    return found


LISTED = listed()
OF_OTHERS = {"temporary-lost"}  # what a text says of another call: `gc`, of the save whose file it takes


def alike(name: str) -> Iterator[str]:
    """The calls under which the codes of one are listed: itself, its class, and what it does for a run or a framework;
    adapters are called by `save` and `load`."""
    owner, _, last = name.rpartition(".")
    yield from (name, owner, f"ckptfmt.{last}", f"ckptfmt.CheckpointManager.{last}", "ckptfmt.CheckpointManager")
    if "Adapter" in owner or "Coordinator" in owner:
        yield from ("ckptfmt.save", "ckptfmt.load")


@pytest.mark.parametrize("name", CALLS)
def test_the_page_of_errors_lists_what_a_text_names(name: str) -> None:
    """But for `bad-option`, which every call with options raises, and what is an option, too (`lossy`)."""
    options = set(inspect.signature(CALLS[name].call).parameters)
    named = codes_in(CALLS[name].text) & set(CODES) - {"bad-option"} - options - OF_OTHERS
    assert named <= set().union(*(LISTED.get(other, set()) for other in alike(name)))


@pytest.mark.parametrize("name", LISTED)
def test_a_text_tells_what_the_page_of_errors_lists(name: str) -> None:
    """By its code, its family (`unknown-…`) or its class, there or in the text of a call that it names."""
    text = told(CALLS[name])
    codes, kinds = codes_in(text), set(re.findall(r"`(\w+Error)`", text))
    untold = {code for code in LISTED[name] if not any(of_family(code, one) for one in codes)}
    assert {code for code in untold if not kinds & {kind.__name__ for kind in CODES[code].error.__mro__}} == set()


# ---- what completion shows

OF_A_MAPPING = "get items keys values tensors leaves paths tree read"
CHECKPOINT = frozenset(
    f"""path layout format generator manifest_sha256 is_patch schema plan metadata provenance bytes_read tags
    metadata_tags load match verify zarr typed_zarr was_replaced close {OF_A_MAPPING}""".split()
)
FOR_THE_PACKAGE = frozenset(["identity", "index", "is_direct", "seen", "spec", "verified", "within"])


def shown(kind: type) -> set[str]:
    return {name for name in dir(kind) if name[:1] != "_"}


def test_a_checkpoint_shows_what_a_program_may_use() -> None:
    assert shown(ckptfmt.Checkpoint) == CHECKPOINT
    assert all(inspect.getdoc(inspect.getattr_static(ckptfmt.Checkpoint, name)) for name in CHECKPOINT)


def test_a_tensor_says_what_of_it_is_public() -> None:
    listed = re.findall(r"Public are (.*?), indexing", ckptfmt.Tensor.__doc__ or "", re.DOTALL)[0]
    assert set(re.findall(r"`(\w+)`", listed)) == shown(ckptfmt.Tensor) - FOR_THE_PACKAGE
    assert shown(ckptfmt.Tensor) >= FOR_THE_PACKAGE


@pytest.mark.parametrize("name", [name for name in CLASSES if name.endswith("Report")])
def test_a_report_shows_its_fields_and_what_is_told_of_them(name: str) -> None:
    kind: Any = CALLS[name].call
    fields = set(getattr(kind, "__dataclass_fields__", None) or kind._fields)
    for extra in shown(kind) - fields - shown(tuple):
        assert inspect.getdoc(inspect.getattr_static(kind, extra)), extra
