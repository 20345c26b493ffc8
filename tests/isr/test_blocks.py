"""The lazy Dataset: blocks never change a bit, graphs are lean, nothing is computed early."""

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.errors import ConfigError, PlanError
from camcal_dask.isr.blocks import Corrected, Given, Held, Replaced
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.isr.statistics import STATISTICS
from camcal_dask.kernels.pixels.masks import BAD, MASK_PLANES, NO_DATA, UNMASKEDNAN
from camcal_dask.kernels.readout.overscan import FILL
from tests.isr.frames import refuse, task_count, tiny_raw


@pytest.fixture(scope="module")
def raw():
    return tiny_raw(5, pattern=10)[0]


@pytest.fixture(scope="module")
def whole(raw):
    return isr(raw).dataset().compute(scheduler="sync")


def bias_like(raw, units="adu"):
    rng = np.random.default_rng(8)
    shape = (raw.sizes["detector"], 16, 50, 36)
    dims = ("detector", "amp", "y", "x")
    values = {"image": rng.normal(0, 5, shape).astype("f4"), "variance": rng.uniform(0, 1, shape).astype("f4")}
    planes = {name: (dims, v) for name, v in values.items()} | {"mask": (dims, np.zeros(shape, "i4"))}
    return xr.Dataset(planes, {"detector": raw["detector"].values}, {"units": units})


@pytest.mark.parametrize("rows", [8, 16, 64])
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_blocks_do_not_change_a_bit(raw, whole, rows, scheduler):
    """reference/isr.md 7.8."""
    slabs = isr(raw).dataset(slab_rows=rows).compute(scheduler=scheduler)
    xr.testing.assert_identical(slabs, whole)


def test_selection_does_not_change_a_bit(raw, whole):
    part = raw.isel(exposure=[3, 1], detector=[2])
    xr.testing.assert_identical(
        isr(part).dataset().compute(scheduler="sync"), whole.isel(exposure=[3, 1], detector=[2])
    )


def test_with_bias_in_any_blocks(raw):
    bias, config = bias_like(raw), IsrConfig(bias=True)
    expected = isr(raw).dataset().compute(scheduler="sync")
    for lazy in (bias, bias.chunk(detector=1)):
        a = isr(raw, {"bias": lazy}, config).dataset().compute(scheduler="sync")
        b = isr(raw, {"bias": lazy}, config).dataset(slab_rows=16).compute(scheduler="sync")
        xr.testing.assert_identical(a, b)
    np.testing.assert_array_equal(a["image"], expected["image"].values - bias["image"].values)
    np.testing.assert_allclose(
        a["variance"], a["image"] + a["read_noise_adu"] ** 2 + bias["variance"], rtol=1e-5, atol=1e-4
    )


def test_pixels_and_padding(whole):
    e2v, itl = whole["mask"].isel(detector=[0, 1]), whole["mask"].isel(detector=[2, 3])
    assert (e2v == 0).all()
    assert (itl[..., :49, :35] == 0).all()
    assert (itl[..., 49:, :] == NO_DATA).all()
    assert (itl[..., 35:] == NO_DATA).all()
    np.testing.assert_array_equal(np.isnan(whole["image"]), whole["mask"] == NO_DATA)
    assert whole["image"].dtype == whole["variance"].dtype == np.float32
    assert whole["mask"].dtype == np.int32


def test_variance_and_statistics(raw, whole):
    expected = whole["image"] + whole["read_noise_adu"].astype("f4") ** 2
    np.testing.assert_allclose(whole["variance"], expected, rtol=1e-5, atol=1e-4)
    assert whole["read_noise_adu"].mean() == pytest.approx(5.0, rel=0.03)
    assert whole["serial_overscan"].dims == ("exposure", "detector", "amp", "y_raw")
    assert set(STATISTICS) <= set(whole.data_vars)
    assert whole.attrs["units"] == "adu"
    assert whole["image"].attrs["units"] == "adu"
    assert isr(raw, config=IsrConfig(gains="nominal")).attrs["units"] == "electron"
    meaning = dict(zip(whole["mask"].attrs["flag_meanings"].split(), whole["mask"].attrs["flag_masks"], strict=True))
    assert meaning == {name: 1 << bit for name, bit in MASK_PLANES.items()}


