"""Cosmic rays of a stack: tracks across the borders of amps, hot pixels that stay."""

import numpy as np

from camcal_dask.calibs.combined.cosmic_rays import CosmicRayConfig, search_detector, transient
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.focal_plane import assemble, split
from camcal_dask.isr.blocks import Corrected
from camcal_dask.kernels.pixels.defects import grow


def search(ccd, detector, config, mask=None):
    shape = (16, 50, 36)
    image = split(ccd.astype(np.float32), detector, shape, fill=np.nan)
    flags = np.zeros((1, 1, *shape), np.int32) if mask is None else mask
    block = Corrected(image[None, None], flags, given=np.full((1, 1, *shape), 25, np.float32))
    hit = np.zeros(shape, bool)
    hit.reshape(-1)[search_detector(block, detector, config)] = True
    return assemble(hit, detector)


def test_a_track_is_grown_across_the_border_of_two_amps():
    detector = get_instrument("TinyCam").detectors[0]
    rng = np.random.default_rng(5)
    ccd = rng.normal(0, 5, (100, 288))
    ccd[20, 30:42] += 700  # the border is at x = 36
    found = search(ccd, detector, CosmicRayConfig())
    expected = np.zeros_like(found)
    for dy in range(-2, 3):
        reach = int(np.sqrt(4 - dy * dy))
        expected[20 + dy, 30 - reach : 42 + reach] = True
    assert found[expected].all()
    assert np.count_nonzero(found & ~expected) < 12  # noise beyond 3 sigma beside the track joins it


def test_an_overflowing_amp_is_left_out_whole():
    detector = get_instrument("TinyCam").detectors[0]
    ccd = np.random.default_rng(6).normal(0, 5, (100, 288))
    ccd[0:50:2, 0:36:2] += 1000
    found = search(ccd, detector, CosmicRayConfig())
    assert found[:50, :36].all()


def test_what_is_hit_again_and_again_is_hot():
    hits = [np.array(h, np.int64) for h in ([1, 7, 9], [7, 9], [7, 11], [7], [], [])]
    assert [h.tolist() for h in transient(hits, CosmicRayConfig())] == [[1, 9], [9], [11], [], [], []]
    assert [h.tolist() for h in transient(hits[:2], CosmicRayConfig())] == [[1], []]


def simulated_tracks(rng, shape, n, length=12.0, charge=700.0):
    """Charge [electron] of straight tracks, 700 electrons a pixel of path, lengths exponential."""
    ccd = np.zeros(shape)
    for _ in range(n):
        y, x, angle = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0, 2 * np.pi)
        s = np.arange(0, 1 + rng.exponential(length), 0.1)
        at = (y + s * np.sin(angle)).astype(int), (x + s * np.cos(angle)).astype(int)
        inside = (at[0] >= 0) & (at[0] < shape[0]) & (at[1] >= 0) & (at[1] < shape[1])
        np.add.at(ccd, tuple(a[inside] for a in at), 0.1 * charge)
    return ccd


def test_completeness_and_false_alarms():
    """40 darks with 8 tracks each, read noise 5 electrons: of the hit pixels above 10 sigma, and of the clean ones."""
    detector, rng = get_instrument("TinyCam").detectors[0], np.random.default_rng(7)
    hit = missed = clean = alarms = 0
    for _ in range(40):
        charge = simulated_tracks(rng, (100, 288), 8)
        found = search(charge + rng.normal(0, 5, charge.shape), detector, CosmicRayConfig())
        hit += np.count_nonzero(charge > 50)
        missed += np.count_nonzero((charge > 50) & ~found)
        far = ~grow(charge > 0, 4)
        clean += np.count_nonzero(far)
        alarms += np.count_nonzero(found & far)
    assert hit > 3000
    assert missed / hit < 0.002  # completeness
    assert alarms / clean < 2e-5  # false alarms


def test_noise_alone_raises_no_alarm():
    detector, rng = get_instrument("TinyCam").detectors[0], np.random.default_rng(8)
    assert not any(search(rng.normal(0, 5, (100, 288)), detector, CosmicRayConfig()).any() for _ in range(40))
