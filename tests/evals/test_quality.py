"""The quality table on small stand-ins for its test sets."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from frfsr.evals import quality
from frfsr.evals.evaluation import Evaluation, Score
from frfsr.evals.upscalers import resized


@pytest.fixture
def data(tmp_path: Path, picture, save) -> Path:
    """All sets with an image or two, and 50 pairs in the pack, of which the first two are no images."""

    def stored(seed: int) -> dict:
        buffer = io.BytesIO()
        Image.fromarray(picture(seed, 24, 24)).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": f"{seed}.png"}

    broken = {"bytes": b"no image", "path": "x.png"}
    rows = [
        {"name": f"{n:02}", "input": stored(n) if n > 1 else broken, "reference": stored(n) if n > 1 else broken}
        for n in range(50)
    ]
    table = pa.Table.from_pylist(rows)
    image = {"_type": "Image"}
    features = {"name": {"dtype": "string", "_type": "Value"}, "input": image, "reference": image}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "train_pairs.parquet")
    save(tmp_path / "more" / "cid22_validation" / "a.png", picture(1))
    save(tmp_path / "urban100" / "img_001.png", picture(2))
    for n in (1, 2):
        save(tmp_path / "wrsr" / "input" / f"{n:03}.png", picture(n))
        save(tmp_path / "wrsr" / "ref" / f"{n:03}_ref.png", picture(10 + n))
        save(tmp_path / "cufed5_sample" / f"000_{n - 1}.png", picture(n))
    return tmp_path


def test_every_row_is_measured_on_its_own_set(data: Path, tmp_path: Path, capsys, recorder) -> None:
    results = quality.measure(data, recorder)
    counts = {key: len(result.scores) for key, result in results.items()}
    assert counts == {
        "cid22": 1, "none": 48, "true": 48, "wrsr": 2, "cufed5": 1, "urban100": 1, "zoom 0.75": 48, "zoom 1.33": 48,
    }  # fmt: skip
    shapes = [[reference.shape[:2] for reference in call] for call in recorder.calls]
    assert [len(call) for call in shapes[:52]] == [0] * 49 + [1] * 3
    assert shapes[-49:-48] == [[(18, 18)]]
    assert shapes[-1] == [(32, 32)]
    assert quality.main(["--data", str(data), "--model", "bicubic", "--out", str(tmp_path / "q.md")]) == 0
    assert "missed by" in capsys.readouterr().out
    assert (tmp_path / "q.md").read_text().startswith("## Quality of bicubic")
    assert quality.main(["--data", str(data / "more"), "--model", "bicubic"]) == 2


def test_verdicts_are_honest() -> None:
    def result(psnr: float) -> Evaluation:
        return Evaluation("m", "b", "true", [Score("i", psnr, 1.0, psnr, 1.0, None, 0.1)])

    figures = {"cid22": 29.3, "none": 30.0, "true": 32.0, "wrsr": 27.9, "cufed5": 28.3, "urban100": 25.7}
    results = {key: result(psnr) for key, psnr in figures.items()} | {
        "zoom 0.75": result(31.0),
        "zoom 1.33": result(31.2),
    }
    rows = {row[0]: row[1:] for row in quality.quality_table(results).rows}
    assert rows["WR-SR, visible 40"] == ["27.90 dB", "28.00 dB", "28.15 dB", "missed by 0.10"]
    assert rows["CID22 validation crops, no reference"][-1] == "reached"
    assert [row for title, row in rows.items() if "zoom" in title] == [["55 %", "60 %", "80 %", "missed by 5"]]
    results["true"] = result(29.0)  # a reference that does harm has no gain to share
    assert quality.quality_table(results).rows[-1][1:] == ["- %", "60 %", "80 %", "-"]


def test_resized_keeps_flat_colours() -> None:
    flat = np.full((10, 14, 3), 77, np.uint8)
    np.testing.assert_array_equal(resized(flat, 1.5), np.full((15, 21, 3), 77, np.uint8))
