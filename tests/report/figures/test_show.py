import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.errors import CamcalError
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.focal_plane import split
from camcal_dask.kernels.pixels.masks import BAD, SAT
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.report.figures.show import open_pixels, picture
from camcal_dask.simulation import bias_set
from camcal_dask.simulation.run import simulate
from tests.verified_runs import make_bias

CAMERA = get_instrument("TinyCam")
DIMS = ("detector", "amp", "y", "x")
DAY = 20260812
EXPOSURE = DAY * 100_000 + 1


@pytest.fixture
def product():
    """Detectors 0 and 2, pixels numbered in CCD orientation, one BAD and one SAT pixel in the first."""
    images, masks = [], []
    for d in (0, 2):
        one = CAMERA.detectors[d]
        image = np.arange(one.height_pix * one.width_pix, dtype="f4").reshape(one.height_pix, one.width_pix)
        mask = np.zeros(image.shape, np.int32)
        if d == 0:
            mask[3, 5], mask[60, 80] = BAD, SAT
        shape = (16, *CAMERA.trimmed_shape)
        images.append(split(image, one, shape))
        masks.append(split(mask, one, shape))
    variables = {"image": (DIMS, np.stack(images), {"units": "electron"}), "mask": (DIMS, np.stack(masks))}
    return xr.Dataset(variables, {"detector": [0, 2], "amp": list(CAMERA.amp_names)}, {"instrument": "TinyCam"})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Raws of one detector, and a bias."""
    folder = tmp_path_factory.mktemp("show")
    simulate(folder / "raw", "TinyCam", bias_set(2, DAY), detectors=[0])
    runner = CliRunner()
    with create_repo(str(folder / "repo"), "TinyCam") as repo:
        make_bias(repo, "u/bias")
    result = runner.invoke(main, ["ingest", str(folder / "repo"), str(folder / "raw"), "--cluster", "threads"])
    assert result.exit_code == 0, result.output
    return folder / "repo"


def test_a_detector_is_shown_as_it_lies(product):
    made = picture(product, "R22_S00", title="bias")
    np.testing.assert_array_equal(made.image, np.arange(made.image.size).reshape(made.image.shape))
    assert made.mask[3, 5] == BAD
    assert (made.title, made.unit) == ("bias R22_S00", "electron")


def test_an_amp_is_its_part_of_the_detector(product):
    whole, amp = picture(product, 0), picture(product, 0, amp="C12")
    np.testing.assert_array_equal(amp.image, whole.image[50:, 72:108])
    assert amp.mask[10, 8] == SAT


def test_bins_are_means_and_keep_every_plane(product):
    whole, small = picture(product, 0), picture(product, 0, binning=4)
    assert small.image.shape == (25, 72)
    assert small.image[1, 1] == whole.image[4:8, 4:8].mean()
    assert small.mask[0, 1] == BAD
    assert small.mask[15, 20] == SAT


def test_a_raft_and_the_focal_plane_are_mosaics(product):
    raft = picture(product, "R22")
    assert np.nanmax(raft.image) == picture(product, 0).image.max()
    assert np.isnan(picture(product).image).mean() > 0.5
    assert picture(product).title == "focal plane"


def test_defects_are_shown_as_a_share(product):
    defects = (product["mask"] != 0).astype("u1").to_dataset(name="defects").assign_attrs(product.attrs)
    made = picture(defects, 0)
    assert made.image[3, 5] == 100
    assert made.image.sum() == 200
    assert made.unit == "% bad pixels"


def test_fits_and_png(product, tmp_path):
    made = picture(product, 0)
    made.write(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as hdus:
        np.testing.assert_array_equal(hdus[0].data, made.image)
        np.testing.assert_array_equal(hdus["MASK"].data, made.mask)
        assert hdus[0].header["BUNIT"] == "electron"
        assert hdus["MASK"].header["MP_SAT"] == 1
    imread = pytest.importorskip("matplotlib.image").imread
    made.write(tmp_path / "a.png", limits=(0.0, float(made.image.max())))
    read = imread(tmp_path / "a.png")[::-1]
    assert read.shape == (100, 288, 3)
    assert read[3, 5, 0] > read[3, 5, 1] + 0.2  # BAD is red
    assert (read[50, 100] == read[50, 100, 0]).all()
    made.write(tmp_path / "b.png", planes=["CR"])
    assert imread(tmp_path / "b.png").ndim == 2


def test_figure_names_the_planes_it_shows(product):
    pytest.importorskip("matplotlib")
    figure = picture(product, 0).figure()
    legend = figure.axes[0].get_legend()
    assert [t.get_text() for t in legend.get_texts()] == ["BAD", "SAT"]
    figure.canvas.draw()


def test_raw_corrected_and_combined(root, tmp_path):
    with open_repo(root) as repo:
        raw = open_pixels(repo, "raw", exposure=EXPOSURE)
        made = picture(raw, 0)
        assert made.image.shape == (128, 448)  # 2 x 64 rows and 8 x 56 columns with all overscans
        pixels = repo.raws(f"exposure = {EXPOSURE}", detectors=[0]).values[0, 0, 0]
        np.testing.assert_array_equal(picture(raw, 0, amp="C10").image, pixels[::-1, ::-1])
        corrected = picture(open_pixels(repo, "corrected", exposure=EXPOSURE, detectors=[0]), 0)
        assert corrected.image.shape == (100, 288)
        assert abs(np.nanmedian(corrected.image)) < 30
        collections = ["u/bias", "TinyCam/raw/all"]
        subtracted = open_pixels(
            repo, "corrected", collections, exposure=EXPOSURE, pipeline="TinyCam/verifyBias.yaml", detectors=[0]
        )
        gain = CAMERA.detectors[0].amps[0].gain
        left = corrected.image[60:, :30] * gain - picture(subtracted, 0).image[60:, :30]
        assert np.nanmedian(left) == pytest.approx(7.0, abs=0.5)  # the constant bias
    arguments = [
        "show",
        str(root),
        "bias",
        "-i",
        "u/bias",
        "--detector",
        "0",
        "--amp",
        "C10",
        "-o",
        str(tmp_path / "x.fits"),
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "bias R22_S00 C10 [electron]: 36 x 50 pixels" in result.output
    assert (fits.getdata(tmp_path / "x.fits") == 7.0).all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda p, _: picture(p, "R22_S0"), "did you mean"),
        (lambda p, _: picture(p, 1), "is not among these pixels"),
        (lambda p, _: picture(p, 0, amp="C1"), "has no amp 'C1'"),
        (lambda p, _: picture(p, "R22", amp="C10"), "an amp needs a detector"),
        (lambda p, _: picture(p.drop_vars("image"), 0), "no pixels among mask"),
        (lambda p, path: picture(p, 0).write(path / "a.jpg"), "written as .png or .fits"),
        (lambda p, path: picture(p, 0).write(path / "a.png", planes=["BAT"]), "did you mean 'SAT'"),
    ],
)
def test_mistakes(product, tmp_path, act, message):
    with pytest.raises(CamcalError, match=message):
        act(product, tmp_path)


def test_an_exposure_and_a_place_must_be_named(root):
    with open_repo(root) as repo:
        with pytest.raises(CamcalError, match="say which exposure"):
            open_pixels(repo, "raw")
        with pytest.raises(CamcalError, match="say where it is"):
            open_pixels(repo, "bias")
