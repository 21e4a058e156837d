"""A run folder: configuration, environment, metrics, pictures, checkpoints and exported weights of one training."""

import json
import os
import platform
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator, tracking
from einops import rearrange
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from frfsr.cards import Origin, measured
from frfsr.errors import UserError
from frfsr.files import (
    append,
    locked,
    replace_folder,
    require_writable_folder,
    restore_folder,
    whole_file,
    whole_folder,
    write_text,
)
from frfsr.recipes.carry import Carried
from frfsr.recipes.config import CHANGEABLE, NO_YAML, PATHS, RunConfig
from frfsr.stored import StoredModule

SOURCES = "pretrained.json"
# What damaged files of a checkpoint raise: cut short, of another network, with bytes that are no pickle or no JSON.
DAMAGED = (OSError, EOFError, RuntimeError, ValueError, LookupError, AttributeError, UnpicklingError, SafetensorError)
PICTURED = 4  # samples that a validation draws, a row each


@contextmanager
def survived(what: str) -> Iterator[None]:
    """A full disk costs what is written here, not the run: it goes on with a warning."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError, UserError) as error:
        warnings.warn(f"{what} cannot be written ({error}); what was there before stays", stacklevel=3)


class Run:
    """The folder `config.out`. Only the main process writes, except for checkpoints, to which every process adds."""

    def __init__(self, config: RunConfig, accelerator: Accelerator, content: str):
        """content: `setup.fingerprint` of the training data, by which a run knows its data at another place."""
        self.config, self.accelerator, self.content = config, accelerator, content
        self.started = time.monotonic()
        self.folder = Path(config.out)
        self.checkpoints, self.carry = self.folder / "checkpoints", self.folder / "carry.safetensors"
        self.carried = Carried([], [])
        self.sources: dict[str, str] = {}  # SHA-256 of the pretrained weights that the run uses
        if not accelerator.is_main_process:
            return
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.lock = locked(self.folder / ".lock", f"{self.folder} is in use by another run: choose another out=.")
            require_writable_folder(self.checkpoints)
            for old in self.checkpoints.glob(".*.old"):
                restore_folder(old.with_name(old.name[1:].removesuffix(".old")))
            self.keep_settings(self.folder / "config.yaml")
            append(self.folder / "environment.jsonl", environment(accelerator))  # a line for each start
        except OSError as error:
            raise UserError(f"cannot write the run folder {self.folder}: {error.strerror}.") from error
        facts = {"name": self.folder.name, "config": plain(config)}
        project = "tensorboard" if config.tracker == "tensorboard" else "frfsr"  # the former's folder in the run's
        accelerator.init_trackers(project, init_kwargs={"wandb": facts, "trackio": facts})

    def keep_settings(self, file: Path) -> None:
        """Write config.yaml.

        Args:
            file: its path.

        Raises:
            UserError: the folder holds checkpoints of a run with other settings or other data, or unreadable settings.
        """
        settings, data = plain(self.config), self.folder / "data.sha256"
        try:
            previous = yaml.safe_load(file.read_text("utf-8")) if file.exists() else None
        except NO_YAML:
            previous = ""
        if previous is not None and (self.carry.exists() or any(self.checkpoints.iterdir())):
            if not isinstance(previous, dict):
                raise UserError(f"{file} holds no settings: remove it to go on with these, or choose another out=.")
            known = plain(type(self.config)(data="any", out="any")) | previous  # settings may have come since
            same_data = not data.exists() or data.read_bytes() == self.content.encode()
            free = CHANGEABLE | PATHS if same_data else CHANGEABLE
            changed = [key for key, value in settings.items() if known.get(key) != value and key not in free]
            changed += [] if same_data or "data" in changed else ["data"]
            if changed:
                raise UserError(
                    f"{self.folder} holds a run with other settings ({', '.join(changed)}): choose another out=."
                )
        write_text(file, yaml.safe_dump(settings, sort_keys=False))
        write_text(data, self.content)

    def log(self, step: int, **values: float) -> None:
        """Append one line to metrics.jsonl, and tell the tracker."""
        if self.accelerator.is_main_process:
            with survived("the log"):
                rounded = {key: round(value, 6) for key, value in values.items()}
                append(self.folder / "metrics.jsonl", {"step": step, **rounded})
                self.accelerator.log(values, step)

    def finish(self) -> None:
        """Let the tracker write what it still holds."""
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def validated(self, step: int, scores: dict[str, float], rows: list[list[Tensor]]) -> str:
        """Keep a validation's scores and pictures.

        Args:
            step: after which it was made.
            scores: by name.
            rows: of pictures (3, H, W) in [0, 1], of one height a row.

        Returns:
            A line with the scores.
        """
        self.log(step, **scores)
        self.picture(step, rows)
        return f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items())

    def picture(self, step: int, rows: list[list[Tensor]]) -> None:
        """samples/<step>.png: rows of equally large images (3, H, W) in [0, 1]."""
        height, width = rows[0][0].shape[-2:]
        tiles = torch.stack([torch.stack([centre(image, height, width) for image in row]) for row in rows])
        pixels = rearrange(tiles.clamp(0, 1), "n m c h w -> (n h) (m w) c").mul(255).round().byte().numpy()
        file = self.folder / "samples" / f"{step:07d}.png"
        with survived("the samples"):
            file.parent.mkdir(exist_ok=True)
            with whole_file(file) as partial:
                Image.fromarray(np.ascontiguousarray(pixels)).save(partial)

    def save(self, step: int) -> None:
        """checkpoints/<step>: all that an exact resume needs. Older ones are removed once the new one is complete."""
        partial = self.checkpoints / ".partial"
        if self.accelerator.is_main_process and partial.exists():  # of a run that was killed
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        self.accelerator.wait_for_everyone()
        written = torch.zeros((), device=self.accelerator.device)
        with survived(f"checkpoint {step}"):
            self.accelerator.save_state(str(partial))
            (partial / SOURCES).write_text(json.dumps(self.sources))
            for weights in partial.glob("*.safetensors"):  # which safetensors 0.8 makes private
                shutil.copymode(partial / SOURCES, weights)
            written.fill_(1)
        complete = bool(self.accelerator.reduce(written, "mean") == 1)
        if self.accelerator.is_main_process and not complete:
            shutil.rmtree(partial, ignore_errors=True)
        elif self.accelerator.is_main_process:
            replace_folder(partial, self.checkpoints / f"{step:07d}")
            if self.config.carry:
                self.carry_over(step)
            for old in self.saved_steps()[self.config.keep :]:
                shutil.rmtree(self.checkpoints / f"{old:07d}")

    def carry_over(self, step: int) -> None:
        """carry.safetensors: the latest state in little space."""
        with survived("carry.safetensors"), whole_file(self.carry) as partial:
            self.carried.save(partial, step)

    def saved_steps(self) -> list[int]:
        """Steps of the complete checkpoints, latest first."""
        names = [place.name for place in self.checkpoints.iterdir() if place.is_dir() and place.name.isdecimal()]
        return sorted(map(int, names), reverse=True)

    def resume(self) -> int:
        """Load the latest usable checkpoint, else what was carried over.

        Returns:
            Its step, 0 if there is none.

        Raises:
            UserError: checkpoints are there, of which none can be read.
        """
        steps = self.saved_steps()
        for step in steps:
            checkpoint = self.checkpoints / f"{step:07d}"
            try:
                self.accelerator.load_state(str(checkpoint))
                self.check_sources(checkpoint / SOURCES)
                return step
            except DAMAGED as error:
                warnings.warn(f"checkpoint {step} cannot be read ({error}); trying the one before", stacklevel=2)
        if steps:
            raise UserError(f"none of the checkpoints in {self.checkpoints} can be read: remove them to start afresh.")
        if not self.carry.exists():
            return 0
        try:
            return self.carried.load(self.carry)
        except DAMAGED as error:
            raise UserError(f"{self.carry} cannot be read ({error}): remove it to start afresh.") from error

    def check_sources(self, recorded: Path) -> None:
        """Warn if the run began with other pretrained weights than are found now."""
        before = json.loads(recorded.read_text()) if recorded.exists() else self.sources
        changed = [name for name, sha256 in self.sources.items() if before.get(name) != sha256]
        if changed:
            warnings.warn(
                f"the pretrained weights of {', '.join(changed)} are not those of the run's start", stacklevel=3
            )

    @property
    def is_exported(self) -> bool:
        """Whether weights/ is there."""
        return (self.folder / "weights").is_dir()

    def export(self, model: StoredModule, step: int, scores: dict[str, float]) -> None:
        """weights/: config.json and model.safetensors, as `frfsr.load` takes them, and a model card."""
        with survived("the weights"), whole_folder(self.folder / "weights") as partial:
            model.save_pretrained(partial, model_card_kwargs={"origin": origin(self.config, step, scores)})


def tracker_options(config: RunConfig) -> dict[str, Any]:
    """List what an Accelerator must be given for the run's tracker.

    Args:
        config: names the tracker.

    Returns:
        Keyword arguments.

    Raises:
        UserError: the tracker is not installed.
    """
    if config.tracker == "none":
        return {}
    if config.tracker not in map(str, tracking.get_available_trackers()):
        raise UserError(
            f"tracker={config.tracker} is not installed: pip install {config.tracker}, or give tracker=none."
        )
    return {"log_with": config.tracker, "project_dir": config.out}


def plain(config: RunConfig) -> dict:
    """A config as YAML can hold it, without the folder it lies in."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(config).items() if key != "out"}


