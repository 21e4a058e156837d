"""Memory: amounts are read, tiles and references are as small as they must be, and it is said."""

import copy
import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from frfsr.architectures import DTYPES
from frfsr.errors import UserError
from frfsr.imageio import Photo
from frfsr.network import Network
from frfsr.peers import single_image
from frfsr.upscaling import fitting as fitting_module
from frfsr.upscaling import memory, run
from frfsr.upscaling.fitting import Fitting, Size, together
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


def fitting(model, size: tuple[int, int], free: float, writing: int = 0) -> Fitting:
    def super_resolve(lr, encoded, upsampled):
        return model(lr, encoded, upsampled)

    return Fitting(model, super_resolve, size, free=int(free), writing=writing)


def test_tiles_and_references_are_as_large_as_the_memory_allows(small_model, monkeypatch):
    monkeypatch.setattr(memory, "resident", lambda: 0)
    any_memory = fitting(small_model, (300, 400), 0)
    allowed = any_memory.needed([(200, 100)], 96)
    assert fitting(small_model, (300, 400), allowed).tile([(200, 100)]) == 96
    assert fitting(small_model, (300, 400), allowed - 1).tile([(200, 100)]) == 64
    assert fitting(small_model, (80, 40), 10**10).tile([(200, 100)]) == 80
    assert fitting(small_model, (300, 400), allowed).reduction([(200, 100)]) == 1
    factor = fitting(small_model, (300, 400), allowed).reduction([(900, 700), (800, 600)])
    reduced = [(round(factor * height), round(factor * width)) for height, width in [(900, 700), (800, 600)]]
    assert 0.8 * allowed < any_memory.needed(reduced, 64) <= allowed
    with pytest.raises(
        UserError, match=r"not enough memory: a tile takes about \d+ MB and 1 MB are left.*--max-memory"
    ):
        fitting(small_model, (300, 400), 1e6).tile([])
    with pytest.raises(UserError, match="a tile with the references takes"):
        fitting(small_model, (300, 400), allowed, writing=10**9).reduction([(200, 100)])


def taken_and_told(model: Network, sizes: list[Size]) -> tuple[int, int]:
    """Bytes that one tile with references of these sizes takes in this process, and those that `Fitting` tells."""
    torch.set_num_threads(1)  # each has buffers of its own: two took 6 % more
    needs, like = fitting(model, (100, 120), 0), next(model.parameters())

    def run() -> None:
        with torch.inference_mode():
            encoded = [model.encode_reference(torch.rand(1, 3, *size).to(like)) for size in sizes]
            needs.super_resolve(
                torch.rand(1, 3, 100, 120).to(like), together(model, encoded) if encoded else None, None
            )

    run()
    gc.collect()
    memory.give_back()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory.resident()
    run()
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    taken = 1024 * int(status["VmHWM"].split()[0]) - before
    return taken, needs.needed(sizes, 120) - 2 * 3 * 4 * 16 * 100 * 120  # without the strips


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc")
@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "single image"])
def test_what_is_told_is_what_is_taken(small_model, kind):
    """At most a tenth more, as the C library keeps more or less of it from run to run, and not under 0.4 of it.

    Networks of the usual sizes are nearer (docs/references.md).

    In a process of its own: one that has run other tests has memory at hand that it need not ask for.
    """
    model = copy.deepcopy(small_model).to(DTYPES.get(kind, torch.float32))
    if kind == "single image":
        model = single_image.EDSR(single_image.EDSR.config_class(channels=16, blocks=2))
    sizes = [(240, 320), (200, 180)] if model.max_references is None else []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        taken, told = process.submit(taken_and_told, model.eval(), sizes).result()
    assert 0.4 * told < taken < 1.1 * told, (kind, taken, told)


def test_what_a_process_holds_already_can_be_left_uncounted():
    cpu = torch.device("cpu")
    taken = memory.resident()
    assert memory.budget(taken, cpu) < 5e7
    assert memory.budget(taken, cpu, held=10**9) == pytest.approx(10**9, abs=5e7)


