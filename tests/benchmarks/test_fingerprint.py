"""Fingerprints: what is the same has the same hash, and what differs is named."""

import json
import sys

import numpy as np
import pytest
import zarr
from astropy.io import fits

from benchmarks import __main__ as command
from benchmarks import fingerprint


def dataset(folder, values, *, units="adu", **attributes):
    """A repository with one dataset of two detectors."""
    group = zarr.open_group(str(folder / "cubes" / "u" / "bias" / "bias.zarr"), mode="w", attributes=attributes)
    ids = group.create_array("detector", shape=2, dtype="int64", dimension_names=("detector",))
    ids[...] = [90, 94]
    shape = (2, *np.shape(values)[1:])
    array = group.create_array(
        "image", shape=shape, dtype="f4", chunks=(1, *shape[1:]), dimension_names=("detector", "y"),
        attributes={"units": units}, fill_value=0,
    )  # fmt: skip
    for place, part in enumerate(values):
        array[place] = part
    return fingerprint.cube_names(folder)


def other_nan(values):
    """The same values with NaNs of another bit pattern."""
    values = np.array(values, "f4")
    values.view("u4")[np.isnan(values)] ^= 0x80000001
    return values


def test_every_nan_and_every_memory_order_is_the_same():
    values = np.array([[1, np.nan], [3, 4]], "f4")
    assert other_nan(values).tobytes() != values.tobytes()
    same = (other_nan(values), np.asfortranarray(values), values.astype(">f4"))
    assert {fingerprint.digest(v) for v in same} == {fingerprint.digest(values)}
    assert fingerprint.digest(np.array([0.0])) != fingerprint.digest(np.array([-0.0]))
    assert fingerprint.digest(["a", "bc"]) != fingerprint.digest(["ab", "c"])


def test_the_variable_and_detector_that_changed_are_named(tmp_path):
    image = [[1, 2, np.nan], [4, 5, 6]]
    before = dataset(tmp_path / "a", image)
    assert not list(fingerprint.differences(before, dataset(tmp_path / "b", other_nan(image))))
    image[1][0] = np.nextafter(np.float32(4), np.float32(5))
    after = dataset(tmp_path / "c", image, units="electron")
    name = "u/bias/bias variable image"
    assert list(fingerprint.differences(before, after)) == [
        f"changed  {name}: values of detector 94; units adu -> electron"
    ]
    assert list(fingerprint.differences(before, {})) == [f"gone     {n}" for n in sorted(before)]
    assert f"new      {name}" in list(fingerprint.differences({}, after))


def test_ids_versions_and_prose_do_not_count(tmp_path):
    rule = {"id": "bias.mean", "op": "<", "doc": "residual level"}
    told = {"provenance_id": "1", "software": {"numpy": "1"}, "calibs": {"ptc": {"94": "uuid"}}, "fit_type": "A"}
    before = dataset(tmp_path / "a", np.ones((2, 3)), criteria=json.dumps([rule]), **told)
    told |= {"provenance_id": "2", "software": {}, "calibs": {"ptc": {"94": "other"}}}
    after = dataset(tmp_path / "b", np.ones((2, 3)), criteria=json.dumps([rule | {"doc": "level"}]), **told)
    assert before == after
    after = dataset(tmp_path / "c", np.ones((2, 3)), criteria=json.dumps([rule | {"op": "<="}]), **told)
    assert [line.split(": ")[0] for line in fingerprint.differences(before, after)] == [
        "changed  u/bias/bias attribute criteria"
    ]


def test_of_large_arrays_the_written_shards_count(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 16)  # more than the ids have
    one = dataset(tmp_path / "a", [[1, 2, 3]])["u/bias/bias variable image"]
    two = dataset(tmp_path / "b", [[1, 2, 3], [4, 5, 6]])["u/bias/bias variable image"]
    assert list(one["sha256"]) == ["90"]
    assert list(two["sha256"]) == ["90", "94"]
    assert one["sha256"]["90"] == two["sha256"]["90"]


def test_columns_and_cards_of_fits_files(tmp_path):
    def names(folder, gain, date):
        (tmp_path / folder / "export").mkdir(parents=True)
        table = fits.BinTableHDU.from_columns([fits.Column("GAIN", "D", array=np.array([gain, np.nan]))])
        table.header["ODP"], table.header["DATE"], table.header["HIERARCH CALIB_CREATION_DATE"] = 26.9, date, date
        table.writeto(tmp_path / folder / "export" / "ptc.fits")
        return fingerprint.fits_names(tmp_path / folder / "export")

    before = names("a", 1.5, "2026-11-30")
    assert before == names("b", 1.5, "2027-11-30")
    assert list(fingerprint.differences(before, names("c", 1.6, "x"))) == ["changed  export/ptc.fits [1] GAIN: values"]


def test_the_command_compares_two_files(tmp_path, capsys, monkeypatch):
    names = dataset(tmp_path / "a", np.ones((2, 3)))
    changed = dataset(tmp_path / "b", np.zeros((2, 3)))
    for file, content in {"a": names, "b": changed}.items():
        (tmp_path / f"{file}.json").write_text(json.dumps({"names": content}))
    for other, code in {"a": 0, "b": 1}.items():
        files = [str(tmp_path / f"{name}.json") for name in ("a", other)]
        monkeypatch.setattr(sys, "argv", ["benchmarks", "fingerprint", "--compare", *files])
        with pytest.raises(SystemExit) as ended:
            command.main()
        assert ended.value.code == code
        assert f"{code} differences" in capsys.readouterr().out
