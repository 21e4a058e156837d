"""`frfsr eval speed` on toy sizes: the table is complete and repeatable, and the contestants do the same work."""

import csv

import pytest
import torch

from frfsr.errors import UserError
from frfsr.evals import speed, speed_cases


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_cases, "FEATURE", (1, 16, 12, 16))
    monkeypatch.setattr(speed_cases, "_compiled", lambda *args: None)


def test_contestants_agree(toy):
    for build in (
        lambda: speed_cases._match("cpu", torch.float32, 9, 10),
        lambda: speed_cases._warp("cpu"),
        lambda: speed_cases._dynamic_filter("cpu", backward=False),
        lambda: speed_cases._deform_conv("cpu", torch.float32, backward=False),
        lambda: speed_cases._deform_conv("cpu", torch.float32, backward=True),
    ):
        contest = build()
        torch.testing.assert_close(contest.frfsr(), contest.stock(), atol=1e-3, rtol=1e-3)


def test_table_lists_every_case(toy, monkeypatch, tmp_path, capsys):
    every = speed_cases.cases()
    chosen = [case for case in every if case.operation in ("flow_warp", "deform_conv")]
    assert {case.device for case in chosen} == {"cpu", "cuda"}
    monkeypatch.setattr(speed, "cases", lambda: chosen)
    assert speed.run(tmp_path, "cpu") == 0
    (table,) = tmp_path.glob("speed-*.csv")
    rows = list(csv.DictReader(table.open()))
    assert [row["operation"] for row in rows] == [case.operation for case in chosen]
    for row in rows:
        assert bool(row["times_stock"]) == (row["device"] == "cpu")
        assert row["torch"] == torch.__version__
    markdown = table.with_suffix(".md").read_text()
    assert markdown.count("not run") == sum(case.device == "cuda" for case in chosen)
    assert "not run" in capsys.readouterr().out


def test_unknown_device_is_refused(tmp_path):
    with pytest.raises(UserError, match="cpu or cuda"):
        speed.run(tmp_path, "tpu")
