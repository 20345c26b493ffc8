import pytest

from camcal_dask.config import Config, load_config
from camcal_dask.errors import ConfigError


class Inner(Config):
    order: int = 1


class Outer(Config):
    inner: Inner = Inner()
    sigma: float = 3.0


def test_unknown_keys_name_the_nearest_valid_one():
    with pytest.raises(ConfigError, match=r"f\.yaml: unknown key 'inner\.ordre'; did you mean 'order'\?"):
        load_config(Outer, {"inner": {"ordre": 2}}, "f.yaml")


def test_all_faults_are_reported_at_once():
    with pytest.raises(ConfigError) as error:
        load_config(Outer, {"sigm": 2, "inner": {"order": "many"}}, "f.yaml")
    assert "did you mean 'sigma'" in str(error.value)
    assert "inner.order = 'many'" in str(error.value)


def test_configuration_is_frozen_and_hashable():
    assert hash(load_config(Outer, {"sigma": 4}, "f.yaml")) == hash(Outer(sigma=4.0))
