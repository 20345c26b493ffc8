"""The object: selections, assigned planes, pixels in memory and Datasets, for every consumer the same numbers."""

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.combined.combine import CombineConfig, combine
from camcal_dask.calibs.combined.cosmic_rays import find_hits
from camcal_dask.calibs.flat import levels
from camcal_dask.calibs.linearizer import ratios
from camcal_dask.calibs.linearizer.config import DoubleSplineConfig
from camcal_dask.calibs.ptc.extract import PtcExtractConfig, extract
from camcal_dask.errors import PlanError
from camcal_dask.isr.assemble import assemble, mosaic
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.corrected import CorrectedExposures, as_corrected, isr
from camcal_dask.kernels.pixels.masks import BAD, SAT
from camcal_dask.verify.measuring.statistics import measure
from tests.isr.calibrations import calibrations
from tests.isr.frames import refuse, task_count, tiny_raw

AMPS = ["C12", "C03"]
PAIR = PtcExtractConfig(lags=3, edge_pixel=3, min_pixels=200)
BIAS = IsrConfig(bias=True, dark=True, defects=True, flat=True)


@pytest.fixture(scope="module")
def raw():
    return tiny_raw(6, pattern=10)[0]


@pytest.fixture(scope="module")
def calibs():
    return calibrations("adu")


@pytest.fixture(scope="module")
def corrected(raw, calibs):
    return isr(raw, calibs, BIAS)


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="sync"):
        yield


def pairs(exposures):
    ids = as_corrected(exposures).labels["exposure"].values.tolist()
    return list(zip(ids[::2], ids[1::2], strict=True))


CONSUMERS = {
    "combine": lambda c: combine(c, CombineConfig(scale="dark_time"), slab_rows=16),
    "few": lambda c: combine(as_corrected(c).isel(exposure=[0, 1, 2]), slab_rows=16),
    "hits": lambda c: combine(c, slab_rows=16, hits=find_hits(c)),
    "extract": lambda c: extract(c, pairs(c), PAIR),
    "measure": measure,
    "assemble": assemble,
    "mosaic": lambda c: mosaic(c, binning=4).to_dataset(name="mosaic"),
    "dataset": lambda c: as_corrected(c).dataset(),
    "slabs": lambda c: as_corrected(c).dataset(slab_rows=16),
}


@pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=CONSUMERS)
def test_selections_and_pixels_in_memory_change_no_bit(raw, calibs, corrected, consumer):
    """Selected before or after the ISR, in memory or not: identical."""
    chosen = {"exposure": raw["exposure"].values[[4, 1, 0, 2]], "detector": [2, 1]}
    expected = consumer(isr(raw.sel(chosen), calibs, BIAS)).compute()
    with dask.config.set(scheduler=refuse):
        lazy = consumer(corrected.sel(**chosen))
    xr.testing.assert_identical(lazy.compute(), expected)
    xr.testing.assert_identical(
        consumer(corrected.isel(exposure=[4, 1, 0, 2]).sel(detector=[2, 1])).compute(), expected
    )
    xr.testing.assert_identical(consumer(corrected.sel(**chosen).persist()).compute(), expected)
    xr.testing.assert_identical(consumer(corrected.persist().sel(**chosen)).compute(), expected)


@pytest.mark.parametrize("name", ["combine", "few", "hits", "extract", "measure", "dataset", "slabs"])
def test_amps_that_are_selected_are_those_of_the_whole(corrected, name):
    consumer, positions = CONSUMERS[name], [2, 12]
    one = corrected.isel(detector=[1])
    expected = consumer(one).compute()
    expected = expected.isel({dim: positions for dim in ("amp", "amp_b") if dim in expected.dims})
    for exposures in (one.sel(amp=AMPS), one.persist().isel(amp=[2, 5, 12]).isel(amp=[0, 2])):
        assert exposures.labels["amp"].values.tolist() == AMPS
        xr.testing.assert_identical(consumer(exposures).compute(), expected)


