"""`frfsr page`: the engine in a browser, for the people of this machine; no request leaves it."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frfsr.errors import UserError

# Before gradio is imported: it reads some of these only then.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}

try:
    import gradio as gr
except ImportError as error:
    raise UserError("the page needs gradio: pip install 'frfsr[page]'.") from error

import numpy as np
from gradio.themes import Default
from PIL import Image

from frfsr.degrade import downscale
from frfsr.demo import photographs
from frfsr.page.handlers import MATCH_HELP, Handlers, line
from frfsr.page.sessions import LONGEST, Sessions
from frfsr.page.work import ENDINGS, Limits, Networks

ADDRESS = "127.0.0.1"
TIDY = 300  # seconds between two looks for old files
CSS = """
.gradio-container { max-width: 1320px !important; margin: 0 auto !important; }
#title h1 { margin: 0 0 .2em 0; }
#title p { margin: 0; color: var(--body-text-color); opacity: .75; }
.line { padding: .55em .8em; border-radius: 6px; border-left: 4px solid; background: var(--background-fill-secondary); }
.line.bad { border-color: #d5342b; } .line.good { border-color: #2f9e5b; } .line.note { border-color: #d08a1d; }
.line + .line { margin-top: .4em; }
#examples { align-items: center; gap: .6em; } #examples > * { flex: 0 0 auto; width: auto; min-width: 0; }
#report table { width: 100%; font-size: .92em; }
"""
INTRODUCTION = """# frfsr
A photo four times as large, with the textures of sharp photos of the same place. Everything is computed on this
machine, and forgotten when you close the page."""
START = "Upload a photo and one or more references, or try an example; then: Enlarge."
EXAMPLES = {
    "a reference of the same scene": ("photo.png", ["reference.png"]),
    "a turned reference": ("photo.png", ["turned.png"]),
    "a good and an unrelated one": ("photo.png", ["reference.png", "unrelated.png"]),
}


def serve(names: Sequence[str] = (), device: str | None = None, port: int = 7860, limits: Limits | None = None) -> None:
    """Serve the page at 127.0.0.1 until it is interrupted.

    Args:
        names: of the networks that are offered: packaged names, folders or Hub ids; none: all packaged ones.
        device: that is proposed; by default a GPU if there is one.
        port: of the address; 0: any that is free.
        limits: of what a person may ask.

    Raises:
        UserError: no such network or device, or the port is taken.
    """
    limits = limits or Limits()
    networks = Networks(names, device)
    with tempfile.TemporaryDirectory(prefix="frfsr-page-") as folder:
        examples, cache = Path(folder, "examples"), Path(folder, "cache")
        for place in (examples, cache):
            place.mkdir()
        os.environ["GRADIO_TEMP_DIR"] = str(cache)
        page = build(networks, examples, cache, limits)
        try:
            _, address, _ = page.launch(
                server_name=ADDRESS,
                server_port=port or None,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
                allowed_paths=[str(examples)],
                max_file_size=limits.file_bytes,
                theme=Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=CSS,
            )
        except OSError as error:
            raise UserError(f"port {port} of {ADDRESS} is taken: give --port another number.") from error
        print(f"frfsr: the page is at {address} (end it with Ctrl+C)", flush=True)
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)


def build(networks: Networks, examples: Path, cache: Path, limits: Limits) -> gr.Blocks:
    """Lay out the page and connect its parts.

    Args:
        networks: that are offered.
        examples: empty folder for photos that can be tried.
        cache: folder for what people upload and are shown; what is stored there is served.
        limits: of what a person may ask.

    Returns:
        The page, not yet served.
    """
    handle = Handlers(Sessions(cache), networks, limits)
    with gr.Blocks(title="frfsr", analytics_enabled=False, delete_cache=(TIDY, LONGEST)) as page:
        gr.Markdown(INTRODUCTION, elem_id="title")
        tries = add_examples(examples)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                photo = gr.File(label="Photo", file_types=list(ENDINGS), height=130, elem_id="photo")
                photo_line = gr.HTML(elem_id="photo-line", padding=False, visible=False)
                photo_seen = gr.Image(
                    show_label=False, height=130, buttons=[], visible=False, elem_id="photo-seen", interactive=False
                )
                references = gr.File(
                    label=f"References (up to {limits.references})",
                    file_types=list(ENDINGS),
                    file_count="multiple",
                    height=130,
                    elem_id="references",
                )
                references_line = gr.HTML(elem_id="references-line", padding=False, visible=False)
                references_seen = gr.Image(
                    show_label=False, height=130, buttons=[], visible=False, elem_id="references-seen",
                    interactive=False,
                )  # fmt: skip
                strength = gr.Slider(0, 1, 1, step=0.05, label="Strength of the references", elem_id="strength")
                with gr.Row():
                    model = gr.Dropdown(networks.names, value=networks.names[0], label="Model", elem_id="model")
                    device = gr.Dropdown(networks.devices, value=networks.devices[0], label="Device", elem_id="device")
                with gr.Row():
                    start = gr.Button("Enlarge", variant="primary", elem_id="run", min_width=100)
                    cancel = gr.Button("Cancel", elem_id="cancel", min_width=100)
            with gr.Column(scale=5, min_width=480):
                message = gr.HTML(line(START, "note"), elem_id="message", padding=False)
                with gr.Tabs():
                    with gr.Tab("Before and after"):
                        slider = gr.ImageSlider(
                            label="Enlarged without a network | result", format="png", max_height=640,
                            interactive=False, elem_id="slider", buttons=["fullscreen"],
                        )  # fmt: skip
                    with gr.Tab("Matches", elem_id="matches-tab"):
                        match_line = gr.HTML(line(MATCH_HELP, "good"), elem_id="match-line", padding=False)
                        with gr.Row():
                            clicked = gr.Image(
                                label="Result", buttons=[], interactive=False, elem_id="clicked", height=420
                            )
                            found = gr.Gallery(
                                label="References", preview=True, height=420, object_fit="contain", buttons=[],
                                interactive=False, elem_id="found",
                            )  # fmt: skip
                        gr.Markdown("Close up: the clicked place, and the matched one as the network sees it.")
                        closeups = gr.Image(
                            show_label=False, buttons=[], interactive=False, elem_id="closeups", height=300
                        )
                    with gr.Tab("Confidence", elem_id="confidence-tab"):
                        gr.Markdown("How sure each match is: black, nothing similar was found; light yellow, certain.")
                        confidence = gr.Image(show_label=False, buttons=[], interactive=False, elem_id="confidence")
                download = gr.DownloadButton("Download", visible=False, variant="primary", elem_id="download")
                report = gr.Markdown(elem_id="report")

        quick: dict[str, Any] = dict(api_visibility="private", show_progress="hidden")
        shown = [message, slider, clicked, found, match_line, closeups, confidence, download, report]
        running = start.click(
            handle.run,
            [photo, references, strength, model, device],
            shown,
            concurrency_limit=limits.jobs,
            concurrency_id="run",
            show_progress_on=[slider],
            api_visibility="private",
        )
        cancel.click(handle.cancel, None, message, cancels=[running], queue=False, **quick)
        photo.change(handle.look_at_photo, photo, [photo_line, photo_seen], **quick)
        references.change(handle.look_at_references, references, [references_line, references_seen], **quick)
        clicked.select(handle.click, None, [match_line, clicked, found, closeups], **quick)
        for button, files in tries:
            button.click(lambda files=files: files, None, [photo, references], **quick)
        page.unload(handle.leave)
    return page.queue(max_size=limits.waiting, default_concurrency_limit=4)


def add_examples(folder: Path) -> list[tuple[gr.Button, tuple[str, list[str]]]]:
    """Buttons that fill in photos of scikit-image, which are written to a folder; each with its files."""
    truth, reference, unrelated = photographs()
    pictures = {
        "photo.png": downscale(truth),
        "reference.png": reference,
        "turned.png": np.rot90(reference),
        "unrelated.png": unrelated,
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name)
    with gr.Row(elem_id="examples"):
        gr.Markdown("Try it:", container=False)
        return [
            (gr.Button(label, size="sm"), (str(folder / photo), [str(folder / name) for name in references]))
            for label, (photo, references) in EXAMPLES.items()
        ]
