"""The page in a real browser, beside the command line: what is uploaded, shown, downloaded, refused and forgotten."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frfsr.imageio import Photo, write_photo

pytest.importorskip("gradio", reason="the page needs the extra `page`")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 120_000  # ms that the browser waits for anything
MOST_PIXELS = 6_000

# The server, which tells of every host that it looks up or connects to, except itself.
SERVER = """
import socket, sys
from frfsr.cli import main
HERE = ("127.0.0.1", "localhost", "::1", None)
def watched(function, host):
    def call(*arguments, **keywords):
        if (name := host(arguments)) not in HERE:
            print("left the machine:", name, flush=True)
        return function(*arguments, **keywords)
    return call
socket.getaddrinfo = watched(socket.getaddrinfo, lambda given: given[0])
socket.socket.connect = watched(socket.socket.connect, lambda given: given[1][0] if given[0].family != 1 else None)
sys.exit(main(sys.argv[1:]))
"""


class Page:
    """A server, and what it wrote."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder / "log.txt"
        command = ["page", "--port", "0", "--model", "frfsr-tiny", "--device", "cpu"]
        command += ["--max-pixels", str(MOST_PIXELS)]
        environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, *command], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        assert self.process.stdout
        self.lines = [self.process.stdout.readline()]
        assert "http://127.0.0.1:" in self.lines[0], self.log.read_text()
        self.address = self.lines[0].split()[5]

    def stop(self) -> None:
        """End it as a service manager does."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=60)
        self.lines += output.splitlines()

    def stored(self) -> list[Path]:
        """Files with content that people uploaded or were shown."""
        return [file for file in self.folder.glob("*/cache/**/*") if file.is_file() and file.stat().st_size]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    server = Page(tmp_path_factory.mktemp("page"))
    yield server
    server.stop()
    assert not list(server.folder.glob("frfsr-page-*"))  # nothing is left of the session
    assert not [line for line in server.lines if "left the machine" in line]
    assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def requested() -> list[str]:
    """The addresses that any browser here asked for."""
    return []


@pytest.fixture
def visit(page, requested) -> Iterator[Callable]:
    """visit(): a new person's browser tab with the page."""
    with tempfile.TemporaryDirectory() as profile, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=SWITCHES, accept_downloads=True
        )
        browser.set_default_timeout(PATIENCE)
        browser.on("request", lambda request: requested.append(request.url))

        def visit():
            tab = browser.new_page()
            tab.goto(page.address)
            tab.locator("#run").wait_for()
            return tab

        yield visit
        browser.close()
    assert requested
    assert all(url.startswith((page.address, "data:", "blob:")) for url in requested)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> dict[str, Path]:
    """A photo of 48x40 pixels with 16 bits, the same as a JPEG, and references of the same scene, 192x160."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))
    sharp = coarse.resize((192, 160), Image.Resampling.BICUBIC)
    small = sharp.resize((48, 40), Image.Resampling.BICUBIC)
    files = {name: folder / name for name in ("deep.png", "photo.jpg", "sharp.png", "mirrored.png", "large.png")}
    write_photo(Photo(np.asarray(small).astype(np.uint16) * 257), files["deep.png"])
    small.save(files["photo.jpg"])
    sharp.save(files["sharp.png"])
    sharp.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(files["mirrored.png"])
    sharp.save(files["large.png"])
    return files


def upload(tab, photo: Path, *references: Path) -> None:
    """Choose files, and wait until the page has looked at them."""
    tab.set_input_files("#photo input[type=file]", photo)
    tab.locator("#photo-line .line").wait_for()
    if references:
        tab.set_input_files("#references input[type=file]", list(references))
        tab.locator("#references-seen img").wait_for()


def download(tab) -> tuple[str, bytes]:
    """Name and content of the result, once it is there."""
    tab.locator("#download").wait_for(state="visible")
    with tab.expect_download() as started:
        tab.locator("#download").click()
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def same(content: bytes, expected: bytes) -> bool:
    """Whether files are equal; pytest would compare the bytes of unequal ones for minutes."""
    return content == expected


def upscaled(folder: Path, photo: Path, *references: Path, strength: float = 1) -> bytes:
    """What `frfsr upscale` writes, in a process of its own as the page has one."""
    output = folder / f"expected{photo.suffix}"
    options = ["-o", str(output), "--device", "cpu", "--quiet"]
    if references:
        options += ["--strength", str(strength), "--reference", *map(str, references)]
    command = [sys.executable, "-m", "frfsr", "upscale", str(photo), *options]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})  # as many threads as the page has
    return output.read_bytes()


def test_upload_run_look_click_and_download(visit, photos, tmp_path):
    tab = visit()
    upload(tab, photos["deep.png"], photos["sharp.png"], photos["mirrored.png"])
    assert "48×40 → 192×160 pixels, colour, 16 bits" in tab.locator("#photo-line").inner_text()
    tab.locator("#run").click()
    name, content = download(tab)
    assert name == "deep_x4.png"
    assert same(content, upscaled(tmp_path, photos["deep.png"], photos["sharp.png"], photos["mirrored.png"]))

    pictures = tab.locator("#slider img")
    assert pictures.count() == 2
    handle = tab.locator("#slider .outer").first
    before, place = handle.get_attribute("style"), handle.bounding_box()
    tab.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    tab.mouse.down()
    tab.mouse.move(place["x"] + 100, place["y"] + place["height"] / 2, steps=5)
    tab.mouse.up()
    assert handle.get_attribute("style") != before

    tab.get_by_role("tab", name="Matches").click()
    tab.locator("#clicked img").click(position={"x": 150, "y": 150})
    told = tab.locator("#match-line .line").filter(has_text="Found in")
    told.wait_for()
    assert "sharp.png" in told.inner_text() or "mirrored.png" in told.inner_text()
    tab.locator("#closeups img").wait_for()
    tab.get_by_role("tab", name="Confidence").click()
    tab.locator("#confidence img").wait_for()
    assert "Mean confidence" in tab.locator("#report").inner_text()


def test_bad_files_show_their_line(visit, photos, tmp_path):
    tab = visit()
    tab.locator("#run").click()
    tab.locator("#message .bad").filter(has_text="no photo").wait_for()
    text = tmp_path / "text<b>.png"
    text.write_text("no picture")
    tab.set_input_files("#photo input[type=file]", text)
    tab.locator("#photo-line .bad").filter(has_text="not an image in a known format").wait_for()
    tab.locator("#run").click()
    tab.locator("#message .bad").filter(has_text="not an image in a known format").wait_for()
    assert tab.locator("#download").is_hidden()

    tab = visit()
    tab.set_input_files("#photo input[type=file]", photos["large.png"])
    tab.locator("#photo-line .bad").filter(has_text="192×160 pixels are more than").wait_for()


def test_two_people_at_once_get_their_own_results(visit, photos, tmp_path):
    tabs = [visit(), visit()]
    upload(tabs[0], photos["deep.png"], photos["sharp.png"])
    upload(tabs[1], photos["photo.jpg"])
    tabs[0].locator("#strength input[type=number]").fill("0.5")
    tabs[0].locator("#strength input[type=number]").press("Tab")
    for tab in tabs:
        tab.locator("#run").click()
    results = [download(tab) for tab in tabs]
    half = upscaled(tmp_path, photos["deep.png"], photos["sharp.png"], strength=0.5)
    assert results[0][0] == "deep_x4.png"
    assert same(results[0][1], half)
    assert not same(half, upscaled(tmp_path, photos["deep.png"], photos["sharp.png"]))
    assert results[1][0] == "photo_x4.jpg"
    assert same(results[1][1], upscaled(tmp_path, photos["photo.jpg"]))


def test_a_run_is_cancelled_and_the_page_goes_on(visit, photos):
    tab = visit()
    upload(tab, photos["deep.png"], photos["sharp.png"])
    tab.locator("#run").click()
    tab.locator("#cancel").click()
    tab.locator("#message").filter(has_text="cancelled.").wait_for()
    tab.wait_for_timeout(1000)
    assert tab.locator("#download").is_hidden()
    tab.locator("#run").click()
    assert download(tab)[0] == "deep_x4.png"


def test_closed_pages_are_forgotten(visit, page, photos):
    tab = visit()
    upload(tab, photos["deep.png"])
    tab.locator("#run").click()
    download(tab)
    assert page.stored()
    for other in tab.context.pages[1:]:
        other.close()
    keeper = tab.context.pages[0]
    for _ in range(60):
        keeper.wait_for_timeout(500)
        if not page.stored():
            break
    assert not page.stored()