def test_ccds_of_some_amps(corrected):
    one = corrected.isel(exposure=[0], detector=[0])
    some, whole = (assemble(c).compute()["image"] for c in (one.sel(amp=AMPS), one))
    there = np.isfinite(some)
    assert there.sum() == 2 * 50 * 36
    np.testing.assert_array_equal(some.values[there], whole.values[there])
    by_dataset = mosaic(one.sel(amp=AMPS).dataset(), binning=4).compute()
    xr.testing.assert_identical(mosaic(one.sel(amp=AMPS), binning=4).compute(), by_dataset)


def test_levels_and_ratios_of_some_amps(corrected):
    one = corrected.isel(detector=[1])
    for exposures in (one.sel(amp=AMPS), one.persist().sel(amp=AMPS), one.sel(amp=AMPS).dataset()):
        whole, some = (levels.measure(c, levels.LevelConfig()).compute() for c in (one, exposures))
        assert [len(level.amp_mean) for level in some] == [2] * 6
        np.testing.assert_array_equal([x.amp_mean for x in some], [x.amp_mean[[2, 12]] for x in whole])
    reference = ratios.Reference(5, int(one.labels["exposure"][3]))
    settings = DoubleSplineConfig(bin_size=8, border=2)
    whole, some = (ratios.measure(c, reference, settings).compute() for c in (one, one.sel(amp=AMPS)))
    np.testing.assert_array_equal(some.scaling, whole.scaling[[2, 12]])
    np.testing.assert_array_equal(some.ratios[0].amp, whole.ratios[0].amp[[2, 12]])
    with pytest.raises(PlanError, match="4 detectors, expected one"):
        levels.measure(corrected, levels.LevelConfig())


def test_a_dataset_shows_what_it_holds(corrected):
    """Of a changed Dataset, in any chunks, consumers measure what is in it."""
    lazy = corrected.isel(exposure=[0, 1], detector=[0, 2]).dataset()
    changed = lazy.assign(image=lazy["image"] + np.float32(3))
    expected = measure(corrected.isel(exposure=[0, 1], detector=[0, 2])).compute()
    for given in (changed.compute(), changed, changed.chunk(exposure=2, y=11)):
        found = measure(given).compute()
        np.testing.assert_allclose(found["median"] - expected["median"], 3, atol=1e-4)
    one = changed.isel(exposure=0, detector=1)
    assert as_corrected(one).sizes["exposure"] == 1
    alone, among = (measure(c).compute()["median"].values for c in (one, changed))
    np.testing.assert_array_equal(alone, among[:1, 1:])
    with pytest.raises(PlanError, match="no variable mask"):
        measure(changed.drop_vars("mask"))
    with pytest.raises(PlanError, match="no attribute 'units'"):
        measure(changed.drop_attrs().assign_attrs(instrument="TinyCam"))


@pytest.mark.parametrize("kept", [False, True], ids=["recipe", "persisted"])
def test_assigned_planes_take_the_place_of_those_of_the_isr(corrected, kept):
    exposures = corrected.isel(detector=[1])
    exposures = exposures.persist() if kept else exposures
    before = exposures.dataset().compute()
    mask = before["mask"].copy()
    mask[0] |= SAT
    image = before["image"] + np.float32(7)
    variance = before["variance"] * np.float32(4)
    changed = exposures.assign(image=lambda d: d["image"] + np.float32(7), mask=mask)
    xr.testing.assert_equal(changed.dataset().compute(), before.assign(image=image, mask=mask))
    of_dataset = before.assign(image=image, mask=mask)
    xr.testing.assert_identical(measure(changed).compute(), measure(of_dataset).compute())
    chosen = pairs(changed)
    xr.testing.assert_identical(extract(changed, chosen, PAIR).compute(), extract(of_dataset, chosen, PAIR).compute())
    product = combine(changed, slab_rows=16).compute()
    np.testing.assert_array_equal(product["n_input"], 5)
    rest = combine(exposures.isel(exposure=slice(1, None)), slab_rows=16).compute()
    np.testing.assert_allclose(product["image"], rest["image"] + 7, rtol=1e-5, atol=1e-4)
    few = exposures.isel(exposure=[0, 1, 2])
    more = few.assign(variance=variance[:3], image=image[:3])
    expected = combine(before.isel(exposure=[0, 1, 2]).assign(variance=variance[:3], image=image[:3]))
    xr.testing.assert_allclose(combine(more, slab_rows=16).compute(), expected.compute())


