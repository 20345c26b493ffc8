"""A path is a path wherever a person writes it: ``~`` is the home folder, in quotes, options and files too."""

import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from camcal_dask.campaign.cluster.profile import Profile, load_profile
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.cli import main
from camcal_dask.config import expanded
from camcal_dask.errors import ConfigError
from camcal_dask.repo.butler.repository import create_repo, open_repo

NO_PATHS = {
    "amp", "beg", "begin_date", "by", "cards", "collection", "collections", "conditions", "dark", "dataset_type",
    "detector", "detectors", "end_date", "failed", "flat", "inputs", "instrument", "kind", "mask", "no_verify", "note",
    "output", "override", "overrides", "prefix", "product", "products", "ptc", "quantities", "raft", "registry", "run",
    "runs", "skip_existing_in", "sort", "test", "text", "what", "where", "address",
}  # fmt: skip
"""Parameters that are text and no path: names, collections, dates, expressions."""
PATHS = {"cluster", "folder", "other", "out", "paths", "pipeline", "profile", "repo", "save_plan"}


def parameters(group, *names):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from parameters(command, *names, name)
        else:
            yield from ((" ".join((*names, name)), p) for p in command.params)


def test_every_path_of_every_command_is_expanded(monkeypatch, tmp_path):
    """A new parameter that is text is a path, or is said here to be none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").touch()
    seen = set()
    for command, parameter in parameters(main):
        if isinstance(parameter.type, click.Path):
            name = "~/there" if parameter.type.exists else "~/x"
            assert str(parameter.type.convert(name, parameter, None)) == f"{tmp_path}{name[1:]}", (command, parameter)
            seen.add(parameter.name)
        elif isinstance(parameter.type, type(click.STRING)):
            assert parameter.name in NO_PATHS, f"{command}: {parameter.name}"
    assert seen == PATHS | {"output"}  # of show, stats and report a file or folder, of others a collection


def test_what_is_no_path_of_this_user_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("s3://bucket/~/x", "tcp://host:1234", "LSSTCam/bias.yaml", "slurm", "a~", "~nobody-of-this-name/x"):
        assert expanded(text) == text


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_profiles_pipelines_and_their_paths(home):
    (home / "my.yaml").write_text(
        "{kind: slurm, workers: 1, memory_per_worker: 1 GiB, scratch_directory: ~/scratch, "
        "kernel_cache_directory: ~/k, jobs: {log_directory: ~/logs, python: ~/env/bin/python}}"
    )
    profile = load_profile("~/my.yaml")
    assert profile.jobs is not None
    found = (profile.scratch_directory, profile.kernel_cache_directory, profile.jobs.log_directory, profile.jobs.python)
    assert found == tuple(f"{home}/{name}" for name in ("scratch", "k", "logs", "env/bin/python"))
    assert Profile(scratch_directory="/scratch").scratch_directory == "/scratch"
    shutil.copytree(Path(__file__).parents[1] / "pipelines", home / "pipelines")
    assert load_recipe("~/pipelines/TinyCam/ptc.yaml") == load_recipe("TinyCam/ptc.yaml")
    assert load_recipe("~/pipelines/bias.yaml", instrument="TinyCam") == load_recipe("TinyCam/bias.yaml")
    with pytest.raises(ConfigError, match="no pipeline '~nobody-of-this-name/bias.yaml'"):
        load_recipe("~nobody-of-this-name/bias.yaml")


def test_repositories_and_profiles_of_the_environment(home, monkeypatch):
    (home / "site").mkdir()
    (home / "site" / "ours.yaml").write_text("{kind: threads, workers: 3}")
    monkeypatch.setenv("CAMCAL_CLUSTER_PATH", "~/site")
    assert load_profile("ours").workers == 3
    answer = CliRunner().invoke(main, ["create", "~/repo", "--instrument", "TinyCam"])
    assert answer.exit_code == 0, answer.output
    with open_repo("~/repo") as repo, create_repo(str(home / "repo"), "TinyCam") as same:
        assert repo.root == same.root == f"{home}/repo"
