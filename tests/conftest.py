"""Fixtures of the whole test suite."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True)  # a red run repeats; --hypothesis-profile=default looks further
settings.load_profile("same")
pytest_plugins = ["tests.services"]
_SHARED = Path(__file__).resolve().parents[2] / "shared"


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