def test_the_variance_stays_when_an_image_is_assigned(corrected):
    few = corrected.isel(exposure=[0, 1, 2], detector=[0])
    shifted = few.assign(image=lambda d: d["image"] + np.float32(1000))
    expected, found = (combine(c, slab_rows=16).compute() for c in (few, shifted))
    xr.testing.assert_equal(found["variance"], expected["variance"])
    xr.testing.assert_equal(shifted.dataset()["variance"].compute(), few.dataset()["variance"].compute())


def test_planes_of_some_amps_and_numbers_are_assigned(corrected):
    some = corrected.isel(detector=[1]).sel(amp=AMPS)
    mask = some.dataset()["mask"].compute() | BAD
    gain = xr.DataArray([[2.0, 3.0]], {"detector": [1], "amp": AMPS}, ("detector", "amp"))
    seen = xr.full_like(some.dataset()["read_noise_adu"], 5.5).compute().rename("seen")
    changed = some.assign(mask=mask, gain=gain, seen=seen).assign_coords(dark_time=("exposure", np.full(6, 2.0)))
    found = measure(changed).compute()
    assert (found["n_good"] == 0).all()
    np.testing.assert_array_equal(found["gain"], [[2.0, 3.0]])
    assert (found["seen"] == 5.5).all()
    assert (found["dark_time"] == 2).all()
    one = changed.sel(amp=["C03"])
    assert one.dataset()["gain"].values.tolist() == [[3.0]]
    xr.testing.assert_identical(measure(one).compute(), found.isel(amp=[1], amp_b=[1]))
    with pytest.raises(PlanError, match="assign: mask has"):
        some.assign(mask=mask[:, :, :, 1:])
    with pytest.raises(PlanError, match="other labels of detector"):
        some.assign(gain=gain.assign_coords(detector=[2]))


def test_what_cannot_be_selected_is_said(corrected):
    with pytest.raises(PlanError, match="no 'y' to select by"):
        corrected.isel(y=0)
    with pytest.raises(PlanError, match="no exposure was selected"):
        corrected.isel(exposure=[])
    with pytest.raises(KeyError):
        corrected.sel(detector=77)
    assert corrected.sel(detector=2, amp="C10").sizes["detector"] == 1
    assert repr(corrected).startswith("<CorrectedExposures of TinyCam [adu] (exposure: 6, detector: 4, amp: 16,")


def test_selections_cost_no_more_tasks(raw):
    """After sel, assign_coords and persist the graphs are as lean as those of what was selected before the ISR."""
    corrected, chosen = isr(raw), {"exposure": [0, 3, 4, 5], "detector": [1, 2]}
    for consumer in (CONSUMERS["combine"], CONSUMERS["measure"], lambda c: extract(c, [pairs(c)[0]], PAIR)):
        expected = task_count(consumer(isr(raw.isel(chosen))))
        assert task_count(consumer(corrected.isel(**chosen))) <= expected
        assert task_count(consumer(corrected.isel(**chosen).assign_coords(note=1))) <= expected
        kept = corrected.isel(**chosen).persist()
        assert isinstance(kept, CorrectedExposures)
        assert task_count(consumer(kept)) <= expected + 2 * 4  # the blocks that are there


def test_a_persisted_exposure_is_read_no_more(raw, monkeypatch):
    from camcal_dask.isr.source import RawSource

    kept = isr(raw.isel(exposure=[0, 1], detector=[0])).persist()
    monkeypatch.setattr(RawSource, "read", refuse)
    measure(kept).compute()
    combine(kept).compute()
