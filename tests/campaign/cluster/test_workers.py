import subprocess
import sys

import pytest

from camcal_dask.campaign.cluster import workers
from camcal_dask.campaign.cluster.workers import Profile, connect, load_profile
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.campaign.planning.request import make_plan
from camcal_dask.campaign.running.run import execute
from camcal_dask.errors import ConfigError
from camcal_dask.repo.butler.repository import open_repo
from tests.campaign.conftest import make_bias


def test_shipped_profiles_load():
    assert load_profile("local").kind == "local"
    assert load_profile("threads", processes=3).n_workers() == 3


def test_an_address_is_a_profile():
    assert load_profile("tcp://10.0.0.1:8786") == Profile(kind="address", address="tcp://10.0.0.1:8786")


def test_unknown_profile_and_key(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'local'"):
        load_profile("locl")
    path = tmp_path / "mine.yaml"
    path.write_text("kind: local\nworkrs: 4\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: unknown key 'workrs'; did you mean 'workers'"):
        load_profile(str(path))


def test_memory_is_shared_between_workers_and_threads():
    two = Profile(workers=2, memory_per_worker="4 GiB")
    assert two.worker_memory_bytes() == two.task_memory_bytes() == 4 * 2**30
    threads = Profile(kind="threads", workers=4, memory_per_worker="4 GiB")
    assert threads.task_memory_bytes() == 2**30


def test_threads_profile_runs_tasks():
    with connect(load_profile("threads", processes=2)) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_a_silent_scheduler_is_reported(monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_TIMEOUT_S", 1)
    profile = Profile(kind="address", address="tcp://127.0.0.1:9")
    with pytest.raises(ConfigError, match="no dask scheduler answers at tcp://127.0.0.1:9"), connect(profile):
        pass


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_workers_have_no_use_for_the_butler(biases):
    """What a worker unpickles must not import the registry's library: it costs seconds of every worker's start."""
    with connect(Profile(workers=1, memory_per_worker="1 GiB")) as client, open_repo(biases, writeable=True) as repo:
        assert make_bias(repo, "u/process", client, where="detector = 1").complete
        verify = load_recipe("TinyCam/verifyBias.yaml")
        inputs = ["u/process", "TinyCam/raw/all"]
        plan = make_plan(repo, verify, inputs=inputs, output="u/process.verify", where="detector = 1")
        assert execute(repo, plan, client).complete
        (loaded,) = client.run(lambda: list(sys.modules)).values()
    assert "camcal_dask.campaign.verification.exposures" in loaded
    assert not [name for name in loaded if name.startswith("lsst")]


def test_no_room_imports_the_butler():
    """The same of all rooms, without a cluster."""
    code = (
        "import sys; from camcal_dask import rooms; rooms.rooms(); print([m for m in sys.modules if m[:4] == 'lsst'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
