"""The paper's tables on small generated benchmarks, quoted figures, and paired comparisons."""

import argparse
import csv
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from frfsr.errors import UserError
from frfsr.evals import commands
from frfsr.evals.choices import TableName, read_data
from frfsr.evals.evaluation import Protocol
from frfsr.evals.paper import PRINTED, TABLES, Laboratory, make_tables, quoted_tables, with_quoted
from frfsr.evals.runtime import RESET_PEAK, measure_runtime
from frfsr.evals.statistics import paired_bootstrap
from frfsr.evals.tables import Table
from frfsr.evals.upscalers import Bicubic, FunctionUpscaler, load_upscaler


class Nearest:
    """Repeats pixels; better than nothing and worse than bicubic. Brightens by the number of its references."""

    name = identity = "nearest"
    uses_references = True
    parameters = {"part": 1_500_000}  # noqa: RUF012

    def __call__(self, lr, references):
        return lr.repeat(4, axis=0).repeat(4, axis=1) // 2 * 2 + len(references) % 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    def save(name: str, seed: int) -> None:
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((36, 40), Image.Resampling.BICUBIC).save(file)

    for group in (0, 1):
        for n in range(6):
            save(f"cufed5_sample/{group:03}_{n}.png", 10 * group + n)
    for n in (1, 2, 3):
        save(f"WR-SR/input/{n:03}.png", n)
        save(f"WR-SR/ref/{n:03}_ref.png", 50 + n)
        save(f"Urban100/img_{n:03}.png", 60 + n)
        save(f"manga109/m{n}.png", 70 + n)
        save(f"sun80/input/s{n}.png", 80 + n)
        save(f"sun80/ref/s{n}/r.png", 90 + n)
    return tmp_path / "data"


def test_benchmarks_are_found_by_name(root: Path, tmp_path: Path) -> None:
    assert read_data([root]).keys() == {"cufed5", "wrsr", "urban100", "manga109", "sun80"}
    with pytest.raises(UserError, match="no subfolder named cufed5"):
        read_data([tmp_path])
    with pytest.raises(UserError, match="is no folder"):
        read_data([tmp_path / "nowhere"])


def test_one_grammar_names_test_sets(root: Path) -> None:
    assert read_data([f"mine={root}", root / "WR-SR"]) == {"mine": str(root), "wrsr": root / "WR-SR"}
    assert read_data(["urban100=owner/name"]) == {"urban100": "owner/name"}
    assert read_data(["a=b", root])["cufed5"] == root / "cufed5_sample"
    for wrong in (["=x"], ["wrsr="], []):
        with pytest.raises(UserError, match="NAME=PATH"):
            read_data(wrong)


def test_every_table(root: Path) -> None:
    laboratory = Laboratory(read_data([root]), Protocol())
    tables = make_tables(laboratory, [Bicubic(), Nearest()], list(TABLES))
    assert tables.keys() == TABLES.keys()
    headers = {key: table.header[1:] for key, table in tables.items()}
    of = " (3 of {})".format
    assert headers["I"] == [
        f"CUFED5{' (2 of 126)'}",
        f"Sun80{of(80)}",
        f"Urban100{of(100)}",
        f"Manga109{of(109)}",
        f"WR-SR{of(80)}",
    ]
    assert headers["III"] == ["L1", "L2", "L3", "L4", "LR", "all at once"]
    assert headers["IV"][0] == "CUFEDR"
    assert [row[0] for row in tables["VI"].rows] == ["bicubic", "nearest"]
    assert tables["VI"].rows[1][1:] == ["1.50 M", "part 1.50 M"]
    for table in tables.values():
        assert all(len(row) == len(table.header) for row in table.rows)
    bicubic = {row[0]: row for row in tables["III"].rows}["bicubic"]
    assert len(set(bicubic[1:])) == 1
    assert laboratory.notes[-1].startswith("Set5 is missing: ")


@pytest.mark.skipif(not RESET_PEAK.exists() or torch.cuda.is_available(), reason="resident memory, Linux on a CPU")
def test_peak_memory_is_that_of_each_model() -> None:
    def hungry(lr, references):
        return np.ones((2**14, 2**12, 4), np.uint8)[..., :3]

    def modest(lr, references):
        return lr[:1]

    ballast = np.ones(2**27, np.uint8)  # what the process holds beside the model
    small, large = (measure_runtime(FunctionUpscaler(model)).memory for model in (modest, hungry))
    assert small < 64 < 200 < large - small
    assert large < 2**28 / 2**20 + 64
    heavy = FunctionUpscaler(modest)
    heavy.parameters["network"] = 2**25
    assert measure_runtime(heavy).memory == pytest.approx(128, abs=64)
    assert ballast.all()


def test_tables_of_cufed5_are_left_out_without_it(root: Path) -> None:
    for file in (root / "cufed5_sample").iterdir():
        file.unlink()
    (root / "cufed5_sample").rmdir()
    tables = make_tables(Laboratory(read_data([root]), Protocol()), [Bicubic()], ["I", "III", "IV", "shuffles"])
    assert tables.keys() == {"I", "IV"}
    assert tables["IV"].header == ["model", "WR-SR, own reference", "WR-SR, another's"]


