"""The evaluation: what is measured, kept, shared out and reported."""

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frfsr import evals
from frfsr.config import FRFSRConfig
from frfsr.degrade import upscale_bicubic
from frfsr.errors import UserError
from frfsr.evals.benchmarks import TestSet
from frfsr.evals.cache import ScoreCache
from frfsr.evals.evaluation import Protocol, evaluate
from frfsr.evals.upscalers import Bicubic, NetworkUpscaler
from frfsr.model import FRFSR
from frfsr.network import Network


def test_the_protocol_changes_the_lr_but_hardly_the_result(plain: Path) -> None:
    pil, matlab = (
        evaluate(Bicubic(lr), TestSet("urban100", plain), Protocol(lr)).mean("psnr_y") for lr in ("pil", "matlab")
    )
    assert pil != matlab
    assert pil == pytest.approx(matlab, abs=0.5)


def test_photos_as_they_are_are_worse_and_the_same_wherever_they_stand(plain: Path, tmp_path: Path) -> None:
    whole, real = TestSet("urban100", plain), Protocol("real")
    name = whole.names[-1]
    (tmp_path / f"{name}.png").write_bytes(Path(whole.input(len(whole) - 1)["path"]).read_bytes())
    alone = TestSet("urban100", tmp_path)[0].load(real)
    again = whole[len(whole) - 1].load(real)
    assert np.array_equal(alone.lr, again.lr)
    assert np.array_equal(alone.references[0], upscale_bicubic(alone.lr))
    samples = [item.load(real) for item in whole]
    assert not all(np.array_equal(sample.lr, Protocol().low(sample.hr)) for sample in samples)
    assert "noise" in str(real)
    assert real.identity != Protocol().identity


def test_broken_images_are_reported_and_the_rest_is_evaluated(wrsr: Path, picture, save) -> None:
    truncated = wrsr / "input" / "001.png"
    truncated.write_bytes(truncated.read_bytes()[:100])
    (wrsr / "ref" / "002_ref.png").write_text("no image")
    save(wrsr / "input" / "004.png", picture(4))
    result = evaluate(Bicubic(), TestSet("wrsr", wrsr))
    assert [score.name for score in result.scores] == ["003"]
    assert [failure.name for failure in result.failures] == ["001", "002", "input/004.png"]
    assert result.failures[2].reason == "no reference"
    assert all("\n" not in failure.reason for failure in result.failures)


class Unlike(Network):
    """Stands in for a network whose output is `value` everywhere."""

    architecture, halo, max_references = "unlike", 16, 1

    def __init__(self, value: float) -> None:
        super().__init__(None)
        self.value = torch.nn.Parameter(torch.tensor(value))

    def encode_reference(self, reference):
        return ()

    def forward(self, lr, reference, upsampled):
        return argparse.Namespace(image=torch.zeros_like(upsampled) + self.value, correspondence=None)


@pytest.mark.parametrize(
    ("value", "what"),
    [(math.nan, "NaN or infinite values"), (-math.inf, "NaN or infinite values"), (-1e9, "values far beyond [0, 1]")],
)
def test_networks_see_floats_and_what_is_no_picture_is_a_failure(plain: Path, value: float, what: str) -> None:
    grey = evaluate(NetworkUpscaler(Unlike(0.5), "grey"), TestSet("urban100", plain))
    assert grey.mean("psnr_y") < 20
    assert [f.reason for f in evaluate(NetworkUpscaler(Unlike(value), "broken"), TestSet("mine", plain)).failures] == [
        f"the network's result has {what}: its weights are of no use, take others."
    ] * 3


