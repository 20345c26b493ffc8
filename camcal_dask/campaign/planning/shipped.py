"""Files that come with the package: ``pipelines/`` and ``cluster/``."""

from __future__ import annotations

from pathlib import Path

from camcal_dask.config import expanded


def shipped(kind: str, name: str) -> Path | None:
    """Find ``name`` as a path, or else among the files that are shipped with the package.

    Parameters
    ----------
    kind : {"pipelines", "cluster"}
        The folder; ``name`` may repeat it (``pipelines/LSSTCam/bias.yaml``).
    name : str
        A path, absolute or relative to the working directory or to the shipped folder.
    """
    name = expanded(name)
    package = Path(__file__).parents[2]
    inside = name.removeprefix(f"{kind}/")
    candidates = [Path(name), package / kind / inside, package.parent / kind / inside] if name else []
    candidates += [] if name else [package / kind, package.parent / kind]
    return next((path for path in candidates if path.exists()), None)
