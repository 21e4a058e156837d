"""The demo's figures and picture, with random weights; only `make demo` shows how good the packaged ones are."""

import numpy as np
import pytest
from PIL import Image

from frfsr import demo


def test_figures_and_picture(small_model_folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("skimage")
    monkeypatch.setattr(demo, "ROWS", slice(200, 264))
    monkeypatch.setattr(demo, "COLUMNS", slice(200, 280))
    demo.run(small_model_folder, tmp_path / "demo.png")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:26].strip() for line in lines[1:4]] == ["bicubic", "frfsr, unrelated reference", "frfsr"]
    figures = np.array([line[26:].split() for line in lines[1:4]], float)
    assert figures[0, 0] > figures[2, 0]  # random weights are worse than bicubic
    assert (figures[1] != figures[2]).any()  # and the reference reaches the result
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.size == (3 * 80, 2 * (64 + demo.CAPTION))


def test_the_reference_shows_the_same_scene_but_not_the_same_pixels():
    pytest.importorskip("skimage")
    truth, reference, unrelated = demo.photographs()
    assert truth.shape[0] % 4 == truth.shape[1] % 4 == 0
    same_place = reference[demo.ROWS, demo.COLUMNS]
    assert np.abs(truth.astype(int) - same_place).mean() > 10
    assert not np.array_equal(reference, unrelated)
