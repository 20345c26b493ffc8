"""Fixtures of the whole test suite."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings

# CI looks at the same examples every time, so a red run repeats; `--hypothesis-profile=nightly` explores.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("nightly", derandomize=False, deadline=None, max_examples=5000, print_blob=True)
settings.load_profile("ci")
pytest_plugins = ["tests.services"]
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
_SHARED = Path(__file__).resolve().parents[2] / "shared"


IN_CI = os.environ.get("CI", "").lower() == "true"
MAY_SKIP = ("needs the reference data", "mounting a tmpfs is not permitted here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A server or library that CI must have may not turn into a skip there."""
    return _fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip as a whole."""
    return _fail_if_skipped((yield))


def _fail_if_skipped(report: Report) -> Report:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in MAY_SKIP):
            report.outcome, report.longrepr = "failed", f"skipped although CI=true: {reason}"
    return report


@pytest.fixture(scope="module", autouse=True)
def no_client_left_over() -> Iterator[None]:
    """A client that outlives its module would compute the arrays of every test after it."""
    yield
    distributed = sys.modules.get("distributed.client")
    left = distributed._get_global_client() if distributed else None
    assert left is None, f"a dask client is still the default: {left}"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """``../shared/data`` beside the checkout: real files and the observatory's own answers."""
    folder = _SHARED / "data"
    if not (folder / "raw" / "raw_expected.json").is_file():
        pytest.skip(f"needs the reference data in {folder}, which is not there")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by playwright."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium (Debian: apt-get install chromium)")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs playwright (pip install playwright; no download of a browser)")
    from playwright.sync_api import sync_playwright

    from benchmarks._pages import CHROMIUM_FLAGS

    with sync_playwright() as driver:
        made = driver.chromium.launch(
            executable_path=chromium, args=[*CHROMIUM_FLAGS, "--force-color-profile=srgb", "--hide-scrollbars"]
        )
        yield made
        made.close()
