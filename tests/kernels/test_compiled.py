"""The cache of machine code can only help: read-only places, empty and cut files, full disks."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import camcal_dask
from camcal_dask.kernels import compiled as subject

PACKAGE = Path(camcal_dask.__file__).parent
PROGRAM = """
import numpy as np
from camcal_dask.kernels.linearity.akima import akima_spline
print(akima_spline(np.arange(5.0), np.arange(5.0) ** 2, np.array([2.0]))[0])
"""


def run(folder, **environment):
    """Run the program on a copy of the kernels; (standard output, standard error)."""
    base = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    command = [sys.executable, "-c", PROGRAM]
    env = base | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A copy of the package whose kernels cannot keep anything beside them; (folder, home, temporary folder)."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "camcal_dask").mkdir()
    for name in ("__init__.py", "errors.py", "config.py"):
        shutil.copy(PACKAGE / name, folder / "camcal_dask")
    shutil.copytree(PACKAGE / "kernels", folder / "camcal_dask/kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "camcal_dask/kernels/__pycache__").write_text("a file: no folder can be made here, not even by root")
    home = folder / "home"
    home.write_text("idem")
    (folder / "tmp").mkdir()
    return folder, str(home), str(folder / "tmp")


def test_read_only_home_and_installation(installed):
    folder, home, temporary = installed
    places = {"HOME": home, "XDG_CACHE_HOME": f"{home}/cache"}
    out, said = run(folder, TMPDIR=temporary, **places)
    assert out == "4.0"
    assert said.count("NUMBA_CACHE_DIR") == 1, said
    (private,) = Path(temporary).glob("camcal-kernels-*")
    assert private.stat().st_mode & 0o777 == 0o700
    kept = sorted(private.rglob("*.nbc"))
    assert kept
    # of somebody else: what lies there is not unpickled, and nothing is kept
    private.chmod(0o777)
    out, said = run(folder, TMPDIR=temporary, **places)
    assert out == "4.0"
    assert "every process compiles them again" in said
    assert sorted(private.rglob("*.nbc")) == kept


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Folder of the machine code; also in the environment, which numba reads anew whenever it has changed."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(subject.numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("damage", [b"", b"cut", None], ids=["empty", "cut", "truncated"])
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_damaged_file_of_the_cache_is_discarded(cache, damage, ending):

    def make():
        return subject.compiled(_square)

    assert make()(3.0) == 9.0
    (path,) = cache.rglob(f"*.{ending}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert make()(3.0) == 9.0
    (again,) = cache.rglob(f"*.{ending}")
    assert len(again.read_bytes()) > len(whole) // 2
    fresh = make()
    assert fresh(3.0) == 9.0
    assert sum(fresh.stats.cache_hits.values()) == 1


def _square(x):
    return x * x


def test_a_disk_that_takes_nothing_is_one_warning(cache, monkeypatch):
    kernel = subject.compiled(error_model="numpy")(_square)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernel._cache._cache_file, "save", full)
    with pytest.warns(RuntimeWarning, match=r"\(No space left on device\); set NUMBA_CACHE_DIR"):
        assert kernel(3.0) == 9.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(kernel(np.arange(3.0)), [0, 1, 4])


def test_every_kernel_is_compiled_here():
    """A kernel with a cache of its own would fail where nothing can be written."""
    for path in PACKAGE.rglob("*.py"):
        if path.name != "compiled.py":
            assert "cache=True" not in path.read_text(), path