def test_a_network_sees_its_references(cufed5: Path) -> None:
    torch.manual_seed(0)
    small = {"blocks": (1, 1, 1), "sife_blocks": 1, "channels": (8, 8, 8), "groups": 1}
    model = FRFSR(FRFSRConfig.tiny(**small))
    torch.nn.init.normal_(model.aggregation.tail[-1].weight, std=0.1)  # new networks return the base image
    network = NetworkUpscaler(model, "random")
    psnr = {
        rule: evaluate(network, TestSet("cufed5", cufed5, rule)).mean("psnr_y")
        for rule in ("true", "all", "rotated", "lr")
    }
    assert len(set(psnr.values())) == 4
    assert None not in psnr.values()


def test_identity_follows_the_weights() -> None:
    same, other = (NetworkUpscaler(Unlike(value), "network").identity for value in (0.5, 0.25))
    assert same == NetworkUpscaler(Unlike(0.5), "renamed").identity
    assert same != other


def test_cached_scores_are_not_computed_again(wrsr: Path, tmp_path: Path, picture, save, recorder) -> None:
    cache = ScoreCache(tmp_path / "cache")
    first = evaluate(recorder, TestSet("wrsr", wrsr), cache=cache)
    assert evaluate(recorder, TestSet("wrsr", wrsr), cache=cache) == first
    assert len(recorder.calls) == 3
    save(wrsr / "ref" / "002_ref.png", picture(99))
    evaluate(recorder, TestSet("wrsr", wrsr), cache=cache)
    assert len(recorder.calls) == 4
    evaluate(recorder, TestSet("wrsr", wrsr), Protocol(border=3), cache)
    assert len(recorder.calls) == 7
    next(cache.folder.glob("*/*.json")).write_text("{")
    evaluate(recorder, TestSet("wrsr", wrsr), Protocol(border=3), cache)
    assert len(list(cache.folder.glob("*/*"))) == 7


def test_order_is_kept_with_several_in_flight(plain: Path) -> None:
    one, three = (evaluate(Bicubic(), TestSet("urban100", plain), jobs=jobs) for jobs in (1, 3))
    assert [(s.name, s.psnr_y) for s in one.scores] == [(s.name, s.psnr_y) for s in three.scores]


def enlarged(lr, references):
    assert all(reference.dtype == np.uint8 for reference in references)
    return Image.fromarray(lr).resize((4 * lr.shape[1], 4 * lr.shape[0]), Image.Resampling.BICUBIC)


def test_any_function_and_any_network_is_a_model(wrsr: Path, tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "cache")
    own = evals.evaluate(enlarged, wrsr, cache=cache)
    expected = evals.evaluate("bicubic", f"wrsr={wrsr}")
    assert own.model == "enlarged"
    assert [score.psnr_y for score in own.scores] == [score.psnr_y for score in expected.scores]
    assert not any(cache.folder.iterdir())
    assert evals.evaluate(Unlike(0.5), TestSet("wrsr", wrsr)).model == "unlike"
    table = evals.results_table([own, expected])
    assert [row[1] for row in table.rows] == ["enlarged", "bicubic"]
    assert table._repr_markdown_().startswith("## Results")
    failed = evals.evaluate(lambda lr, references: lr, wrsr)
    assert failed.failures[0].reason.startswith("result and truth differ in size")
    with pytest.raises(UserError, match="a int is no model"):
        evals.evaluate(5, wrsr)


def test_notebook_names() -> None:
    assert set(evals.__all__) <= set(dir(evals))
    for name in evals.__all__:
        assert getattr(evals, name) is not None
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert evals.psnr_y(image, image, border=4) == math.inf
    with pytest.raises(AttributeError, match="nothing"):
        evals.nothing  # noqa: B018


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"name": "a"}', b"\xff", b"[" * 10**5])
def test_damaged_scores_are_computed_again(wrsr: Path, tmp_path: Path, recorder, content: bytes) -> None:
    test_set, cache = TestSet("wrsr", wrsr), ScoreCache(tmp_path / "scores")
    before = evaluate(recorder, test_set, cache=cache).mean("psnr_y")
    for file in (tmp_path / "scores").rglob("*.json"):
        file.write_bytes(content)
    assert evaluate(recorder, test_set, cache=cache).mean("psnr_y") == before
