"""Collections and their chains."""

import pytest

from camcal_dask.errors import RepoError


def test_chains(certified):
    children = {
        ("redefine", ("u/me/b1",)): ("u/me/b1",),
        ("extend", ("u/me/b2",)): ("u/me/b1", "u/me/b2"),
        ("prepend", ("TinyCam/raw/all",)): ("TinyCam/raw/all", "u/me/b1", "u/me/b2"),
        ("remove", ("u/me/b1",)): ("TinyCam/raw/all", "u/me/b2"),
        ("pop", ()): ("u/me/b2",),
    }
    for (mode, names), expected in children.items():
        assert certified.chain("u/chain", names, mode) == expected
    kinds = {c.name: c.kind for c in certified.collections("TinyCam/*")}
    assert kinds == {
        "TinyCam/calib": "CHAINED", "TinyCam/calib/a": "CALIBRATION", "TinyCam/calib/b": "CALIBRATION",
        "TinyCam/raw/all": "RUN",
    }  # fmt: skip
    assert [c.name for c in certified.collections(kind="CHAINED")] == ["TinyCam/calib", "u/chain"]
    with pytest.raises(RepoError, match="unknown mode 'prepand'; did you mean 'prepend'"):
        certified.chain("u/chain", ["u/me/b1"], "prepand")
    with pytest.raises(RepoError, match="u/nothing"):
        certified.chain("u/chain", ["u/nothing"])
