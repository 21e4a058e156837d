"""`frfsr eval speed` on toy sizes: the table is complete and repeatable, and the contestants do the same work."""

import csv

import pytest
import torch

from frfsr import FRFSR, FRFSRConfig
from frfsr.errors import UserError
from frfsr.evals import speed, speed_cases, speed_stock


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


def test_stock_that_does_not_compile_leaves_its_cell_empty(capsys):
    def broken() -> None:
        raise AssertionError("of the compiler")

    contest = speed_cases.Contest(lambda: torch.ones(9).sum(), lambda: torch.ones(9).sum(), compiled=broken)
    row = speed.measure(speed_cases.Case("cpu", "sum", "9", torch.float32, "", lambda: contest))
    assert row.compiled_ms is None
    assert row.frfsr_ms is not None
    assert "stock does not compile: AssertionError: of the compiler" in capsys.readouterr().out


def test_interrupted_table_goes_on(toy, monkeypatch, tmp_path, capsys):
    chosen = [case for case in speed_cases.cases() if case.operation == "flow_warp"]
    assert [case.device for case in chosen] == ["cpu", "cuda"]
    monkeypatch.setattr(speed, "cases", lambda: chosen)
    facts = {"cpu": "one", "commit": "abc1234", "date": "today"}
    monkeypatch.setattr(speed, "machine", lambda devices: facts)
    measured = []

    def measure(case):
        measured.append(case)
        return speed.Row(case.device, case.operation, case.size, "float32", case.target, 1.5, 3.0, times_stock=2.0)

    monkeypatch.setattr(speed, "measure", measure)

    def run_with(**changes) -> int:
        speed.write([measure(chosen[0])], tmp_path, facts | {"date": "yesterday"})
        measured.clear()
        facts.update(changes)
        assert speed.run(tmp_path, "cpu") == 0
        return len(measured)

    assert run_with() == 0
    (table,) = tmp_path.glob("speed-*.csv")
    assert [(row["frfsr_ms"], row["floor_ms"]) for row in csv.DictReader(table.open())] == [("1.5", ""), ("", "")]
    assert "going on after 1 rows" in capsys.readouterr().out
    assert run_with(commit="def5678") == 1  # written at the commit before
    assert run_with(commit="def5678-dirty") == 1
    assert run_with() == 1  # edits may differ
    facts["commit"] = "abc1234"
    speed.write([measure(case) for case in chosen], tmp_path, facts)
    measured.clear()
    assert speed.run(tmp_path, "cpu") == 0
    assert len(measured) == 1  # a finished table is made anew


def test_unknown_device_is_refused(tmp_path):
    with pytest.raises(UserError, match="cpu or cuda"):
        speed.run(tmp_path, "tpu")


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_plain_pytorch_is_the_same_network_contiguous_on_stock_operations(padding):
    torch.manual_seed(0)
    flow = "smooth" if padding == "same" else "nearest"
    config = FRFSRConfig.tiny(match_padding=padding, flow=flow, refine=0)
    model = FRFSR(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    lr, reference = torch.rand(1, 3, 17, 13), torch.rand(1, 3, 68, 52)
    with torch.no_grad():
        ours = model(lr, reference)
        with speed_stock.plain_pytorch():
            plain = FRFSR(config).eval()
            plain.load_state_dict(model.state_dict())
            stock = plain(lr, reference)
    weight = "aggregation.fam_small.offset_conv1.weight"
    assert plain.get_parameter(weight).is_contiguous()
    assert not model.get_parameter(weight).is_contiguous()
    assert stock.features.is_contiguous()
    assert not ours.features.is_contiguous()
    assert torch.equal(ours.correspondence.index, stock.correspondence.index)
    torch.testing.assert_close(ours.features, stock.features, atol=1e-4, rtol=1e-3)
