"""Settings of the whole suite: hypothesis profiles, `--run-slow`, and a place for files of property tests."""

from __future__ import annotations

import gc
import signal
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager

import pytest
from hypothesis import HealthCheck, settings
from peers import as_far_as_packages_go

settings.register_profile(
    "quick", max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "thorough", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("quick")

# a shell starts what runs in its background deaf to interrupts, and so would be what tests start
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests that are marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="needs --run-slow"))


def pytest_collection_finish() -> None:
    """What the modules of the suite have imported is no garbage: a million objects, over which `gc.collect` takes a
    second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    with as_far_as_packages_go():
        return (yield)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], AbstractContextManager[str]]:
    """Gives a context with an empty folder that is removed after it: one for each example of a property test."""
    base = tmp_path_factory.mktemp("scratch")
    return lambda: tempfile.TemporaryDirectory(dir=base)
