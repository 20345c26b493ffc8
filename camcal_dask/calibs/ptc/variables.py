"""Variables of photon transfer curves that the fit adds to those of the pairs."""

from __future__ import annotations

from enum import IntEnum

from camcal_dask.schema import AMP_DIMS, Variable, Variables, variables

PAIR = (*AMP_DIMS, "pair")


LAGS = (*AMP_DIMS, "lag_i", "lag_j")


class BadReason(IntEnum):
    """Why an amp has no curve: values of the variable ``bad_reason``."""

    NONE = 0
    """It has one."""
    NO_PAIRS = 1
    """No pair could be measured, or none is within the limits."""
    FEW_PAIRS = 2
    """Fewer pairs are left than the model has parameters."""
    FEW_FOR_LAGS = 3
    """Fewer pairs are left than the lags that were asked for."""
    NO_FIT = 4
    """The fit found no minimum, or no roll-off."""
    GAIN = 5
    """The gain of the fit is not positive."""


SOLVED: Variables = variables(
    Variable("gain", AMP_DIMS, "f8", "electron/adu", "gain; NaN for a bad amp"),
    Variable("gain_err", AMP_DIMS, "f8", "electron/adu", "error of the gain, scaled by the reduced chi2"),
    Variable("gain_unadjusted", AMP_DIMS, "f8", "electron/adu", "gain of the fit, before any adjustment of the ratios"),
    Variable("noise", AMP_DIMS, "f8", "electron", "read noise of the fit"),
    Variable("noise_err", AMP_DIMS, "f8", "electron", "error of the read noise, scaled by the reduced chi2"),
    Variable("a00", AMP_DIMS, "f8", "1/electron", "area coefficient of lag (0, 0), negative"),
    Variable("turnoff", AMP_DIMS, "f8", "adu", "largest mean that follows the curve"),
    Variable("turnoff_sampling_error", AMP_DIMS, "f8", "adu", "half the distance of its neighbours"),
    Variable(
        "rolloff", AMP_DIMS, "f8", "adu", "mean up to which the loss of variance is tolerable; NaN if not modelled"
    ),
    Variable("rolloff_err", AMP_DIMS, "f8", "adu", "error of where the loss begins"),
    Variable("rolloff_tau", AMP_DIMS, "f8", "adu", "scale of the loss of variance, negative"),
    Variable("rolloff_tau_err", AMP_DIMS, "f8", "adu", "its error"),
    Variable("chi2", AMP_DIMS, "f8", "1", "reduced chi2 of the final fit"),
    Variable(
        "fit_pars", (*AMP_DIMS, "parameter"), "f8", "1", "Eq. 16: a00 [1/electron], g [electron/adu], n2 [electron^2]"
    ),
    Variable("fit_pars_err", (*AMP_DIMS, "parameter"), "f8", "1", "errors of fit_pars, scaled by the reduced chi2"),
    Variable("overscan_median_level", AMP_DIMS, "f8", "adu", "median serial overscan of the pairs in use"),
    Variable("overscan_median_sigma", AMP_DIMS, "f8", "adu", "its scatter, from the median absolute deviation"),
    Variable("bad", AMP_DIMS, "?", "1", "no curve could be fitted"),
    Variable(
        "bad_reason",
        AMP_DIMS,
        "i1",
        "1",
        "why not: " + ", ".join(f"{reason.value} {reason.name.lower()}" for reason in BadReason),
    ),
    Variable("lags", AMP_DIMS, "i8", "1", "side of the lag matrix in the covariance fit; 0 without one"),
    Variable("a_matrix", LAGS, "f8", "1/electron", "area coefficients a_ij"),
    Variable("a_matrix_err", LAGS, "f8", "1/electron", "errors of a_matrix, scaled by the reduced chi2"),
    Variable("b_matrix", LAGS, "f8", "1/electron", "time-dependent coefficients b_ij; noisy where a_ij is near 0"),
    Variable("noise_matrix", LAGS, "f8", "electron^2", "noise covariances n_ij"),
    Variable("used", PAIR, "?", "1", "pairs of the final fit"),
    Variable("rolloff_used", PAIR, "?", "1", "pairs of the roll-off fit"),
    Variable("final_var", PAIR, "f8", "adu^2", "variance that was fitted; NaN where not used"),
    Variable("final_model_var", PAIR, "f8", "adu^2", "variance of the model; NaN where not used"),
    Variable("final_mean", PAIR, "f8", "adu", "mean; NaN where not used"),
    Variable("covariance_model", (*PAIR, "lag_i", "lag_j"), "f8", "adu^2", "covariances of the model, of every pair"),
)
"""Variables that `solve` adds to those of the pairs."""
