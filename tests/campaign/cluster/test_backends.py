"""What profiles hand to batch systems, Kubernetes and Gateway, judged by these systems' own schemas."""

import gc
from importlib.resources import files

import pytest
import yaml
from click.testing import CliRunner

from camcal_dask.campaign.cluster import backends, check
from camcal_dask.campaign.cluster.profile import Profile, load_profile, profile_names, seconds
from camcal_dask.campaign.cluster.workers import connect
from camcal_dask.cli import main
from camcal_dask.errors import ConfigError

SLURM = {"kind": "slurm", "workers": 4, "memory_per_worker": "3 GiB", "jobs": {"walltime": "01:00:00"}}


def write(tmp_path, values, name="mine"):
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


# ---------------------------------------------------------------------------- profiles


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10 minutes", 600), ("1 h", 3600), ("04:00", 14400), ("04:00:30", 14430), ("2-01:00:00", 176400)],
)
def test_times(text, expected):
    assert seconds(text) == expected


def test_every_shipped_profile_loads_and_names_its_kind():
    kinds = {name: load_profile(name).kind for name in profile_names()}
    assert set(kinds) >= {"threads", "local", "slurm", "pbs", "lsf", "htcondor", "kubernetes", "gateway"}
    assert all(kind == name for name, kind in kinds.items())


def test_own_profiles_come_before_the_shipped_ones(tmp_path, monkeypatch):
    write(tmp_path, {**SLURM, "workers": 7}, "slurm")
    write(tmp_path, SLURM, "site")
    monkeypatch.setenv("CAMCAL_CLUSTER_PATH", str(tmp_path))
    assert load_profile("slurm").workers == 7
    assert load_profile("site").workers == 4
    assert load_profile("site", processes=9).n_workers() == 9
    assert str(tmp_path) in CliRunner().invoke(main, ["cluster", "list"]).output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jobs": None}, "kind slurm needs the key jobs"),
        ({"gateway": {"address": "http://x"}}, "gateway is given, but kind is slurm"),
        ({"workers": "auto"}, "needs workers: a number, or adaptive"),
        ({"memory_per_worker": "auto"}, "needs memory_per_worker"),
        ({"jobs": {"walltime": "00:05:00"}}, "leaves nothing of the walltime"),
        ({"jobs": {"walltime": "soon"}}, "expected a time such as"),
        ({"jobs": {"waltime": "01:00"}}, "unknown key 'jobs.waltime'; did you mean 'walltime'"),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, "looks like a credential"),
        ({"kind": "threads", "jobs": None, "adaptive": {"maximum": 3}}, "fixed number of workers"),
    ],
)
def test_contradictions_are_refused(tmp_path, change, message):
    values = {k: v for k, v in {**SLURM, **change}.items() if v is not None}
    with pytest.raises(ConfigError, match=message):
        load_profile(str(write(tmp_path, values)))


def test_a_job_is_planned_by_the_memory_of_one_task():
    profile = load_profile("slurm")
    assert profile.task_memory_bytes() == 4 * 2**30
    assert profile.lifetime_s() == 4 * 3600 - 600


# ---------------------------------------------------------------------------- batch systems


@pytest.fixture
def jobqueue():
    return pytest.importorskip("dask_jobqueue", reason="pip install 'camcal_dask[jobqueue]'")


@pytest.mark.parametrize(
    ("kind", "cores", "memory"),
    [
        ("slurm", "--cpus-per-task=6", "--mem=9G"),
        ("pbs", "ncpus=6", "mem=8584MB"),  # 9e9 bytes, rounded up to MiB
        ("lsf", "#BSUB -n 6", "#BSUB -M"),
        ("htcondor", "DaskWorkerCores = 6", "DaskWorkerMemory = 9000000000"),
    ],
)
def test_a_job_holds_its_workers(jobqueue, kind, cores, memory):
    jobs = {
        "workers_per_job": 3,
        "prologue": ["module load x"],
        "options": {"disk": "1 GB"} if kind == "htcondor" else {},
    }
    profile = Profile(kind=kind, workers=6, threads_per_worker=2, memory_per_worker="3 GB", jobs=jobs,
                      kernel_cache_directory="/shared/kernels", environment={"SITE": "a b"})  # fmt: skip
    script = backends.render(profile)
    for text in (cores, memory, "--nworkers 3", "--nthreads 2", "export OMP_NUM_THREADS=1", "module load x",
                 "export NUMBA_CACHE_DIR=/shared/kernels", "SITE="):  # fmt: skip
        assert text in script