def origin(config: RunConfig, step: int, scores: dict[str, float]) -> Origin:
    """What the model card tells of a run: its settings without the places of files, and the last validation."""
    settings = {key: value for key, value in plain(config).items() if key not in (*PATHS, "validate_on", "init")}
    figures = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    text = (
        f"{step} of {config.steps} steps by a recipe of frfsr {version('frfsr')}. On the {config.held_back} pairs that "
        f"were held back: {figures} (PSNR in dB on Y).\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```"
    )
    psnr = {"psnr": scores["psnr"]} if "psnr" in scores else {}
    protocol = "PSNR on Y (BT.601, 16-235), border 4, 8 bits, LR by Pillow's bicubic; pairs held back from training"
    return Origin(text, results=measured(f"held-back pairs ({config.held_back})", psnr, protocol))


def centre(image: Tensor, height: int, width: int) -> Tensor:
    """The central (3, height, width) of an image, black where it is smaller."""
    image = image[:, : min(image.shape[1], height), : min(image.shape[2], width)].cpu()
    return torch.nn.functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))


def environment(accelerator: Accelerator) -> dict[str, str | int]:
    """What a reader needs to repeat the run."""
    git = subprocess.run(
        ["git", "-C", os.path.dirname(__file__), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
    )
    device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else platform.processor() or "cpu"
    return {
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "commit": git.stdout.strip() or "unknown",
        "device": device,
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "accelerate", "datasets", "frfsr")},
    }
