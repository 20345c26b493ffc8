"""The account of a run in a terminal and in a log."""

import io

from rich.console import Console

from camcal_dask.campaign.running.tracker import Snapshot
from camcal_dask.cli import live

STATE = Snapshot(
    "u/x", "bias", total=189, done=40, skipped=2, failed=1, running=8, elapsed_s=65, per_s=0.5, left_s=292, workers=4,
    threads=8, memory_mib=3072, dashboard="http://127.0.0.1:8787/status", last_failures=("stack detector 7: bad",),
)  # fmt: skip


def test_a_line_tells_everything():
    assert live.line(STATE) == (
        "bias running: 42/189 done (2 before) | 8 running | 1 failed | 0.5/s | 0:01:05 so far, 0:04:52 left | "
        "4 workers, 3.0 GiB | http://127.0.0.1:8787/status"
    )


def test_a_picture_tells_it_as_well():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(live.picture(STATE))
    text = console.export_text()
    for part in (
        "u/x (bias)",
        "40 done, 2 skipped, 8 running, 1 failed of 189",
        "0:04:52 left",
        "8787",
        "detector 7: bad",
    ):
        assert part in text


def test_lines_are_few(monkeypatch, capsys):
    lines = live._Lines()
    for _ in range(50):
        lines.show(STATE)
    assert capsys.readouterr().out.count("bias running") == 1
