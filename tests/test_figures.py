"""Pictures, charts and the HTML report; the report is looked at in a headless browser where there is one."""

import argparse
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frfsr.config import FRFSRConfig
from frfsr.errors import UserError
from frfsr.evals import commands, figures, gallery, report
from frfsr.evals.benchmarks import Sample
from frfsr.evals.figures import Box
from frfsr.evals.runtime import Runtime
from frfsr.evals.visualise import look_inside
from frfsr.model import FRFSR
from frfsr.upscaling.pictures import position_colours

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SMALL = {"blocks": (1, 1, 1), "sife_blocks": 1, "channels": (8, 8, 8), "groups": 1, "dynamic_blocks": (1, 1, 1)}


def picture(seed: int, height: int = 64, width: int = 80) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def sample() -> Sample:
    return Sample("s", picture(0), picture(0, 16, 20), [picture(1, 51, 47)])


@pytest.fixture(scope="module")
def model() -> FRFSR:
    torch.manual_seed(0)
    return FRFSR(FRFSRConfig.tiny(**SMALL)).eval()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "cufed5"
    folder.mkdir(parents=True)
    for group in range(3):
        for n in range(3):
            Image.fromarray(picture(10 * group + n, 40, 36)).save(folder / f"{group:03}_{n}.png")
    return tmp_path / "data"


def test_the_crop_is_where_results_differ() -> None:
    first = picture(0, 100, 90)
    second = first.copy()
    second[70:80, 50:60] = 255 - second[70:80, 50:60]
    box = figures.choose_crop([first, second], side=16)
    assert box.side == 16
    assert box.left <= 50 < 60 <= box.left + 16
    assert box.top <= 70 < 80 <= box.top + 16
    assert figures.choose_crop([first, second], side=500).side == 90


@pytest.mark.parametrize("box", [Box(-1, 0, 4), Box(0, 61, 4), Box(77, 0, 4), Box(0, 0, 0)])
def test_crops_outside_are_errors(box: Box, sample: Sample) -> None:
    with pytest.raises(UserError, match="does not lie in a, an image of 80x64"):
        figures.check_crop(box, sample.hr, "a")


def test_comparison_shows_each_picture(sample: Sample) -> None:
    red, blue = np.zeros_like(sample.hr), np.zeros_like(sample.hr)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = np.asarray(figures.comparison(sample, {"red": red, "blue": blue}, Box(8, 8, 16)))
    for colour in ([255, 0, 0], [0, 0, 255]):
        assert (sheet == colour).all(axis=2).sum() == figures.TILE**2
    assert (sheet == figures.FRAME).all(axis=2).sum() > 20


def test_error_maps_are_black_without_error(sample: Sample) -> None:
    sheet = np.asarray(figures.error_maps(sample, {"equal": sample.hr}))
    assert (sheet == figures.heat(np.zeros((1, 1)))[0, 0]).all(axis=2).sum() > (2 * figures.TILE) ** 2 / 2
    assert figures.heat(np.ones((1, 1))).sum() > figures.heat(np.zeros((1, 1))).sum()


def test_captions_fit_their_column(sample: Sample) -> None:
    narrow = figures.panel([("short", sample.hr)], 1)
    assert figures.panel([("a caption that is much wider than its picture", sample.hr)], 1).size == narrow.size


def test_a_reference_equal_to_the_truth_is_matched_in_place(model: FRFSR) -> None:
    """The upsampled LR is its own reference here, so that every pixel must be found where it is."""
    from frfsr.degrade import upscale_bicubic

    lr = picture(3, 15, 18)
    upsampled = upscale_bicubic(lr)
    explanation = look_inside(model, Sample("s", upsampled, lr, [upsampled])).explanation
    assert explanation.matched.matches.score.shape == (15, 18)
    np.testing.assert_allclose(explanation.matched.matches.score, 1, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(explanation.matched.warped, upsampled)
    assert explanation.place(31, 42)[:4] == (0, 0, 31, 42)


def test_maps_of_the_finest_scale(model: FRFSR, sample: Sample) -> None:
    insight = look_inside(model, sample)
    assert {caption: values.shape for caption, values in insight.attention.items()} == {
        "ESA mask": (64, 80),
        "dynamic filters": (64, 80),
    }
    assert 0 <= insight.attention["ESA mask"].min() <= insight.attention["ESA mask"].max() <= 1
    assert insight.explanation.matched.keys[0].shape == (51, 47, 3)
    assert not any(module._forward_hooks for module in model.modules())
    maps = [figures.heat(figures.stretch(values)) for values in insight.attention.values()]
    assert_shows(figures.attention(insight), 0, maps[0])
    assert_shows(figures.attention(insight), 1, maps[1])
    assert_shows(figures.matching(insight.explanation.matched), 0, insight.explanation.matched.keys[0])


def assert_shows(sheet: Image.Image, column: int, picture: np.ndarray) -> None:
    """A sheet with tiles of twice the usual size has the picture in this column of its first row."""
    height, width = picture.shape[:2]
    scale = 2 * figures.TILE / max(height, width)
    size = round(width * scale), round(height * scale)
    left, top = figures.GAP + column * (2 * figures.TILE + figures.GAP), figures.GAP + figures.CAPTION
    shown = sheet.crop((left, top, left + size[0], top + size[1]))
    np.testing.assert_array_equal(shown, Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))