def test_an_exposure_never_written_harms_no_other(raw, whole):
    holes = raw.copy(data=raw.values.copy())
    holes[2, 1] = FILL
    for options in ({}, {"slab_rows": 16}):
        result = isr(holes).dataset(**options).compute(scheduler="sync")
        assert np.isnan(result["image"][2, 1]).all()
        assert (result["mask"][2, 1] == NO_DATA | BAD | UNMASKEDNAN).all()
        others = [0, 1, 3, 4]
        xr.testing.assert_identical(result.isel(exposure=others), whole.isel(exposure=others))


def test_graphs_are_lean_and_lazy(raw):
    n_exposure, n_detector = raw.shape[:2]
    with dask.config.set(scheduler=refuse):
        corrected = isr(raw)
        lazy = corrected.dataset()
        with_bias = isr(raw, {"bias": bias_like(raw)}, IsrConfig(bias=True)).by_exposure()
    # one task a block (read and correct), one for the variable, one for the source
    assert task_count(lazy["image"]) <= n_exposure * n_detector + 1
    assert task_count(lazy[["image", "variance", "mask"]]) <= 4 * n_exposure * n_detector + 1
    assert task_count(corrected.by_exposure()) <= n_exposure * n_detector + 1
    assert task_count(corrected.by_slab(16)) <= n_exposure * n_detector + 4 * n_detector + 1
    assert task_count(with_bias) <= (n_exposure + 3) * n_detector + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.chunk(exposure=1), "already chunked"),
        (lambda r: r.transpose("detector", ...), "dims"),
        (lambda r: r.isel(y=slice(10)), "select exposures and detectors only"),
        (lambda r: r.isel(exposure=[]), "0 exposures"),
        (lambda r: r.drop_attrs(), "instrument"),
    ],
)
def test_wrong_raw_is_refused(raw, change, message):
    with pytest.raises(PlanError, match=message):
        isr(change(raw))


def test_wrong_bias_is_refused(raw):
    on = IsrConfig(bias=True)
    with pytest.raises(ConfigError, match="no bias was given"):
        isr(raw, config=on)
    with pytest.raises(ConfigError, match="bias is in electron, the exposures are corrected to adu"):
        isr(raw, {"bias": bias_like(raw, "electron")}, on)
    with pytest.raises(ConfigError, match="no detector 3;"):
        isr(raw, {"bias": bias_like(raw).isel(detector=[0, 1, 2])}, on)
    with pytest.raises(ConfigError, match=r"expected \(4, 16, 50, 36\)"):
        isr(raw, {"bias": bias_like(raw).isel(y=slice(40))}, on)


def test_what_is_in_memory_is_read_without_a_copy_unless_it_is_replaced():
    shape = (1, 1, 2, 6, 5)
    block = Corrected(np.arange(60, dtype=np.float32).reshape(shape), np.zeros(shape, np.int32))
    held = Held([block, block], slice(0, 6))
    numbers = Replaced(held, {}, {"amp_offset": np.ones((2, 1, 2))})
    for part in (held, numbers):
        image, mask, _ = part.read(1)
        assert np.shares_memory(image, block.image)
        assert np.shares_memory(mask, block.mask)
    np.testing.assert_array_equal(numbers.read(0)[2].number("amp_offset"), [1, 1])
    other = Replaced(held, {"image": Given(np.full((2, 1, 1, 6, 5), 7, np.float32), (1,))}, {})
    image, mask, fetched = other.read(0)
    assert (image[1] == 7).all()
    np.testing.assert_array_equal(image[0], block.image[0, 0, 0])
    np.testing.assert_array_equal(block.image.ravel(), np.arange(60))
    assert np.shares_memory(mask, block.mask)
    copied, flags = np.empty_like(image), np.empty_like(mask)
    again = other.fetch(0, copied, flags)
    np.testing.assert_array_equal(copied, image)
    np.testing.assert_array_equal(again.clean, fetched.clean)
    some = Held([block], slice(2, 4)).read(0)[0]
    np.testing.assert_array_equal(some, block.image[0, 0, :, 2:4])
    assert some.flags.c_contiguous
