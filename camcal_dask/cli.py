"""The ``camcal`` command: parse, call one function, print."""

from __future__ import annotations

import click


@click.group()
def main() -> None:
    """Build, verify and certify camera calibrations."""
