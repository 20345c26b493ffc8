"""Figures for papers: written by the room of the product; what stands in the way is said with the remedy."""

import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.errors import ConfigError, RepoError
from camcal_dask.report.figures.paper import write_figures
from tests.ptc_data import solved


@pytest.fixture(scope="module")
def of_curves():
    """Just enough of a repository: a RUN of curves beside a bias."""
    product = solved(detectors=(0,)).assign_attrs(instrument="TinyCam")
    return SimpleNamespace(
        types_in=lambda run: ["bias", "ptc"],
        is_calibration=lambda name: True,
        is_statistics=lambda name: False,
        open=lambda name, **chosen: product,
    )


def test_the_type_that_has_figures_is_taken(of_curves, tmp_path):
    pytest.importorskip("matplotlib")
    written = write_figures(of_curves, "u/ptc", tmp_path / "new")
    assert "variance_000.png" in [path.name for path in written]
    assert all(path.is_file() for path in written)


def test_a_type_without_figures_is_refused_with_what_helps(of_curves, tmp_path):
    with pytest.raises(ConfigError, match="bias has no figures for papers, only .*ptc.*; see it with camcal report"):
        write_figures(of_curves, "u/ptc", tmp_path, "bias")
    with pytest.raises(RepoError, match="holds no 'pct'.*ptc"):
        write_figures(of_curves, "u/ptc", tmp_path, "pct")


def test_without_matplotlib_the_extra_is_named(of_curves, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "camcal_dask.calibs.ptc.figures", raising=False)
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'camcal_dask\[plots\]'"):
        write_figures(of_curves, "u/ptc", tmp_path)


def test_from_the_command_line(root, tmp_path):
    result = CliRunner().invoke(main, ["figures", str(root), "u/bias", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "bias has no figures for papers" in " ".join(result.output.split())
