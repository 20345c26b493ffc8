"""Fixtures of the whole test suite."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """``../shared/data`` beside the checkout: real files and the observatory's own answers."""
    folder = _SHARED / "data"
    if not (folder / "raw" / "raw_expected.json").is_file():
        pytest.skip(f"needs the reference data in {folder}, which is not there")
    return folder
