"""The table of what altered references are worth, on a small stand-in for its test set."""

from pathlib import Path

import numpy as np
import pytest

from frfsr.evals import views
from frfsr.evals.evaluation import Evaluation, Score
from frfsr.evals.upscalers import Altered


@pytest.fixture
def data(tmp_path: Path, picture, save) -> Path:
    """Two images, each with two references of (24, 32) pixels."""
    for group in range(2):
        save(tmp_path / "set" / f"{group:03}_0.png", picture(group, 24, 32))
        for level in (1, 2):
            save(tmp_path / "set" / f"{group:03}_{level}.png", picture(10 * group + level, 24, 32))
    return tmp_path / "set"


def test_references_are_altered_as_the_rows_say(recorder):
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    turned = Altered(recorder, "turned", np.rot90)
    turned(np.zeros((2, 3, 3), np.uint8), [image])
    np.testing.assert_array_equal(recorder.calls[-1][0], np.rot90(image))
    assert views.there_and_back(image, 0.5).shape == image.shape
    assert not np.array_equal(views.there_and_back(image, 0.5), image)


def test_everything_is_measured(data: Path, tmp_path: Path, small_model_folder, capsys):
    out = tmp_path / "table.md"
    words = ["--data", str(data), "--model", str(small_model_folder), "--device", "cpu", "--out", str(out)]
    assert views.main([*words, "--cache", str(tmp_path / "cache")]) == 0
    printed = capsys.readouterr().out
    for row in ("no reference", "views auto", "all references", "unrelated", "turned by 270°", "resized x2.0"):
        assert row in printed
    assert out.read_text().startswith("## References of ")
    assert views.main(["--data", str(tmp_path / "nothing"), "--model", str(small_model_folder)]) == 2


def test_an_unrelated_reference_comes_after_the_images_own(data: Path):
    item, own = views.Joined("references", data)[0], views.TestSet("references", data)
    assert item.references == (*own[0].references, *own[1].references)


def test_verdicts_follow_the_figures():
    def result(*psnr: float) -> Evaluation:
        return Evaluation("m", "b", "true", [Score(str(n), each, 1, each, 1, None, 1) for n, each in enumerate(psnr)])

    keys = ["all", "unrelated", *(f"turned {turn}" for turn in views.TURNS)]
    keys += [f"x{zoom}{how}" for zoom in views.ZOOMS for how in ("", " off", " by hand")]
    results = {key: result(27.0, 28.0) for key in keys}
    results |= {"none": result(26.0, 26.0), "off": result(27.0, 27.0), "auto": result(27.0, 28.0)}
    results |= {"all": result(27.5, 27.9), "turned 90": result(26.5, 28.0), "x0.5": result(26.9, 27.9)}
    rows = {row[0]: row[1:] for row in views.views_table(results).rows}
    assert rows["views auto; against off"] == ["27.50 dB", "0.50 dB", "0.00 dB", "-", "reached"]
    assert rows["all references; against the first"][-1] == "missed"  # the second image lost 0.1 dB
    assert rows["turned by 90°; against untouched"][1:] == ["-0.25 dB", "-0.50 dB", "83 %", "missed"]
    assert rows["resized x0.5; against the better of as it is and resized back"][3:] == ["93 %", "reached"]
