"""The model that a photon transfer curve was fitted with, as the variance of a signal."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.ptc.models import EQ_20, LagPlanes, growth, polynomials
from camcal_dask.schema import AMP_DIMS


def shot_variance(ptc: xr.Dataset, signal: xr.DataArray) -> xr.DataArray:
    """Variance of a signal without read noise, by the model that was fitted; lazy where ``signal`` is.

    Parameters
    ----------
    ptc : Dataset
        (detector, amp): of a full covariance fit ``a_matrix`` and ``b_matrix``, with the attribute
        ``covariance_order`` (Eq. 20 without it); of a polynomial ``fit_pars``; else ``a00`` of Eq. 16.  The attribute
        ``fit_type`` tells which; a table without one is taken for Eq. 16.
    signal : (.., detector, amp) [electron]

    Returns
    -------
    (.., detector, amp) [electron^2]; NaN for amps without a curve.
    """
    names = [name for name in ("a00", "a_matrix", "b_matrix", "fit_pars") if name in ptc]
    ptc = ptc[names].reset_coords(drop=True).reindex({d: signal[d] for d in AMP_DIMS if d in signal.coords})
    series = _series(ptc)
    if series is None:
        a00 = ptc["a00"].compute()
        bent = xr.apply_ufunc(growth, 2 * a00 * signal, dask="parallelized", output_dtypes=[np.float64])
        variance: xr.DataArray = signal * bent
    else:
        variance = signal * 0.0
        for k in range(series.sizes["power"] - 1, -1, -1):  # Horner; the first power is 1
            variance = (variance + series.isel(power=k)) * signal
    return variance.transpose(*signal.dims)


def _series(ptc: xr.Dataset) -> xr.DataArray | None:
    """Coefficients (detector, amp, power) of signal^1, signal^2 ... [electron^(1-k)]; None for Eq. 16."""
    fit_type = str(ptc.attrs.get("fit_type", ""))
    if fit_type.startswith("FULLCOVARIANCE") and "a_matrix" in ptc:
        order = int(ptc.attrs.get("covariance_order", EQ_20))
        lags = ["lag_i", "lag_j"]
        return _of_amps(_of_planes, ptc["a_matrix"], ptc["b_matrix"], core=[lags, lags], length=order + 1, order=order)
    if fit_type == "POLYNOMIAL":
        pars = ptc["fit_pars"]
        return _of_amps(_of_polynomial, pars, core=[["parameter"]], length=pars.sizes["parameter"] - 1)
    return None


def _of_amps(
    function: Any, *variables: xr.DataArray, core: list[list[str]], length: int, **kwargs: Any
) -> xr.DataArray:
    found: xr.DataArray = xr.apply_ufunc(
        function, *(v.compute() for v in variables), input_core_dims=core, output_core_dims=[["power"]],
        vectorize=True, kwargs={"length": length, **kwargs}, output_dtypes=[np.float64],
    )  # fmt: skip
    return found


def _of_planes(a: FloatArray, b: FloatArray, *, length: int, order: int) -> FloatArray:
    """Of matrices with NaN beyond the lags that were fitted."""
    side = int(np.isfinite(np.diag(a)).sum())
    if not side:
        return np.full(length, np.nan)
    a = a[:side, :side]
    planes = LagPlanes(a, a * np.nan_to_num(b[:side, :side]), np.zeros_like(a), 1.0)
    return polynomials(planes, order).coefficients[1:, 0]


def _of_polynomial(parameters: FloatArray, *, length: int) -> FloatArray:
    """Of p_k mu^k [adu^2]; the gain is 1 / p_1."""
    power = np.arange(1, length + 1)
    return np.asarray(parameters[1:] * parameters[1] ** (power - 2.0))
