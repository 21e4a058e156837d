"""Benchmarks, their frozen choices, and the evaluation: made small, complete, partial and broken."""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from frfsr.config import FRFSRConfig
from frfsr.degrade import reorder_patches
from frfsr.errors import UserError
from frfsr.evals import commands, manifests
from frfsr.evals.benchmarks import BENCHMARKS, ReferenceRule, TestSet
from frfsr.evals.cache import ScoreCache
from frfsr.evals.evaluate import Protocol, evaluate
from frfsr.evals.upscalers import Bicubic, ReferenceNetwork
from frfsr.model import FRFSR
from frfsr.network import Network


def picture(seed: int, height: int = 37, width: int = 42) -> np.ndarray:
    """Smooth random content, so that bicubic interpolation gets most of it right."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


@pytest.fixture
def wrsr(tmp_path: Path) -> Path:
    for n in (1, 2, 3):
        save(tmp_path / "wrsr" / "input" / f"{n:03}.png", picture(n))
        save(tmp_path / "wrsr" / "ref" / f"{n:03}_ref.png", picture(10 + n, 29, 33 + n))
    return tmp_path / "wrsr"


@pytest.fixture
def cufed5(tmp_path: Path) -> Path:
    for group in (0, 1):
        for n in range(6):
            save(tmp_path / "cufed5" / f"{group:03}_{n}.png", picture(10 * group + n))
    return tmp_path / "cufed5"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for n in (1, 2, 3):
        save(tmp_path / "plain" / f"img_{n:03}.png", picture(n))
    return tmp_path / "plain"


class Recorder:
    """An upscaler that keeps what it is given, and returns the enlarged LR."""

    name = identity = "recorder"
    uses_references = True

    def __init__(self) -> None:
        self.parameters: dict[str, int] = {}
        self.calls: list[list[np.ndarray]] = []

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        self.calls.append(list(references))
        return Bicubic()(lr, references)


def references_of(test_set: TestSet) -> list[list[np.ndarray]]:
    recorder = Recorder()
    evaluate(recorder, test_set)
    return recorder.calls


def test_own_references_at_their_own_size(wrsr: Path) -> None:
    for n, references in enumerate(references_of(TestSet("wrsr", wrsr)), start=1):
        (reference,) = references
        np.testing.assert_array_equal(reference, picture(10 + n, 29, 33 + n))


def test_rotated_references_come_from_half_the_set_further_on(wrsr: Path) -> None:
    for n in (4, 5):
        save(wrsr / "input" / f"{n:03}.png", picture(n))
        save(wrsr / "ref" / f"{n:03}_ref.png", picture(10 + n, 29, 33 + n))
    for n, references in zip((3, 4, 5, 1, 2), references_of(TestSet("wrsr", wrsr, "rotated")), strict=True):
        np.testing.assert_array_equal(references[0], picture(10 + n, 29, 33 + n))


def test_levels_and_all_references(cufed5: Path) -> None:
    np.testing.assert_array_equal(references_of(TestSet("cufed5", cufed5, level=3))[1][0], picture(13))
    every = references_of(TestSet("cufed5", cufed5, "all"))
    assert [len(references) for references in every] == [5, 5]
    failed = evaluate(Recorder(), TestSet("cufed5", cufed5, level=6))
    assert [failure.reason for failure in failed.failures] == ["there is no reference of level 6, only 5"] * 2


@pytest.mark.parametrize("rule", ["true", "lr"])
def test_sets_without_references_take_the_enlarged_lr(plain: Path, rule: str) -> None:
    test_set = TestSet("urban100", plain, rule)
    for index, references in enumerate(references_of(test_set)):
        sample = test_set[index].load("pil")
        assert sample.hr.shape == (36, 40, 3)
        assert sample.lr.shape == (9, 10, 3)
        np.testing.assert_array_equal(references[0], Bicubic()(sample.lr, ()))


def test_shuffled_references_take_the_frozen_orders(wrsr: Path) -> None:
    orders = manifests.load_manifests().shuffles["medium"]
    for index, references in enumerate(references_of(TestSet("wrsr", wrsr, "medium"))):
        expected = reorder_patches(picture(11 + index, 29, 34 + index), orders[index])
        np.testing.assert_array_equal(references[0], expected)
        assert expected.shape == (28, 4 * ((34 + index) // 4), 3)


def test_manga109_takes_other_images_and_sun80_one_of_its_own(plain: Path, cufed5: Path) -> None:
    for n, references in enumerate(references_of(TestSet("manga109", plain)), start=1):
        assert not np.array_equal(references[0], picture(n))
        assert any(np.array_equal(references[0], picture(other)) for other in (1, 2, 3))
    choice = manifests.load_manifests().sun80[1] % 5
    np.testing.assert_array_equal(references_of(TestSet("sun80", cufed5))[1][0], picture(10 + choice + 1))


def test_cufedr_draws_from_the_pool(cufed5: Path, plain: Path) -> None:
    pool = {name: TestSet(name, plain) for name in ("urban100", "manga109", "sun80")}
    for index, references in enumerate(references_of(TestSet("cufed5", cufed5, "cufedr", pool=pool))):
        position = manifests.load_manifests().cufedr[index][1]
        np.testing.assert_array_equal(references[0], picture(1 + position % 3))
    with pytest.raises(UserError, match="missing: manga109, sun80, urban100"):
        TestSet("cufed5", cufed5, "cufedr")


def test_manifests_are_those_of_their_seed() -> None:
    drawn = json.loads(json.dumps(manifests.draw(manifests.SEED)))
    assert json.loads(manifests.FILE.read_text()) == drawn
    frozen = manifests.load_manifests()
    assert len(frozen.sun80) == BENCHMARKS["sun80"].count
    assert len(frozen.manga109) == BENCHMARKS["manga109"].count
    assert len(frozen.cufedr) == BENCHMARKS["cufed5"].count
    for strength, n in manifests.PATCHES.items():
        assert all(sorted(order) == list(range(n * n)) for order in frozen.shuffles[strength])


def test_partial_sets_are_labelled(plain: Path) -> None:
    test_set = TestSet("urban100", plain)
    assert test_set.label == "Urban100 (3 of 100)"
    assert test_set.notes == [f"Urban100 (3 of 100): the complete set is {BENCHMARKS['urban100'].source}"]
    assert "unexpected names, for example img_001" in TestSet("wrsr", plain).notes[1]
    assert TestSet("mine", plain).label == "mine"


def test_the_protocol_changes_the_lr_but_hardly_the_result(plain: Path) -> None:
    pil, matlab = (
        evaluate(Bicubic(lr), TestSet("urban100", plain), Protocol(lr)).mean("psnr_y") for lr in ("pil", "matlab")
    )
    assert pil != matlab
    assert pil == pytest.approx(matlab, abs=0.5)


def test_broken_images_are_reported_and_the_rest_is_evaluated(wrsr: Path) -> None:
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

    halo, max_references = 16, 1

    def __init__(self, value: float) -> None:
        super().__init__(None)
        self.value = torch.nn.Parameter(torch.tensor(value))

    def encode_reference(self, reference):
        return ()

    def forward(self, lr, reference, upsampled):
        return argparse.Namespace(image=torch.zeros_like(upsampled) + self.value, correspondence=None)


def test_networks_see_floats_and_nan_is_a_failure(plain: Path) -> None:
    grey = evaluate(ReferenceNetwork(Unlike(0.5), "grey"), TestSet("urban100", plain))
    assert grey.mean("psnr_y") < 20
    assert [f.reason for f in evaluate(ReferenceNetwork(Unlike(math.nan), "nan"), TestSet("mine", plain)).failures] == [
        "the network's result has NaN or infinite values: its weights are damaged."
    ] * 3


def test_a_network_sees_its_references(cufed5: Path) -> None:
    torch.manual_seed(0)
    small = {"blocks": (1, 1, 1), "sife_blocks": 1, "channels": (8, 8, 8), "groups": 1}
    model = FRFSR(FRFSRConfig.tiny(**small))
    torch.nn.init.normal_(model.aggregation.tail[-1].weight, std=0.1)  # new networks return the base image
    network = ReferenceNetwork(model, "random")
    psnr = {
        rule: evaluate(network, TestSet("cufed5", cufed5, rule)).mean("psnr_y")
        for rule in ("true", "all", "rotated", "lr")
    }
    assert len(set(psnr.values())) == 4
    assert None not in psnr.values()


def test_identity_follows_the_weights() -> None:
    same, other = (ReferenceNetwork(Unlike(value), "network").identity for value in (0.5, 0.25))
    assert same == ReferenceNetwork(Unlike(0.5), "renamed").identity
    assert same != other


def test_cached_scores_are_not_computed_again(wrsr: Path, tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "cache")
    recorder = Recorder()
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


def frfsr_eval(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    return commands.run(parser.parse_args([str(word) for word in words]))


def test_the_command_line_knows_every_rule_without_importing_torch() -> None:
    assert tuple(commands.RULES) == get_args(ReferenceRule)
    code = "import sys, argparse; from frfsr.evals import commands; commands.add_arguments(argparse.ArgumentParser()); "
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


def test_command_prints_a_table_and_writes_json(wrsr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert frfsr_eval("--data", f"wrsr={wrsr}", "--model", "bicubic", "--json", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["benchmark", "model", "reference", "count", "PSNR", "SSIM", "s/image"]
    assert lines[1].startswith("WR-SR (3 of 80)  bicubic  true       3      ")
    assert lines[2].startswith("protocol: ")
    report = json.loads(out.read_text())
    (result,) = report["results"]
    assert result["count"] == len(result["scores"]) == 3
    assert result["psnr_y"] == pytest.approx(np.mean([score["psnr_y"] for score in result["scores"]]))
    assert report["protocol"].startswith("truth cropped")
    assert report["versions"]["manifests"] == "1"


@pytest.mark.slow
def test_two_processes_share_the_images_and_agree_with_one(wrsr: Path, tmp_path: Path) -> None:
    script = tmp_path / "evaluate.py"
    script.write_text("import sys; from frfsr.cli import main; sys.exit(main())")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", script]
    words = ["eval", "--data", f"wrsr={wrsr}", "--model", "bicubic", "--json", tmp_path / "out.json"]
    done = subprocess.run([*launch, *words], check=True, capture_output=True, text=True)
    assert done.stdout.count("WR-SR (3 of 80)  bicubic") == 1
    (shared,) = json.loads((tmp_path / "out.json").read_text())["results"]
    alone = evaluate(Bicubic(), TestSet("wrsr", wrsr)).scores
    assert [(s["name"], s["psnr_y"], s["ssim_y"]) for s in shared["scores"]] == [
        (s.name, s.psnr_y, s.ssim_y) for s in alone
    ]


def test_command_exits_with_1_after_a_failure(wrsr: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (wrsr / "input" / "002.png").write_text("no image")
    assert frfsr_eval("--data", f"wrsr={wrsr}", "--model", "bicubic") == 1
    assert "failed: WR-SR (3 of 80), bicubic: 002: " in capsys.readouterr().out


def test_equal_images_are_null_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "flat" / "a.png", np.full((40, 40, 3), 9, np.uint8))
    assert frfsr_eval("--data", f"flat={tmp_path / 'flat'}", "--model", "bicubic", "--json", tmp_path / "o.json") == 0
    assert json.loads((tmp_path / "o.json").read_text())["results"][0]["psnr_y"] is None
    assert " inf " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "wrsr"], "NAME=PATH"),
        (["--data", "wrsr=/nowhere/at/all"], "does not exist"),
        (["--data", "wrsr={wrsr}", "--reference-level", "0"], "count from 1"),
        (["--data", "wrsr={wrsr}", "--reference", "cufedr"], "give cufed5=PATH"),
        (["--data", "wrsr={wrsr}", "--lpips", "/nowhere"], "--lpips: /nowhere does not exist"),
        (["--data", "wrsr={wrsr}", "--jobs", "0"], "--jobs must be"),
        (["--data", "wrsr={wrsr}", "--json", "/nowhere/o.json"], "cannot write"),
    ],
)
def test_wrong_arguments_are_named(words: list[str], message: str, wrsr: Path) -> None:
    with pytest.raises(UserError, match=message):
        frfsr_eval(*[word.format(wrsr=wrsr) for word in words], "--model", "bicubic")