def test_places_have_different_colours() -> None:
    colours = position_colours(20, 30).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 590
    assert position_colours(1, 1).shape == (1, 1, 3)


class Resources(HTMLParser):
    """Collects everything that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value for name, value in attrs if name in ("src", "href") and value]


def frfsr_eval(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    options = parser.parse_args([str(word) for word in words])
    return options.run(options)


def test_command_writes_pictures_and_a_self_contained_report(
    root: Path, tmp_path: Path, model: FRFSR, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frfsr.evals.gallery.measure_runtime", lambda upscaler: Runtime(0.1, 100, "stopwatch"))
    model.save_pretrained(tmp_path / "weights")
    words = [
        "figures",
        "--models",
        "bicubic",
        f"ours={tmp_path / 'weights'}",
        "--data",
        root,
        "--out",
        tmp_path / "out",
    ]
    assert frfsr_eval(*words, "--count", "2", "--quoted") == 0
    names = {file.name for file in (tmp_path / "out").glob("*.png")}
    assert sum(name.endswith("__crops.png") for name in names) == 2
    assert {"Quality__parameters_and_runtime.png", "Shuffled_references.png"} < names
    page = (tmp_path / "out" / "report.html").read_text()
    resources = Resources()
    resources.feed(page)
    assert len(resources.urls) == len(names) + 2 * 2
    assert all(url.startswith("data:image/png;base64,") for url in resources.urls)
    assert "CUFED5 (3 of 126)" in page
    with pytest.raises(UserError, match="there is no image 'x'"):
        frfsr_eval(*words, "--images", "x")
    with pytest.raises(UserError, match="--data has no wrsr; there are cufed5"):
        frfsr_eval(*words, "--benchmark", "wrsr")


def test_shown_images_are_spread_over_the_gains(root: Path) -> None:
    from frfsr.evals.choices import read_data
    from frfsr.evals.evaluation import Protocol
    from frfsr.evals.paper import Laboratory
    from frfsr.evals.upscalers import Bicubic

    class Worse(Bicubic):
        name = identity = "worse"

        def __init__(self) -> None:
            super().__init__()
            self.identity = "worse"

        def __call__(self, lr, references):
            return super().__call__(lr, references) // 2

    laboratory, pair = Laboratory(read_data([root]), Protocol()), [Bicubic(), Worse()]
    gains = dict(zip(*(
        [getattr(s, field) for s in laboratory.evaluate(pair[1], "cufed5").scores] for field in ("name", "psnr_y")
    ), strict=True))  # fmt: skip
    for score in laboratory.evaluate(pair[0], "cufed5").scores:
        gains[score.name] -= score.psnr_y
    best_first = sorted(gains, key=lambda name: -gains[name])
    assert gallery.choose_images(laboratory, pair, "cufed5", gallery.Choice(count=2)) == [best_first[0], best_first[-1]]
    assert gallery.choose_images(laboratory, pair, "cufed5", gallery.Choice(count=9)) == best_first


def test_quoted_bubbles_have_one_number_of_parameters() -> None:
    quoted = {c.name: c for c in gallery.quoted_contestants()}
    assert quoted["FRFSR-rec without SIFE (quoted)"].parameters == 13.5
    assert quoted["FRFSR-rec without SIFE (quoted)"].seconds == 0.807
    assert quoted["MASA-rec (quoted)"].psnr == 27.54
    assert "TADE-rec (quoted)" not in quoted


def test_report_escapes_what_it_shows() -> None:
    page = report.as_html("a < b", [report.Figure("<script>", Image.new("RGB", (2, 2)))], "x & y")
    assert "<title>a &lt; b</title>" in page
    assert "&lt;script&gt;" in page
    assert "<pre>x &amp; y</pre>" in page


@pytest.mark.slow
def test_report_in_a_browser(tmp_path: Path) -> None:
    """The slider shows the first picture left of its edge and the second right of it, and follows its input."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}")
    red, blue = np.zeros((100, 400, 3), np.uint8), np.zeros((100, 400, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    page = report.as_html("t", [report.Slider("s", red, blue, "red", "blue")], "")
    shares = []
    for value in ("50", "25"):
        (tmp_path / "page.html").write_text(re.sub(r'value="\d+"', f'value="{value}"', page))
        shot = tmp_path / f"{value}.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        options += ["--window-size=800,400", f"--user-data-dir={tmp_path}/profile", f"--screenshot={shot}"]
        subprocess.run(
            [browser, *options, f"file://{tmp_path}/page.html"], check=True, capture_output=True, timeout=120
        )
        screen = np.asarray(Image.open(shot).convert("RGB")).astype(int)
        is_red, is_blue = ((screen == colour).all(axis=2) for colour in ([255, 0, 0], [0, 0, 255]))
        assert np.nonzero(is_red)[1].max() < np.nonzero(is_blue)[1].min()
        shares.append(is_red.sum() / (is_red.sum() + is_blue.sum()))
    assert shares == pytest.approx([0.5, 0.25], abs=0.02)
