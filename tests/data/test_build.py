"""`frfsr data build`: photos of places become pairs that show the same, and benchmarks stay out."""

import itertools
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frfsr.cli import main
from frfsr.data.check import check
from frfsr.data.pairs import load_pairs
from frfsr.errors import UserError

cv2 = pytest.importorskip("cv2", reason="needs the extra build")

from frfsr.data.building import build as building  # noqa: E402
from frfsr.data.building.build import build  # noqa: E402
from frfsr.data.building.options import BuildOptions  # noqa: E402
from frfsr.data.building.select import Candidate, by_place, choose  # noqa: E402

WIDTH, HEIGHT = 440, 340
VIEW = np.array([[1.1, -0.12, 6], [0.11, 1.08, -24], [8e-5, 5e-5, 1]])  # places of a photo -> of its second view


def texture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(H, W, 3) uint8: leaves of all sizes that cover each other."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.uint8)
    for size in np.geomspace(60, 3, 1200):
        centre, axes = rng.integers(0, [width, height]), np.maximum(rng.uniform(0.3, 1, 2) * size, 1).astype(int)
        colour = rng.integers(20, 236, 3).tolist()
        cv2.ellipse(image, centre.tolist(), axes.tolist(), rng.uniform(0, 180), 0, 360, colour, -1)
    return image


