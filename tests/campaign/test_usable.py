"""Amps that a product is no use for are counted and named everywhere; a detector without any other is not made."""

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.calibs.combined.finish import Finished, unusable_amps
from camcal_dask.calibs.combined.product import LEVELS
from camcal_dask.calibs.defects.find import FoundDefects, dead_amps
from camcal_dask.cli import main
from camcal_dask.errors import DataError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.cubes.usable import summed_up, told, unusable, with_reasons
from camcal_dask.report.pages.build import write_report
from tests.campaign.conftest import make_bias

CAMERA = get_instrument("TinyCam")
DETECTOR = CAMERA.detectors[1]
NAMES = [amp.name for amp in DETECTOR.amps]
BAD = f"isr.bad_amps=[{DETECTOR.full_name}_{NAMES[2]}]"


def cli(*arguments):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_an_unusable_amp_is_named_in_summary_status_history_record_and_report(repo, threads, tmp_path):
    outcome = make_bias(repo, "u/lame", threads, overrides=[BAD])
    reason = f"detector 1: {NAMES[2]}: all of its pixels are bad"
    assert outcome.complete
    assert outcome.unusable == {1: {NAMES[2]: "all of its pixels are bad"}}
    assert "1 amp cannot be used:" in outcome.text()
    assert reason in outcome.text()
    assert "1 amp unusable" in cli("status", repo.root)
    assert f"unusable: {reason}" in cli("status", repo.root, "u/lame")
    assert reason in cli("history", repo.root, "u/lame")
    again = make_bias(repo, "u/lame", threads, overrides=[BAD])  # nothing to do, and still said
    assert again.unusable == outcome.unusable
    page = write_report(repo, "u/lame", tmp_path / "report").read_text()
    assert "1 amp that the calibration is no use for" in page
    assert f"{DETECTOR.full_name} {NAMES[2]}" in page
    assert "all of its pixels are bad" in (tmp_path / f"report/detectors/{DETECTOR.full_name}.html").read_text()


def test_a_detector_without_usable_amp_fails_alone(repo, threads):
    names = ", ".join(f"{DETECTOR.full_name}_{name}" for name in NAMES)
    outcome = make_bias(repo, "u/dead", threads, overrides=[f"isr.bad_amps=[{names}]"])
    assert not outcome.complete
    assert [q.detector for q in outcome.failed] == [1]
    assert f"none of its {len(NAMES)} amps can be used" in outcome.failed[0].reason
    assert sorted(ref.detector for ref in repo.datasets("bias", "u/dead")) == [0, 2, 3]


def test_a_clean_product_says_nothing(repo, threads):
    outcome = make_bias(repo, "u/clean", threads)
    assert outcome.unusable == {}
    assert "cannot be used" not in outcome.text()
    assert unusable(outcome.uri, [0, 1, 2, 3]) == {}


def finished(median=1.0, n_bad=0, n_input=4):
    n = len(NAMES)
    each = [np.full(n, v) for v in (n_bad, n_input)]
    return Finished(*[np.zeros(0)] * 3, np.full((n, len(LEVELS)), median), each[0], np.zeros(0), each[1])


@pytest.mark.parametrize(
    ("product", "divides", "reason"),
    [
        (finished(), True, None),
        (finished(median=0.0), False, None),
        (finished(median=-0.1), True, "its median response is -0.1"),
        (finished(median=np.nan), True, "its median response is nan"),
        (finished(n_input=0), False, "no exposure has a usable pixel in it"),
        (finished(n_bad=10**6), False, "all of its pixels are bad"),
    ],
)
def test_reasons_of_combined_images(product, divides, reason):
    assert set(unusable_amps(product, DETECTOR, divides=divides).values()) == ({reason} if reason else set())


def test_reasons_of_defects():
    n, (height, width) = len(NAMES), CAMERA.trimmed_shape
    bits = np.zeros((n, height, width), np.uint8)
    dead = np.zeros((n, 3), np.int8)
    bits[0], bits[1], dead[1, 2], bits[2, 1:] = 1, 4, 1, 1
    found = FoundDefects({"defects": bits, "dead": dead}, np.zeros((0, 4)), 0, 0)
    assert dead_amps(found, DETECTOR) == {NAMES[0]: "all of its pixels are defects", NAMES[1]: "dead in the flat"}


def test_all_amps_of_one_reason_are_one_line():
    reasons = dict.fromkeys(NAMES, "no light")
    with pytest.raises(DataError, match=f"none of its {len(NAMES)} amps .* {NAMES[0]}, .*: no light$"):
        with_reasons({}, DETECTOR, reasons)
    some = with_reasons({"a": 1}, DETECTOR, {NAMES[0]: "no light", "X99": "not there"})
    assert some == {"a": 1, "reasons": {NAMES[0]: "no light"}}
    assert summed_up({"A": "x", "B": "y", "C": "x"}) == "A, C: x; B: y"
    assert told({d: {"A": "x"} for d in range(5)}, 3)[-1] == "and amps of 2 more detectors"
