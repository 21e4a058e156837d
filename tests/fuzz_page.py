"""Mutated image files over the handlers of `frfsr page`: told in one line, or enlarged into a file that is whole.

    python tests/fuzz_page.py [COUNT] [SEED]        (`make fuzz` runs 5,000)

Each file is uploaded as a photo and as a reference, and both are run. Reports tracebacks, hangs, memory beyond the
limit, unclear answers and files that are left; culprits are saved in the folder fuzz-findings.
"""

import html
import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import fuzz
import gradio as gr
import numpy as np
import torch
from PIL import Image

from frfsr.imageio import read_photo
from frfsr.page.handlers import Handlers
from frfsr.page.sessions import Sessions
from frfsr.page.work import Limits, Networks

LIMITS = Limits(photo_pixels=64 * 64, file_pixels=fuzz.MAX_PIXELS, seconds=30)
LINE = re.compile(r'<div class="line (good|note|bad)" role="(?:alert|status)">([^<\n]+)</div>')
NOT_OURS = "Traceback", "Error(", " object at 0x"


class Page:
    """The page of one person, without a browser.

    Args:
        folder: for its files.
        model: that enlarges, by name or folder.
    """

    def __init__(self, folder: Path, model: str):
        self.handlers = Handlers(Sessions(folder), Networks([model], "cpu"), LIMITS)
        self.folder, self.model = folder, model
        self.request = gr.Request(session_hash="fuzz")
        self.good = str(folder / "good.png")
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).save(self.good)

    def verdict(self, name: str, data: bytes) -> str:
        """Return "refused" or "enlarged", or what is wrong with how the page took a file as a photo and a reference."""
        start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        path = self.folder / name
        path.write_bytes(data)
        try:
            outcome = self.as_photo(str(path))
            reference = self.as_reference(str(path))
        except BaseException as error:
            return f"traceback {type(error).__name__}: {error}"
        finally:
            self.handlers.leave(self.request)
            path.unlink(missing_ok=True)
        left = [file.name for file in self.folder.rglob("*") if file.is_file() and file.name != "good.png"]
        faults = [fault for fault in (outcome, reference) if fault not in ("refused", "enlarged")]
        if faults or left:
            return "; ".join(faults) or f"files left: {left}"
        if time.process_time() - start > fuzz.SLOWEST:  # a busy machine is no hang
            return "hang"
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > fuzz.MOST_MEMORY * 1024:
            return "memory"
        return outcome

    def as_photo(self, path: str) -> str:
        """What comes of it as a photo."""
        told, _ = self.handlers.look_at_photo(path, self.request)
        return self.enlarge(path, [], told.value)

    def as_reference(self, path: str) -> str:
        """What comes of it as a reference."""
        told, _ = self.handlers.look_at_references([path], self.request)
        return self.enlarge(self.good, [path], told.value)

    def enlarge(self, photo: str, references: list[str], told: str) -> str:
        """Press the button, and click in the result; `told` is what the page said of the upload."""
        nothing: Callable = lambda *_, **__: None  # noqa: E731
        answer, *_ = self.handlers.run(photo, references, 1.0, self.model, "cpu", self.request, nothing)
        kinds = {kind for kind, _ in LINE.findall(told)}
        session = self.handlers.session(self.request)
        if fault := unclear(told) or unclear(answer, least=1):
            return fault
        if 'class="line bad"' in answer:
            return "refused" if "bad" in kinds and session.outcome is None else f"refused late: {answer}"
        if "bad" in kinds or session.outcome is None:
            return f"enlarged what was refused: {told}"
        if references:
            self.handlers.click(self.request, SimpleNamespace(index=(3, 4)))  # type: ignore[arg-type]
        result = read_photo(session.outcome.file)
        with warnings.catch_warnings(action="ignore"):  # the page has told them
            expected = tuple(4 * side for side in read_photo(photo, max_pixels=fuzz.MAX_PIXELS).pixels.shape[:2])
        session.outcome = None
        return "enlarged" if result.pixels.shape[:2] == expected else f"garbage {result.pixels.shape}"


def unclear(answer: str, least: int = 0) -> str | None:
    """Return what is wrong with a message, which must be lines for people; mostly None."""
    lines = [html.unescape(text) for _, text in LINE.findall(answer)]
    if len(lines) < least or LINE.sub("", answer) or any(word in text for text in lines for word in NOT_OURS):
        return f"unclear message {answer}"
    return None


def run(count: int, seed: int, findings: Path | None = None, model: str = "frfsr-tiny") -> fuzz.Tally:
    """Try mutated files over the page; see `fuzz.run`."""
    with tempfile.TemporaryDirectory() as folder:
        return fuzz.run(count, seed, findings, Page(Path(folder), model).verdict, good=("refused", "enlarged"))


if __name__ == "__main__":
    torch.set_num_threads(1)  # the pictures are small
    sys.exit(fuzz.main(run, "files over the page"))