def test_paired_table_has_the_sign_and_the_pairs_right(root: Path) -> None:
    (table,) = make_tables(Laboratory(read_data([root]), Protocol()), [Bicubic(), Nearest()], ["paired"]).values()
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    count, psnr, _ = rows["WR-SR (3 of 80)", "nearest - bicubic"]
    assert count == "3"
    assert psnr.startswith("-")
    assert rows["CUFED5 (2 of 126)", "nearest, own - another's reference"][1] == "+0.000 [+0.000, +0.000]"


def test_quoted_rows_are_marked_and_stand_under_their_columns() -> None:
    table = Table("t", ["model", "CUFED5 (2 of 126)", "Set5", "WR-SR"], [["ours", "1", "2", "3"]])
    rows = with_quoted(table, "I").rows
    assert rows[0] == ["ours", "1", "2", "3"]
    assert ["FRFSR-rec (quoted)", "29.18 / 0.865", "-", "28.67 / 0.811"] in rows
    assert ["FRFSR (quoted)", "28.71 / 0.852", "-", "28.27 / 0.793"] in rows
    doubtful = [row[0] for row in rows if row[0].endswith(" (quoted, doubtful)")]
    assert doubtful == ["SRNTT (quoted, doubtful)"]
    assert sum("1.35 dB above" in note and "SRNTT, table II" in note for note in table.notes) == 1
    assert all(row[0].endswith(" (quoted)") for row in rows[1:] if row[0] not in doubtful)
    quoted = quoted_tables().keys() - {"source", "doubtful"}
    assert quoted == {"I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"}
    assert quoted <= TABLES.keys() | {name for names in PRINTED.values() for name in names}


def test_bootstrap_covers_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        first, common = rng.normal(0.2, 1, 60), rng.normal(30, 5, 60)
        difference = paired_bootstrap(common + first, common, seed)
        assert difference.low < difference.mean < difference.high
        hits += difference.low < 0.2 < difference.high
    assert 88 <= hits <= 99
    assert paired_bootstrap([1.0, 2.0], [0.5, 1.5]).low == 0.5
    with pytest.raises(UserError, match="2 with 3"):
        paired_bootstrap([1, 2], [1, 2, 3])


def test_every_named_table_can_be_made() -> None:
    assert set(get_args(TableName)) == TABLES.keys()


def frfsr_eval(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    options = parser.parse_args([str(word) for word in words])
    return options.run(options)


def test_command_writes_all_and_goes_on_from_its_cache(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    words = [
        "tables",
        "--models",
        "plain=bicubic",
        "--data",
        root,
        "--out",
        tmp_path / "out",
        "--tables",
        "I",
        "paired",
    ]
    words += ["--ablations", "variant=bicubic", "--quoted"]
    assert frfsr_eval(*words) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "tables.md", "results.json", "table_I.csv", "table_VII.csv", "table_paired.csv", "cache",
    }  # fmt: skip
    rows = list(csv.reader((tmp_path / "out" / "table_I.csv").open()))
    assert rows[1][0] == "plain"
    assert rows[2][0] == "SRCNN (quoted)"
    first = (tmp_path / "out" / "results.json").read_text()
    assert [result["model"] for result in json.loads(first)["results"]] == ["plain"] * 5 + ["variant"] * 5
    monkeypatch.setattr("frfsr.evals.evaluation.measure", None)
    assert frfsr_eval(*words) == 0
    assert (tmp_path / "out" / "results.json").read_text() == first
    assert "## Tables I and II: benchmarks" in (tmp_path / "out" / "tables.md").read_text()


def test_command_reports_broken_images_at_the_end(root: Path, tmp_path: Path, capsys) -> None:
    (root / "Urban100" / "img_002.png").write_text("no image")
    assert frfsr_eval("tables", "--models", "bicubic", "--data", root, "--out", tmp_path / "out", "--tables", "I") == 1
    assert "failed: Urban100 (3 of 100), bicubic: img_002: " in capsys.readouterr().out


def test_single_image_networks(tmp_path: Path) -> None:
    compact = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG").SRVGGNetCompact
    torch.manual_seed(0)
    torch.save(compact(num_feat=8, num_conv=2, upscale=4).state_dict(), tmp_path / "compact.pth")
    network = load_upscaler(tmp_path / "compact.pth", device="cpu")
    assert (network.name, network.uses_references) == ("compact", False)
    assert network(np.full((5, 7, 3), 90, np.uint8), []).shape == (20, 28, 3)
    torch.save(compact(num_feat=8, num_conv=2, upscale=2).state_dict(), tmp_path / "x2.pth")
    with pytest.raises(UserError, match="x2 network, 3 channels"):
        load_upscaler(tmp_path / "x2.pth", device="cpu")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="is not a checkpoint"):
        load_upscaler(tmp_path / "text.pth", device="cpu")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "unknown.pth")
    with pytest.raises(UserError, match="neither frfsr nor spandrel knows"):
        load_upscaler(tmp_path / "unknown.pth", device="cpu")
