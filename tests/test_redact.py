"""No secret in what is recorded or printed; nothing else is taken away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camcal_dask.campaign.past import record
from camcal_dask.campaign.planning.plan import Found
from camcal_dask.redact import redacted, redacted_command, redacted_values


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tcp://me:hunter2@host:8786", "tcp://***@host:8786"),
        ("postgresql://me:p@ss@host/db", "postgresql://***@host/db"),
        ("postgresql://me:p/w@host/db", "postgresql://***@host/db"),
        ("https://:hunter2@host", "https://***@host"),
        ("run --token hunter2 -j 2", "run --token *** -j 2"),
        ("run --api-key=hunter2", "run --api-key=***"),
        ("gateway.password='hunter 2'", "gateway.password=***"),
        ('{"AWS_SECRET_ACCESS_KEY": "hunter2"}', '{"AWS_SECRET_ACCESS_KEY": ***}'),
        ("http://h:8787/status?token=hunter2&x=1", "http://h:8787/status?token=***&x=1"),
        ("Authorization: Bearer hunter2", "Authorization: *** ***"),
        ("https://hunter2@host/a.fits", "https://***@host/a.fits"),
        ("https://h/a.fits?X-Amz-Signature=hunter2&x=1", "https://h/a.fits?X-Amz-Signature=***&x=1"),
        ("https://h/a.fits?sv=1&sig=hunter2&x=1", "https://h/a.fits?sv=1&sig=***&x=1"),
        ("private-key: hunter2", "private-key: ***"),
        ("cookie=hunter2 passphrase=hunter2", "cookie=*** passphrase=***"),
    ],
)
def test_secrets_are_hidden(text, shown):
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "tcp://10.0.0.1:8786",
        "postgresql://me@host/db",
        "http://127.0.0.1:8787/status",
        "http://[::1]:8787/a@b",
        "file:///data/me@host:1/repo",
        "exposure.observation_type='bias' AND exposure.day_obs=20260812",
        "https://host/a.fits?sigma=3",
        "run -b repo -p bias.yaml -c isr.dither=none -o u/me/bias",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text
    assert redacted_command(text.split()) == text.split()


def test_command_with_option_and_value_apart():
    words = ["camcal", "run", "--auth-token", "hunter2", "--db-password", "-j", "2", "--cluster", "tcp://u:p@h:1"]
    shown = ["camcal", "run", "--auth-token", "***", "--db-password", "-j", "2", "--cluster", "tcp://***@h:1"]
    assert redacted_command(words) == shown


def test_nested_settings():
    values = {"gateway": {"password": "hunter2", "n": 3, "list": ("tcp://a:b@c", 1)}, "api-key": ["x"]}
    assert redacted_values(values) == {
        "gateway": {"password": "***", "n": 3, "list": ["tcp://***@c", 1]}, "api-key": ["***"]
    }  # fmt: skip


@given(st.from_regex(r"[!-9;-?A-~]{4,20}", fullmatch=True).filter(lambda p: not p.isdigit()))
def test_no_password_of_an_address_survives(password):
    text = f"tcp://me:{password}@host.example:8786/x"
    shown = redacted(text)
    assert f":{password}@" not in shown
    assert shown.endswith("@host.example:8786/x")


def test_record_of_a_run_has_no_secret(monkeypatch):
    monkeypatch.setattr("sys.argv", ["camcal", "run", "--cluster", "tcp://me:hunter2@h:1", "--token", "hunter2"])
    monkeypatch.setattr(record, "calib_ids", lambda plan: {})
    monkeypatch.setattr(record, "provenance_id", lambda plan: "")
    made = record.open_record(_Plan(), "tcp://me:hunter2@h:1", {"overrides": ["a.token=hunter2"]})
    assert "hunter2" not in str(made.plain())
    assert made.cluster == "tcp://***@h:1"


class _Plan:
    """As much of a plan as a record looks at."""

    output, where, inputs, exposures, detectors, found, elsewhere = "u/x", "", [], [], [], Found(), {}  # noqa: RUF012

    choice, absent = (), ()

    class recipe:  # noqa: N801
        product = "bias"

        @staticmethod
        def model_dump(mode):
            return {}
