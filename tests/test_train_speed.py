"""The training speed table: complete, and the recipe itself is what is timed."""

import csv

import pytest

from frfsr.recipes import speed_train


def test_training_speed_reports_ours_beside_plain_pytorch(monkeypatch, tmp_path, capsys):
    calls = []

    def train_apart(folder, recipe, steps, device, precision, plain):
        calls.append((recipe, precision, plain))
        return speed_train.Throughput(1.0 if plain else 4.0, 0.01, 100.0)

    monkeypatch.setattr(speed_train, "train_apart", train_apart)
    assert speed_train.run(tmp_path, "cpu") == 0
    each = [("no", True), ("no", False), ("bf16", False)]
    assert calls == [(recipe, *way) for recipe in ("tiny_rec.yaml", "tiny_all.yaml") for way in each]
    (table,) = tmp_path.glob("train-*.csv")
    rows = list(csv.DictReader(table.open()))
    assert [row["x stock"] for row in rows] == [*2 * ["1.00", "4.00", "4.00"], "", ""]
    assert [(row["recipe"], row["steps/s"]) for row in rows[-2:]] == [
        ("frfsr_rec.yaml", "not run"),
        ("frfsr_all.yaml", "not run"),
    ]
    assert "not run" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["tiny_rec.yaml", "tiny_all.yaml"])
def test_the_recipe_itself_is_timed(tmp_path, monkeypatch, recipe):
    small = (
        "held_back=1",
        "crop=32",
        "reference_side=32",
        "batch=2",
        "workers=0",
        "model.blocks=[1,1,1]",
        "model.dynamic_blocks=[0,0,1]",
    )
    monkeypatch.setattr(speed_train, "SETTINGS", small)
    monkeypatch.setattr(speed_train, "SIDE", 32)
    speed_train.write_pairs(tmp_path / "pairs")
    throughput = speed_train.train_once(tmp_path, recipe, 2, "cpu", "no", plain=True)
    assert throughput.steps_per_s > 0
    assert 0 <= throughput.data_wait < 1