def test_workers_retire_before_the_walltime(jobqueue):
    script = backends.render(load_profile("slurm"))
    assert "#SBATCH -t 04:00:00" in script
    assert "--lifetime 13740s --lifetime-stagger 60s" in script  # 4 h - 10 minutes - the stagger


# ---------------------------------------------------------------------------- Kubernetes


def test_the_manifest_satisfies_the_operators_schema():
    pytest.importorskip("dask_kubernetes", reason="pip install 'camcal_dask[kubernetes]'")
    jsonschema = pytest.importorskip("jsonschema")
    folder = files("dask_kubernetes") / "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
    (crd,) = yaml.safe_load_all(folder.read_text())
    (version,) = [v for v in crd["spec"]["versions"] if v["storage"]]
    manifest = yaml.safe_load(backends.render(load_profile("kubernetes")))
    assert manifest["apiVersion"] == f"{crd['spec']['group']}/{version['name']}"
    assert manifest["kind"] == crd["spec"]["names"]["kind"]
    schema = version["schema"]["openAPIV3Schema"]
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(manifest, schema)
    worker = manifest["spec"]["worker"]
    (container,) = worker["spec"]["containers"]
    assert worker["replicas"] == 2
    assert container["resources"]["limits"] == {"cpu": "1", "memory": str(4 * 2**30)}
    assert container["args"][:2] == ["dask", "worker"]
    assert manifest["spec"]["scheduler"]["spec"]["containers"][0]["args"][:2] == ["dask", "scheduler"]
    assert container["volumeMounts"] == [{"name": "scratch", "mountPath": "/scratch"}]
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
    broken = {**manifest, "spec": {**manifest["spec"], "worker": {**worker, "replicas": "two"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


# ---------------------------------------------------------------------------- Gateway


def gateway_profile(address, **options):
    return Profile(kind="gateway", workers=1, memory_per_worker="1 GiB", startup_timeout="2 minutes",
                   gateway={"address": address, "options": options})  # fmt: skip


@pytest.fixture
def no_client_left():
    """Clients of a gateway are closed by the garbage collector at the latest: here, not in a thread that starts."""
    yield
    gc.collect()


@pytest.mark.cluster
@pytest.mark.usefixtures("no_client_left")
def test_a_real_gateway_gives_workers(dask_gateway_server):
    with connect(gateway_profile(dask_gateway_server, threads=1)) as client:
        assert client.submit(sum, [1, 2]).result(timeout=180) == 3


@pytest.mark.cluster
@pytest.mark.usefixtures("no_client_left")
def test_what_a_gateway_does_not_offer_is_named(dask_gateway_server):
    with pytest.raises(ConfigError, match=r"offers no cluster option thread; it has \['threads'\]"):
        backends.start(gateway_profile(dask_gateway_server, thread=1))


@pytest.mark.usefixtures("no_client_left")
def test_a_silent_gateway_is_named():
    pytest.importorskip("dask_gateway", reason="pip install 'camcal_dask[gateway]'")
    with pytest.raises(ConfigError, match="cluster of kind gateway cannot be started"):
        backends.start(gateway_profile("http://127.0.0.1:9"))


# ---------------------------------------------------------------------------- check


def test_check_measures_every_worker(tmp_path):
    profile = load_profile("threads", processes=2)
    with connect(profile) as client:
        findings = check.check(client, profile, str(tmp_path))
    texts = [f"{f.what}: {f.text}" for f in findings]
    assert any("1 of 1 are there" in text for text in texts)
    assert any("MB/s written" in text for text in texts)
    assert not any(f.level == "failure" for f in findings)
    assert not list((tmp_path / "cubes").iterdir())


def test_check_says_what_would_go_wrong(tmp_path):
    file = tmp_path / "file"
    file.touch()
    profile = Profile(kind="threads", workers=1, memory_per_worker="100 MiB")
    with connect(profile) as client:
        findings = {f.text for f in check.check(client, profile, str(file)) if f.level == "failure"}
    assert any("100 MiB are too little for full-size detectors" in text for text in findings)
    assert any("repository cannot be used from there" in text for text in findings)
