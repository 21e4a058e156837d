"""Benchmarks and their frozen choices: made small, complete and partial."""

import json
from pathlib import Path

import numpy as np
import pytest

from frfsr.degrade import reorder_patches
from frfsr.errors import UserError
from frfsr.evals import manifests
from frfsr.evals.benchmarks import TestSet, as_test_set
from frfsr.evals.choices import BENCHMARKS
from frfsr.evals.evaluation import evaluate
from frfsr.evals.protocol import Protocol
from frfsr.evals.upscalers import Bicubic


def test_own_references_at_their_own_size(wrsr: Path, picture, references_of) -> None:
    for n, references in enumerate(references_of(TestSet("wrsr", wrsr)), start=1):
        (reference,) = references
        np.testing.assert_array_equal(reference, picture(10 + n, 29, 33 + n))


def test_rotated_references_come_from_half_the_set_further_on(wrsr: Path, picture, save, references_of) -> None:
    for n in (4, 5):
        save(wrsr / "input" / f"{n:03}.png", picture(n))
        save(wrsr / "ref" / f"{n:03}_ref.png", picture(10 + n, 29, 33 + n))
    for n, references in zip((3, 4, 5, 1, 2), references_of(TestSet("wrsr", wrsr, "rotated")), strict=True):
        np.testing.assert_array_equal(references[0], picture(10 + n, 29, 33 + n))


def test_levels_and_all_references(cufed5: Path, picture, references_of, recorder) -> None:
    np.testing.assert_array_equal(references_of(TestSet("cufed5", cufed5, level=3))[1][0], picture(13))
    every = references_of(TestSet("cufed5", cufed5, "all"))
    assert [len(references) for references in every] == [5, 5]
    failed = evaluate(recorder, TestSet("cufed5", cufed5, level=6))
    assert [failure.reason for failure in failed.failures] == ["there is no reference of level 6, only 5"] * 2


def test_sets_without_references_have_no_levels(plain: Path, recorder) -> None:
    failed = evaluate(recorder, TestSet("mine", plain, level=2))
    assert {failure.reason for failure in failed.failures} == {"there is no reference of level 2, only the enlarged LR"}


@pytest.mark.parametrize("rule", ["true", "lr"])
def test_sets_without_references_take_the_enlarged_lr(plain: Path, rule: str, references_of) -> None:
    test_set = TestSet("urban100", plain, rule)
    for index, references in enumerate(references_of(test_set)):
        sample = test_set[index].load(Protocol())
        assert sample.hr.shape == (36, 40, 3)
        assert sample.lr.shape == (9, 10, 3)
        np.testing.assert_array_equal(references[0], Bicubic()(sample.lr, ()))


def test_shuffled_references_take_the_frozen_orders(wrsr: Path, picture, references_of) -> None:
    orders = manifests.load_manifests().shuffles["medium"]
    for index, references in enumerate(references_of(TestSet("wrsr", wrsr, "medium"))):
        expected = reorder_patches(picture(11 + index, 29, 34 + index), orders[index])
        np.testing.assert_array_equal(references[0], expected)
        assert expected.shape == (28, 4 * ((34 + index) // 4), 3)


def test_manga109_takes_other_images_and_sun80_one_of_its_own(
    plain: Path, cufed5: Path, picture, references_of
) -> None:
    for n, references in enumerate(references_of(TestSet("manga109", plain)), start=1):
        assert not np.array_equal(references[0], picture(n))
        assert any(np.array_equal(references[0], picture(other)) for other in (1, 2, 3))
    choice = manifests.load_manifests().sun80[1] % 5
    np.testing.assert_array_equal(references_of(TestSet("sun80", cufed5))[1][0], picture(10 + choice + 1))


def test_cufedr_draws_from_the_pool(cufed5: Path, plain: Path, picture, references_of) -> None:
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


def test_no_reference_is_none(cufed5: Path, references_of) -> None:
    none, lr = TestSet("cufed5", cufed5, "none"), TestSet("cufed5", cufed5, "lr")
    assert references_of(none) == [[], []]
    assert none[0].fingerprint() != lr[0].fingerprint()


def test_one_benchmark_by_its_path(wrsr: Path) -> None:
    assert len(as_test_set(wrsr)) == len(as_test_set(f"mine={wrsr}")) == 3
    assert as_test_set(wrsr).title == "WR-SR"
    (wrsr.parent / "set5").mkdir()
    with pytest.raises(UserError, match="holds set5, wrsr: give one of them"):
        as_test_set(wrsr.parent)
