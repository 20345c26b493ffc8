"""Answers from statistics against loops over the same numbers, and every example of docs/statistics.md."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import camcal_dask
from benchmarks.report import fill
from camcal_dask.calibs.ptc.table import ptc_table
from camcal_dask.cli import main
from camcal_dask.errors import ConfigError
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.cubes.small import write_dataset
from camcal_dask.verify.judging.query import compare, failed, table, worst
from camcal_dask.verify.judging.tables import judge_table
from tests.ptc_data import solved

DOCS = Path(camcal_dask.__file__).parent.parent / "docs" / "statistics.md"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("stats") / "repo")
    with create_repo(path, "TinyCam") as repo:
        fill(repo, 8, "TinyCam", night=4)
    return path


@pytest.fixture(scope="module")
def stats(root):
    with open_repo(root) as repo:
        return repo.stats("verifyBias").load()


def loop(stats, key):
    """Noise by a key of (exposure, detector, amp) indices, one amp image at a time."""
    found = {}
    for e, d, a in np.ndindex(*stats["noise"].shape):
        found.setdefault(key(e, d, a), []).append(float(stats["noise"].values[e, d, a]))
    return found


def test_worst_amps_are_those_of_a_sort(stats):
    typical = stats["noise"].median("exposure")
    ten = worst(typical, 10)
    expected = sorted(typical.values.ravel().tolist(), reverse=True)[:10]
    assert ten["value"].tolist() == expected
    for row in ten.itertuples():
        assert float(typical.sel(detector=row.detector, amp=row.amp)) == row.value
        assert row.detector_name == str(stats["detector_name"].sel(detector=row.detector).values)
    assert worst(typical, 3, lowest=True)["value"].tolist() == sorted(typical.values.ravel().tolist())[:3]
    assert len(worst(typical.where(typical > typical.median()), 10_000)) == typical.size // 2


def test_table_by_amp_vendor_and_exposure(stats):
    by_amp = table(stats, ["noise", "mean"], by=["detector", "amp"])
    assert len(by_amp) == stats.sizes["detector"] * 16
    assert list(by_amp.columns) == ["detector", "amp", "detector_name", "raft", "slot", "vendor", "noise", "mean"]
    row = by_amp[(by_amp["detector"] == 2) & (by_amp["amp"] == "C13")].iloc[0]
    assert row["noise"] == np.median(stats["noise"].sel(detector=2, amp="C13").values)
    vendors = stats["vendor"].values
    by_vendor = table(stats, ["noise"], by=["vendor"], how="max").set_index("vendor")["noise"]
    typical = stats["noise"].max("exposure")
    expected = {v: max(typical.values[d].max() for d in range(len(vendors)) if vendors[d] == v) for v in vendors}
    assert by_vendor.to_dict() == expected
    by_night = table(stats, ["noise"], by=["day_obs", "amp"], how="mean")
    groups = loop(stats, lambda e, _, a: (int(stats["day_obs"][e]), str(stats["amp"].values[a])))
    assert len(by_night) == len(groups) == 32
    for row in by_night.itertuples():
        assert row.noise == pytest.approx(np.mean(groups[row.day_obs, row.amp]), rel=1e-12)
    by_exposure = table(stats, ["exposure_success"], by=["exposure"], how="max")
    assert by_exposure["exposure_success"].tolist() == stats["exposure_success"].values.tolist()
    assert by_exposure["day_obs"].tolist() == stats["day_obs"].values.tolist()


def test_unknown_values_stay_out_of_tables(stats):
    some = stats.assign(noise=stats["noise"].where(stats["exposure"] != stats["exposure"][0]))
    found = table(some, ["noise"], by=["exposure"])
    assert np.isnan(found["noise"][0])
    assert table(some, ["noise"], by=["raft"])["noise"].notna().all()


def test_failures_are_all_and_only_those_of_the_status(stats):
    found = failed(stats, "bias.noise")
    status = stats["status"].sel(test="bias.noise").transpose("exposure", "detector", "amp").values
    places = {tuple(p) for p in np.argwhere(status == 0)}
    assert len(found) == len(places) > 0
    names, amps = stats["detector_name"].values.tolist(), stats["amp"].values.tolist()
    for row in found.itertuples():
        place = (
            stats["exposure"].values.tolist().index(row.exposure),
            names.index(row.detector_name),
            amps.index(row.amp),
        )
        assert place in places
        assert row.value > row.limit
        assert row.run == f"night/{str(row.exposure)[:8]}"
    every = failed(stats)
    assert set(every["test"]) >= {"bias.noise"}
    assert len(failed(stats, required=True)) <= len(every)
    assert failed(stats, "bias.processing").empty
    with pytest.raises(ConfigError, match=r"no test 'bias.noize'.*bias.noise"):
        failed(stats, "bias.noize")


def test_two_runs_are_compared_amp_by_amp(stats):
    first, second = (stats["noise"].sel(exposure=stats["day_obs"] == day) for day in (20260812, 20260813))
    second = second.copy(deep=True)
    second.loc[{"detector": 1, "amp": "C07"}] += 2.0
    found = compare(first, second.sel(detector=[0, 1]))
    assert len(found) == 32
    top = found.iloc[0]
    assert (top["detector"], top["amp"]) == (1, "C07")
    assert top["difference"] == pytest.approx(2.0, abs=0.05)
    assert top["ratio"] == top["second"] / top["first"]
    assert top["first"] == float(first.sel(detector=1, amp="C07").median())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["noize"]}, "no statistic 'noize'.*noise"),
        ({"names": ["noise"], "by": ["vender"]}, "no coordinate 'vender'.*vendor"),
        ({"names": ["noise"], "how": "mode"}, "no reduction 'mode'"),
        ({"names": ["n_failed"], "by": ["amp"]}, "n_failed has no 'amp'"),
    ],
)
def test_mistakes_in_questions_are_named(stats, options, message):
    with pytest.raises(ConfigError, match=message):
        table(stats, **options)


def test_every_example_of_the_documentation_runs_and_is_right(root, stats):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    scope = {}
    exec("\n".join(blocks).replace('"REPO"', repr(root)), scope)  # noqa: S102
    first = stats.sel(exposure=stats["run"] == "night/20260812")
    assert scope["ten"]["value"].tolist() == sorted(first["noise"].median("exposure").values.ravel(), reverse=True)[:10]
    assert scope["history"].index.tolist() == stats["mjd"].values.tolist()
    assert scope["history"].tolist() == stats["noise"].sel(detector=1, amp="C10").values.tolist()
    assert scope["gain"].sizes["day_obs"] == 2
    medians = stats["noise"].median("exposure")
    for row in scope["by_vendor"].itertuples():
        assert row.noise == np.median(medians.values[stats["vendor"].values == row.vendor])
    assert set(scope["failures"]["exposure"]) == set(scope["exposures"].values.tolist())
    assert scope["change"]["difference"].abs().is_monotonic_decreasing
    scope["repo"].close()


# --- the command -----------------------------------------------------------------------------------------------------


def run(root, *options):
    result = CliRunner().invoke(main, ["stats", root, *options], catch_exceptions=False)
    return result.exit_code, result.output


def test_command_prints_the_worst_amps_and_writes_csv(root, stats, tmp_path):
    code, text = run(root, "--sort", "noise", "-n", "3")
    assert code == 0
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["detector", "amp"]
    assert len(lines) == 4
    path = tmp_path / "night.csv"
    options = ["-w", "day_obs>=20260813", "-w", "vendor=ITL", "-w", "amp!=C10", "--by", "exposure", "--how", "mean"]
    assert run(root, *options, "--format", "csv", "-o", str(path))[0] == 0
    found = pd.read_csv(path)
    part = stats.sel(exposure=stats["day_obs"] == 20260813, detector=stats["vendor"] == "ITL")
    part = part.sel(amp=part["amp"] != "C10")
    np.testing.assert_allclose(found["noise"], part["noise"].mean(["detector", "amp"]), rtol=1e-7)
    code, text = run(root, "--failed", "all", "--format", "csv")
    assert len(text.splitlines()) == 1 + len(failed(stats))
    assert re.search(r"^exposure_success ", run(root, "-q", "?")[1], re.MULTILINE)


def test_command_names_mistakes(root, tmp_path):
    for options, message in [
        (["-w", "vendor"], "expected NAME=VALUE"),
        (["-w", "day_obs=monday"], "day_obs is a number"),
        (["-w", "day_obs>20300101"], "nothing is left"),
        (["--sort", "colour"], "--sort colour"),
        (["--format", "parquet"], "name a file"),
        (["-i", "nowhere/*"], "no verifyBias in nowhere"),
    ]:
        result = CliRunner().invoke(main, ["stats", root, *options])
        assert result.exit_code == 1
        assert message in " ".join(result.stderr.split()), options


def test_parquet_says_what_it_needs(root, tmp_path, monkeypatch):
    path = tmp_path / "stats.parquet"
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda *_, **__: (_ for _ in ()).throw(ImportError("pyarrow")))
    result = CliRunner().invoke(main, ["stats", root, "--format", "parquet", "-o", str(path)])
    assert result.exit_code == 1
    assert "camcal_dask[parquet]" in result.stderr


def test_parquet_round_trip(root, stats, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "stats.parquet"
    assert run(root, "--format", "parquet", "-o", str(path))[0] == 0
    found = pd.read_parquet(path)
    assert len(found) == stats["noise"].median("exposure").size


def test_gain_of_an_amp_against_time_over_the_curves_of_two_nights(tmp_path):
    with create_repo(str(tmp_path / "repo"), "TinyCam") as repo:
        repo.register_dataset_type("verifyPtc", ("instrument",), False)
        for night in range(2):
            ptc = solved(seed=night).assign_coords(mjd=lambda d, n=night: d["mjd"] + n)
            ptc["gain"][1, 3] = 1.5 + 0.1 * night
            ptc["exposure_1"] = ptc["exposure_1"] + 100_000 * night
            uri = f"{repo.root}/cubes/night/{night}/verifyPtc.zarr"
            write_dataset(uri, judge_table(ptc_table(ptc), "ptc"))
            repo.register_product(f"night/{night}", "verifyPtc", uri, [{"instrument": "TinyCam"}])
        stats = repo.stats("verifyPtc")
        history = stats.gain.sel(detector=1, amp="C13").set_index(exposure="mjd").to_series()
        assert np.round(history.tolist(), 6).tolist() == [1.5, 1.6]
        assert np.diff(history.index).tolist() == [1.0]
        assert stats["day_obs"].values.tolist() == [20260812, 20260813]
        assert set(failed(stats)["test"]) <= set(stats["test"].values.tolist())