def second_view(image: np.ndarray) -> np.ndarray:
    """From elsewhere, in other light."""
    seen = cv2.warpPerspective(image, VIEW, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return (255 * (seen / 255) ** 0.85 * [1, 0.95, 0.9]).astype(np.uint8)


def save(folder: Path, **photos: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in photos.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two places, two photos of each."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, place in enumerate(("bridge", "castle")):
        image = texture(seed)
        save(folder / place, near=image, other=second_view(image))
    return folder


@pytest.fixture(scope="module")
def built(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pack") / "pairs.parquet"
    build(photos, out)
    return out


def test_cells_show_the_same_place(built, photos) -> None:
    """Within 2 pixels of where the known homography has it, at whatever zoom; and the pixels are the photos'."""
    rows = load_pairs(built)
    assert len(rows) >= 12
    errors = []
    for row in rows:
        assert row["input"].size == row["references"][0].size == (160, 160)
        centre = np.array([row["input_left"], row["input_top"]]) + row["input_side"] / 2 - 0.5
        view = VIEW if row["input_photo"].endswith("near.png") else np.linalg.inv(VIEW)
        x, y, weight = view @ [*centre, 1]
        corner, factor = np.array([row["reference_left"], row["reference_top"]]), 160 / row["reference_side"]
        expected = (np.array([x, y]) / weight + 0.5 - corner) * factor - 0.5
        errors.append(np.linalg.norm(expected - [row["matched_x"], row["matched_y"]]))
        assert (abs(expected - 79.5) < 56).all(), "cut around the match"
        box = (*corner, *(corner + row["reference_side"]))
        photo = Image.open(photos / row["reference_photo"])
        again = photo.resize((160, 160), Image.Resampling.LANCZOS, box)
        assert np.abs(np.asarray(again, int) - np.asarray(row["references"][0], int)).max() <= 1
    assert max(errors) < 2
    zooms = load_pairs(built)["zoom"]
    assert min(zooms) >= 0.55
    assert max(zooms) <= 1.8
    assert np.ptp(zooms) > 0.4, "other zooms, too"


def test_the_pack_is_good_for_training_and_says_what_it_holds(built) -> None:
    assert check(built, crop=160).ok
    report = json.loads(built.with_suffix(".json").read_text())
    assert report["pairs"] == sum(report["places"].values()) == len(load_pairs(built))
    assert sorted(report["places"]) == ["bridge/near.png", "castle/near.png"]
    assert (report["photos"], report["compared"], report["matched"], report["skipped"]) == (4, 4, 4, [])
    assert report["settings"]["zoom"] == [0.55, 1.8]
    places = load_pairs(built)["place"]
    assert sum(first != second for first, second in itertools.pairwise(places)) == 1, "place by place"


def test_an_interrupted_build_goes_on_and_gives_the_same_file(built, photos, tmp_path, monkeypatch) -> None:
    cut, cuts, out = building.cells_of, Counter(), tmp_path / "pairs.parquet"

    def stopping(*arguments):
        cuts["all"] += 1
        if cuts["all"] == 3:
            raise KeyboardInterrupt
        return cut(*arguments)

    monkeypatch.setattr(building, "cells_of", stopping)
    assert main(["data", "build", str(photos), str(out)]) == 130
    assert not out.exists()
    assert not out.with_suffix(".json").exists()
    assert main(["data", "build", str(photos), str(out)]) == 0
    assert cuts["all"] == 5, "two pairs of photos were done"
    assert out.read_bytes() == built.read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"pairs.parquet", "pairs.json"}


def test_a_benchmark_photo_is_found_and_left_out(photos, tmp_path) -> None:
    """The planted image is a part of a photo at another size, in other colours, recompressed."""
    benchmark = tmp_path / "benchmark" / "deep"
    benchmark.mkdir(parents=True)
    part = Image.open(photos / "castle" / "near.png").crop((60, 50, 380, 300)).resize((256, 200))
    Image.fromarray((np.asarray(part) * 0.8 + 20).astype(np.uint8)).save(benchmark / "known.jpg", quality=80)
    save(benchmark, strange=texture(9, 200, 200))
    report = build(photos, tmp_path / "pairs.parquet", not_in=[tmp_path / "benchmark"])
    assert {leak.name for leak in report.leaks} == {"castle/near.png", "castle/other.png"}
    assert all(leak.benchmark.endswith("known.jpg") for leak in report.leaks)
    assert set(load_pairs(tmp_path / "pairs.parquet")["place"]) == {"bridge/near.png"}
    assert "leak            castle/near.png: as " in str(report)


def test_a_pack_is_checked_against_benchmarks(built, photos, tmp_path, capsys) -> None:
    save(tmp_path / "free", strange=texture(9, 200, 200))
    assert main(["data", "check", str(built), "--not-in", str(tmp_path / "free")]) == 0
    report = check(built, "train[:3]", not_in=[photos / "castle", photos / "bridge"])
    assert len(report.leaks) == 6
    assert "leaks           000000, input: as " in str(report)


def test_bad_photos_and_copies_are_named_and_give_no_pairs(photos, tmp_path) -> None:
    place = tmp_path / "photos"
    image = texture(0)
    save(place, a=image, b=second_view(image), same=image, small=image[:100], soft=cv2.blur(image, (25, 25)))
    (place / "same.png").write_bytes((place / "a.png").read_bytes())
    (place / "broken.png").write_bytes((place / "a.png").read_bytes()[:5000])
    resized = Image.fromarray(image).resize((WIDTH * 4 // 5, HEIGHT * 4 // 5), Image.Resampling.LANCZOS)
    resized.save(place / "copy.jpg", quality=92)
    report = build(place, tmp_path / "pairs.parquet")
    reasons = {fault.name: fault.reason for fault in report.skipped}
    assert set(reasons) == {"same.png", "small.png", "soft.png", "broken.png"}
    assert reasons["same.png"] == "the same file as a.png"
    assert "smaller than a cell" in reasons["small.png"]
    assert "blurred" in reasons["soft.png"]
    assert "damaged" in reasons["broken.png"]
    assert report.dropped["the photos are copies of each other"] == 2
    rows = load_pairs(tmp_path / "pairs.parquet")
    assert {"a.png", "copy.jpg"} not in [{row["input_photo"], row["reference_photo"]} for row in rows]


def test_named_pairs_are_matched_with_their_own_references_only(tmp_path) -> None:
    image, other = texture(0), texture(1)
    save(tmp_path / "CUFED" / "input", one=image, two=other)
    save(tmp_path / "CUFED" / "ref", one=second_view(image), two=second_view(other))
    report = build(tmp_path / "CUFED", tmp_path / "pairs.parquet", BuildOptions(per_pair=2))
    assert (report.compared, report.pairs) == (2, 4)
    rows = load_pairs(tmp_path / "pairs.parquet")
    assert {(row["input_photo"], row["reference_photo"]) for row in rows} == {
        ("input/one.png", "ref/one.png"),
        ("input/two.png", "ref/two.png"),
    }


def test_large_places_are_compared_at_a_glance_first(photos, tmp_path) -> None:
    place = tmp_path / "photos"
    for folder in ("bridge", "castle"):
        for file in (photos / folder).iterdir():
            save(place, **{f"{folder}_{file.stem}": np.asarray(Image.open(file))})
    report = build(place, tmp_path / "pairs.parquet", BuildOptions(neighbours=1, per_pair=1))
    assert (report.compared, report.matched) == (4, 4)
    assert len(report.places) == 2


def candidate(first: str, second: str, left: int, bits: int) -> Candidate:
    figures = {"x": left, "y": 0, "inliers": 20, "hash": f"{bits:016x}"}
    return Candidate(first, second, Path("unused"), 0, figures)


def test_caps_and_cells_that_are_nearly_the_same() -> None:
    dropped: Counter = Counter()
    far = 0xFFFF_FFFF
    candidates = [
        candidate("a", "b", 0, 0),
        candidate("a", "c", 40, far),  # three quarters of the first
        candidate("b", "a", 0, 7),  # three bits from the first
        candidate("b", "d", 0, far),
        candidate("e", "f", 0, far << 32),
        candidate("e", "f", 500, far << 16),
    ]
    chosen = choose(candidates, BuildOptions(per_photo=1), dropped)
    assert [entry[:2] for entry in chosen] == [("a", "b"), ("b", "d"), ("e", "f")]
    assert dropped == {"nearly the same as another cell": 1, "more than --per-photo": 2}
    choose(candidates, BuildOptions(), again := Counter())
    assert again == {"nearly the same as another cell": 1, "same part of the photo as another cell": 1}
    assert {name: len(cells) for name, cells in by_place(chosen, 0).items()} == {"a": 2, "e": 1}


def test_mistakes_take_one_line(photos, tmp_path, capsys, monkeypatch) -> None:
    save(tmp_path / "strangers", a=texture(5), b=texture(6))
    save(tmp_path / "alone", a=texture(5))
    out = str(tmp_path / "pairs.parquet")
    for arguments, said in (
        ([str(photos), "pairs.zip"], "must end in .parquet"),
        ([str(tmp_path / "nowhere"), out], "is no folder"),
        ([str(photos), out, "--zoom", "2", "1"], "zoom: 2.0 to 1.0 is no range"),
        ([str(photos), out, "--cell", "30"], "cell: should be"),
        ([str(photos), out, "--not-in", str(tmp_path / "strangers" / "a.png")], "a.png"),
        ([str(tmp_path / "alone"), out], "no two photos"),
        ([str(tmp_path / "strangers"), out], "gives no pairs"),
    ):
        assert main(["data", "build", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(UserError, match="longest"):
        BuildOptions(cell=512, longest=256)
    for module in [name for name in sys.modules if name.startswith("frfsr.data.building.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["data", "build", str(photos), out]) == 2
    assert capsys.readouterr().err == "frfsr: this needs cv2: pip install 'frfsr[build]'\n"
