import errno
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.errors import ConfigError, RepoError, RunError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.report.content.data import script
from camcal_dask.report.content.subject import Subject
from camcal_dask.report.pages import build
from camcal_dask.report.pages.build import write_pages, write_report
from tests.verified_runs import make_verdict


class Page(HTMLParser):
    """Collect links, sources and text; complain about badly nested elements."""

    VOID = frozenset({"img", "meta", "link", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.ids, self.words = [], [], set(), []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[k] for k in ("href", "src") if k in found]
        self.ids |= {found["id"]} if "id" in found else set()
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def report(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "r"
    result = CliRunner().invoke(main, ["report", str(root), "u/bias.verify", "-o", str(folder)])
    assert result.exit_code == 0, result.output
    assert "index.html" in result.output
    return folder


def pages(folder):
    return {p: Page(p.read_text()) for p in sorted(folder.rglob("*.html"))}


def test_every_link_leads_somewhere_inside(report):
    found = pages(report)
    assert len(found) == 1 + 4 + 2
    for path, page in found.items():
        for target in page.links:
            assert "://" not in target
            file, _, fragment = target.partition("#")
            aim = (path.parent / unquote(file)).resolve() if file else path
            assert aim.is_relative_to(report.resolve()), target
            assert aim.exists(), f"{path}: {target}"
            if fragment:
                assert unquote(fragment) in Page(aim.read_text()).ids, target


def test_verdict_and_failures_come_first_and_link_to_their_page(report):
    text = (report / "index.html").read_text()
    assert "✗ Failed" in text
    assert text.index("✗ Failed") < text.index("2026081200001</code> (first of its set)") < text.index('id="map"')
    assert '<a href="detectors/R22_S00.html#C12">R22_S00 C12</a>' in text
    detector = Page((report / "detectors" / "R22_S00.html").read_text())
    assert {"C12", "amps", "failures"} <= detector.ids
    assert "NOISE_LOW" in detector.words
    assert "R22_S00,C12,bias.noise_low" in (report / "failures.csv").read_text()


def test_provenance_is_told_and_escaped(report):
    text = (report / "index.html").read_text()
    assert "verify.x=&lt;1&gt;" in text
    assert "<1>" not in text
    for words in ("somebody", "exposure.day_obs = 20260812", "candidate <code>u/bias</code>"):
        assert words in text


def test_data_are_those_of_the_verdict(report):
    text = (report / "data.js").read_text()
    data = json.loads(re.fullmatch(r"window\.CAMCAL=(.*);\n", text).group(1))
    verdict = make_verdict()
    noise = next(q for q in data["quantities"] if q["key"] == "noise")
    np.testing.assert_allclose(noise["values"], verdict["noise"][1:].median("exposure").values.ravel(), rtol=1e-6)
    assert len(noise["trend"]) == len(data["vendors"]) == 2
    assert len(noise["trend"][0][1]) == 5
    tests = data["matrices"]["tests"]
    assert tests["values"][tests["rows"].index("bias.noise_low")] == pytest.approx([100 / 16, 0, 0, 0])
    assert data["matrices"]["exposures"]["values"][0] == [16, 16, 16, 16]
    assert [e["bad"] for e in data["exposures"]] == [True] + [False] * 4
    assert any(q["key"] == "product.distribution.50" for q in data["quantities"])


def test_images_of_product_and_residual_are_there(report):
    names = {p.name for p in (report / "images").iterdir()}
    assert {"product.png", "residual.png", "residual-2026081200001.png", "product-R22_S11.png"} <= names


def test_product_shows_its_verification(root, tmp_path):
    with open_repo(root) as repo:
        text = write_report(repo, "u/good", tmp_path / "g").read_text()
        assert "✓ Passed" in text
        assert "judged by <code>u/good.verify</code>" in text
        assert "No required test failed." in text
        write_report(repo, "u/good", tmp_path / "g")  # again, into the same folder


def test_mistakes(root, tmp_path):
    (tmp_path / "precious.txt").touch()
    with open_repo(root) as repo:
        with pytest.raises(ConfigError, match="not a report"):
            write_report(repo, "u/good", tmp_path)
        with pytest.raises(RepoError, match="did you mean 'u/good'"):
            write_report(repo, "u/goo", tmp_path / "x")
        with pytest.raises(RepoError, match="no calibration and no verification"):
            write_report(repo, "TinyCam/raw/all", tmp_path / "x")
        with pytest.raises(RepoError, match="holds no 'dark'"):
            write_report(repo, "u/good", tmp_path / "x", "dark")
    assert (tmp_path / "precious.txt").exists()


def test_a_full_disk_leaves_no_folder_and_no_half_report(root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_repo(root) as repo:
        with monkeypatch.context() as broken:
            broken.setattr(build, "index_page", full)
            with pytest.raises(RunError, match=r"r: the report cannot be written .*No space left"):
                write_report(repo, "u/good", tmp_path / "r")
            assert not (tmp_path / "r").exists()
        write_report(repo, "u/good", tmp_path / "r")
        before = {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()}
        monkeypatch.setattr(build, "index_page", full)
        with pytest.raises(RunError):
            write_report(repo, "u/good", tmp_path / "r")
        assert before == {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()}


def test_data_cannot_end_the_script():
    assert "</script>" not in script({"x": "</script>&"})
    with pytest.raises(ValueError, match="JSON compliant"):
        script({"x": float("nan")})


def test_assets_use_no_network():
    from importlib.resources import files

    for name in ("report.js", "report.css"):
        text = Path(str(files("camcal_dask.report").joinpath("assets", name))).read_text()
        assert "http" not in text
        assert "@import" not in text
        assert "innerHTML" not in text


def test_what_was_not_measured_is_said(tmp_path):
    subject = Subject("u/lin", "verifyLinearizer", get_instrument("TinyCam"), verdict=make_verdict())
    assert "not measured" not in write_pages(subject, tmp_path / "a").read_text()
    verdict = make_verdict().assign_attrs(not_measured="levels left out of the fit")
    subject = Subject("u/lin", "verifyLinearizer", get_instrument("TinyCam"), verdict=verdict)
    assert "not measured: levels left out of the fit" in write_pages(subject, tmp_path / "b").read_text()


def test_statistics_without_tests_are_shown_without_a_verdict(tmp_path):
    numbers = make_verdict()[["noise", "residual_binned"]]
    subject = Subject("u/eo", "eoBias", get_instrument("TinyCam"), verdict=numbers)
    text = write_pages(subject, tmp_path / "r").read_text()
    assert "Not judged" in text
    assert "data-matrix" not in text
    assert 'data-q="noise"' in text
