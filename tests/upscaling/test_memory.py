"""Memory: amounts are read, tiles and references are as small as they must be, and it is said."""

import numpy as np
import pytest
import torch

from frfsr.errors import UserError
from frfsr.imageio import Photo
from frfsr.upscaling import memory, run
from frfsr.upscaling.options import Options, parse_memory
from frfsr.upscaling.upscale import upscale_photo


@pytest.mark.parametrize(
    ("text", "amount"), [("2GB", 2 * 10**9), ("800 MB", 8 * 10**8), ("1.5g", 1_500_000_000), ("4096", 4096)]
)
def test_amounts_of_memory(text, amount):
    assert parse_memory(text) == amount


@pytest.mark.parametrize("text", ["much", "2XB", "-1GB", ""])
def test_what_is_no_amount(text):
    with pytest.raises(UserError, match="2GB"):
        parse_memory(text)


def test_tiles_follow_the_memory(small_model):
    one = memory.tile_bytes(small_model, 1)
    halo = small_model.halo
    assert memory.tile_side(small_model, one * (100 + 2 * halo) ** 2, 10_000) == 100
    assert memory.tile_side(small_model, one * (100 + 2 * halo) ** 2, 80) == 80
    with pytest.raises(UserError, match="not enough memory"):
        memory.tile_side(small_model, one * (20 + 2 * halo) ** 2, 10_000)


def test_bytes_of_an_encoded_reference(small_model):
    reference = torch.zeros(1, 3, 64, 96)
    held = sum(tensor.nbytes for tensor in memory.tensors(small_model.encode_reference(reference)))
    assert memory.reference_bytes(small_model) == pytest.approx(held / (64 * 96), rel=0.05)


def test_references_are_reduced_only_when_they_must_be(small_model, monkeypatch):
    rng = np.random.default_rng(0)
    photo, *references = (Photo(rng.integers(0, 256, (*size, 3), np.uint8)) for size in ((8, 9), (60, 80), (40, 30)))
    whole = upscale_photo(photo, references, small_model)
    assert [view.size for view in whole.report.views] == [(80, 60), (30, 40)]
    assert whole.report.notes == ()
    monkeypatch.setattr(run, "LARGEST_REFERENCES", 1500)
    reduced = upscale_photo(photo, references, small_model, Options(max_memory=10**11)).report
    assert [view.size for view in reduced.views] == [(40, 30), (15, 20)]
    assert "reduced to 50%" in reduced.notes[0]
