"""The numbers of a report as one JSON object, which its pages draw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from camcal_dask.instruments import Detector
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.report.content.layout import Layout
from camcal_dask.report.content.quantities import Quantity, colour_limits
from camcal_dask.verify.judging.account import bad_exposures
from camcal_dask.verify.judging.criterion import LEVEL_DIMS
from camcal_dask.verify.judging.levels import FAIL, NOT_EVALUATED, PREFIX


def page_data(
    detectors: Sequence[Detector], layout: Layout, found: Sequence[Quantity], verdict: xr.Dataset | None
) -> dict[str, Any]:
    """Everything the pages draw: places, quantities, matrices; NaN is null.

    Parameters
    ----------
    detectors : in the order of ``layout`` and of the quantities
    layout : Layout
    found : quantities with values (detector, amp)
    verdict : Dataset, optional
    """
    vendors = sorted({d.vendor for d in detectors})
    return {
        "amps": {
            "box": [[round(float(v), 3) for v in box] for box in layout.amps],
            "detector": layout.owner.tolist(),
            "name": [detectors[i].amps[k].name for i, k in zip(layout.owner, layout.index, strict=True)],
        },
        "detectors": [
            {
                "name": d.full_name,
                "id": d.id,
                "raft": d.raft,
                "slot": d.name_in_raft,
                "vendor": vendors.index(d.vendor),
                "box": [round(float(v), 3) for v in box],
            }
            for d, box in zip(detectors, layout.detectors, strict=True)
        ],
        "vendors": vendors,
        "exposures": [] if verdict is None else _exposures(verdict),
        "quantities": [_quantity(q, layout, detectors, vendors) for q in found],
        "matrices": {} if verdict is None else _matrices(verdict),
    }


def script(data: dict[str, Any]) -> str:
    """Text of the file that holds the data; harmless inside a page as well."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return "window.CAMCAL=" + text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026") + ";\n"


def rounded(values: Any) -> list[float | None]:
    """Seven significant digits; None where not finite."""
    return [float(f"{v:.7g}") if np.isfinite(v) else None for v in np.ravel(values).tolist()]


def _quantity(q: Quantity, layout: Layout, detectors: Sequence[Detector], vendors: Sequence[str]) -> dict[str, Any]:
    values = q.values[layout.owner, layout.index]
    low, high = colour_limits(q.values, [d.vendor for d in detectors])
    entry = {
        "key": q.key,
        "label": q.label,
        "unit": q.unit,
        "doc": q.doc,
        "group": q.group,
        "limits": [low, high],
        "values": rounded(values),
    }
    if q.series is not None and len(q.series) > 1:
        vendor = np.array([vendors.index(d.vendor) for d in detectors])
        entry["trend"] = [_bands(q.series[:, vendor == k].reshape(len(q.series), -1)) for k in range(len(vendors))]
    return entry


def _bands(series: FloatArray) -> list[list[float | None]]:
    """16th, 50th and 84th percentile (nearest rank) over amps, each (exposure,)."""
    ordered = np.sort(np.where(np.isfinite(series), series, np.nan), axis=1)
    n = np.isfinite(ordered).sum(axis=1)
    picks = (np.rint(share * np.maximum(n - 1, 0)).astype(int) for share in (0.16, 0.5, 0.84))
    return [rounded(np.take_along_axis(ordered, pick[:, None], 1)[:, 0]) for pick in picks]


def _exposures(verdict: xr.Dataset) -> list[dict[str, Any]]:
    bad = bad_exposures(verdict) if "status" in verdict else np.zeros(verdict.sizes["exposure"], bool)
    coords = verdict.coords
    entries = []
    for i, exposure in enumerate(verdict["exposure"].values.tolist()):
        entry: dict[str, Any] = {"id": str(exposure), "bad": bool(bad[i])}
        entry["first"] = bool(coords["first_in_set"].values[i]) if "first_in_set" in coords else False
        entry["role"] = str(coords["role"].values[i]) if "role" in coords else ""
        mjd = float(coords["mjd"].values[i]) if "mjd" in coords else float("nan")
        entry["mjd"] = round(mjd, 6) if np.isfinite(mjd) else None
        entries.append(entry)
    return entries


def _matrices(verdict: xr.Dataset) -> dict[str, Any]:
    """Share of failures [%]: tests x detectors, and exposures x detectors."""
    rows, labels, required = [], [], []
    for level, dims in LEVEL_DIMS.items():
        prefix, rest = PREFIX[level], [dim for dim in dims if dim != "detector"]
        name = f"{prefix}status"
        if "detector" not in dims or name not in verdict:
            continue
        test = f"{prefix}test"
        failed = (verdict[name] == FAIL).sum(rest).transpose(test, "detector").values
        judged = (verdict[name] != NOT_EVALUATED).sum(rest).transpose(test, "detector").values
        rows.append(np.where(judged > 0, 100 * failed / np.maximum(judged, 1), np.nan))
        labels += [str(n) for n in verdict[test].values]
        required += [bool(r) for r in verdict[f"{test}_required"].values]
    tests = np.concatenate(rows) if rows else np.zeros((0, verdict.sizes["detector"]))
    matrices = {"tests": {"rows": labels, "required": required, "values": [rounded(row) for row in tests]}}
    if "n_failed" in verdict:
        counts = verdict["n_failed"].transpose("exposure", "detector").values
        exposures = [str(e) for e in verdict["exposure"].values.tolist()]
        matrices["exposures"] = {"rows": exposures, "required": [], "values": [row.tolist() for row in counts]}
    return matrices