def test_references_are_reduced_only_when_they_must_be(small_model, monkeypatch):
    rng = np.random.default_rng(0)
    photo, *references = (Photo(rng.integers(0, 256, (*size, 3), np.uint8)) for size in ((8, 9), (60, 80), (40, 30)))
    whole = upscale_photo(photo, references, small_model)
    assert [view.size for view in whole.report.views] == [(80, 60), (30, 40)]
    assert whole.report.notes == ()
    monkeypatch.setattr(fitting_module, "LARGEST_REFERENCES", 1500)
    reduced = upscale_photo(photo, references, small_model, Options(max_memory=10**11)).report
    assert [view.size for view in reduced.views] == [(40, 30), (15, 20)]
    assert "reduced to 50%" in reduced.notes[0]


class Crowded:
    """Makes a network run out of memory for tiles beyond a size, as PyTorch says it on a CPU or a GPU."""

    def __init__(self, model, most: int, error: Exception):
        self.forward, self.most, self.error = model.forward, most, error

    def __call__(self, lr, *rest, **options):
        if max(lr.shape[-2:]) > self.most:
            raise self.error
        return self.forward(lr, *rest, **options)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40 bytes."),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_makes_smaller_tiles_and_says_so_once(small_model, monkeypatch, error):
    photo = Photo(np.random.default_rng(0).integers(0, 256, (9, 130, 3), np.uint8))
    expected = upscale_photo(photo, [photo], small_model, Options(tile=32))
    seen = 31 + 2 * small_model.halo + small_model.tile_step
    monkeypatch.setattr(small_model, "forward", Crowded(small_model, seen, error))
    result = upscale_photo(photo, [photo], small_model, Options(tile=130))
    np.testing.assert_array_equal(result.photo.pixels, expected.photo.pixels)
    assert result.report.notes == ("memory ran out: tiles of 32 pixels instead of 130",)
    assert (result.report.tile, result.report.tiles) == (32, expected.report.tiles)


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_with_the_smallest_tiles_is_one_line(small_model, monkeypatch, error):
    photo = Photo(np.random.default_rng(0).integers(0, 256, (9, 70, 3), np.uint8))
    monkeypatch.setattr(small_model, "forward", Crowded(small_model, 4, error))
    with pytest.raises(UserError, match=r"out of memory with tiles of 32 pixels: .*another device"):
        upscale_photo(photo, [photo], small_model)


def test_other_errors_stay_what_they_are(small_model, monkeypatch):
    photo = Photo(np.zeros((9, 70, 3), np.uint8))
    monkeypatch.setattr(small_model, "forward", Crowded(small_model, 4, RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        upscale_photo(photo, [photo], small_model)


def test_long_jobs_are_announced(small_model, monkeypatch, capsys):
    monkeypatch.setattr(run, "LONG", -1)
    photo = Photo(np.zeros((9, 70, 3), np.uint8))
    upscale_photo(photo, [], small_model, Options(tile=32), progress=True)
    error = capsys.readouterr().err
    assert "frfsr: about " in error
    assert " s: 3 tiles, the first took 0 s\n" in error
    upscale_photo(photo, [], small_model, Options(tile=32))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("choice", "pairs", "fast"), [("auto", 1e9, False), ("auto", 1, True), ("fast", 1e9, True)])
def test_the_search_is_exact_while_it_is_short(small_model, monkeypatch, choice, pairs, fast):
    monkeypatch.setattr(run, "PAIRS_A_MINUTE", (pairs, pairs))
    photo = Photo(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    reference = Photo(np.random.default_rng(1).integers(0, 256, (90, 80, 3), np.uint8))
    exact = upscale_photo(photo, [reference], small_model, Options(search="exact"))
    chosen = upscale_photo(photo, [reference], small_model, Options(search=choice))
    assert exact.report.notes == ()
    assert (chosen.report.notes != ()) == fast
    assert (chosen.matches.score.mean() < exact.matches.score.mean()) == fast
