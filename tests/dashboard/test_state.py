import pytest

pytest.importorskip("bokeh")

from camcal_dask.dashboard.source import Source  # noqa: E402
from camcal_dask.dashboard.state import State, read, settle  # noqa: E402
from camcal_dask.errors import RepoError  # noqa: E402
from camcal_dask.repo.butler.repository import create_repo  # noqa: E402


@pytest.fixture(scope="module")
def source(repo):
    return Source(repo)


def test_defaults(source):
    state = read({}, source)
    assert (state.run, state.quantity) == ("u/good.verify", "noise")
    assert state.level == "focal plane"
    assert (
        read({k: [v.encode()] for k, v in (p.split("=") for p in state.query().split("&"))}, source).quantity == "noise"
    )


def test_a_query_string_leads_back(source):
    wanted = State(
        collection="u/chain",
        run="u/good.verify",
        quantity="mean",
        exposure="2026081200003",
        detector="R22_S11",
        amp="C05",
        level="amp",
    )
    from urllib.parse import parse_qs

    arguments = {k: [v.encode() for v in values] for k, values in parse_qs(wanted.query()).items()}
    assert read(arguments, source) == wanted


@pytest.mark.parametrize(
    "value", ["../../etc/passwd", "/etc/passwd", "u/good.verify/../../..", "<script>", "\x00", "file:///"]
)
@pytest.mark.parametrize("key", list(State.__dataclass_fields__))
def test_crafted_values_become_defaults(source, key, value):
    assert read({key: [value.encode()], "unknown": [value.encode()], "bad": [b"\xff\xfe"]}, source) == read({}, source)


def test_choices_that_contradict_each_other_are_settled(source):
    assert settle(State(collection="calib", run="u/bias"), source).run == "u/good"
    assert settle(State(run="u/bias.verify", quantity="product.n_bad"), source).quantity == "noise"
    assert settle(State(run="u/bias.verify", amp="C12"), source).amp == ""
    assert settle(State(run="u/bias.verify", other="u/good"), source).other == ""
    assert settle(State(run="u/bias.verify", other="u/good.verify"), source).other == "u/good.verify"


def test_an_empty_repository_says_so(tmp_path):
    with create_repo(str(tmp_path / "r"), "TinyCam") as empty, pytest.raises(RepoError, match="holds no calibration"):
        read({}, Source(empty))
