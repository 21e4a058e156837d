"""Time stages rec and all on our kernels, and the same in plain PyTorch: `python recipes/speed_train.py`."""

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from frfsr.evals.machine import file_name, machine
from frfsr.evals.speed import measured_devices
from frfsr.evals.speed_stock import plain_pytorch
from frfsr.evals.tables import Table, number
from frfsr.files import write_text
from frfsr.recipes.config import TrainingConfig, load_config
from frfsr.recipes.ending import guarded
from frfsr.recipes.losses import vgg_features
from frfsr.recipes.setup import build_network

RECIPES = Path(__file__).parent
TRAINED = (  # device, recipe, and steps: half of them to warm up
    ("cpu", "tiny_rec.yaml", 12),
    ("cpu", "tiny_all.yaml", 4),
    ("cuda", "frfsr_rec.yaml", 60),
    ("cuda", "frfsr_all.yaml", 60),
)
PRECISIONS = ("no", "bf16")
PAIRS, SIDE = 16, 160  # of generated photos, as large as CUFED's
SETTINGS = ("held_back=1", f"crop={SIDE}")  # torchvision's deform_conv2d needs crops as large as the references


@dataclass(frozen=True)
class Throughput:
    """steps_per_s; data_wait: share of the time spent waiting for samples; peak_memory in MiB."""

    steps_per_s: float
    data_wait: float
    peak_memory: float


def run(out: str | Path = "evals/results", device: str | None = None) -> int:
    """Train for a few steps on generated pairs, print the table and write ``train-<machine>.md`` and ``.csv``.

    Networks start from random weights. A device that is not there is listed as not run.

    Args:
        out: the folder that gets the files.
        device: "cpu" or "cuda"; None: all there are.

    Returns:
        The exit code 0.

    Raises:
        UserError: the device is unknown or not there.
    """
    devices, rows = measured_devices(device), []
    facts = machine(devices)
    header = ["device", "recipe", "precision", "steps/s", "x stock", "data wait", "peak MiB"]
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder, "pairs"))
        for place, recipe, steps in TRAINED:
            if place not in devices:
                rows.append([place, recipe, "bf16", "not run", "", "", ""])
                continue
            stock = train_apart(Path(folder), recipe, steps, place, "no", plain=True)
            rows.append(row(place, recipe, "stock, fp32", stock, stock))
            for precision in PRECISIONS:
                ours = train_apart(Path(folder), recipe, steps, place, precision, plain=False)
                rows.append(row(place, recipe, {"no": "fp32"}.get(precision, precision), ours, stock))
    notes = [
        "stock: what RefSR code does in plain PyTorch, contiguous (NCHW), float32; ours: channels-last",
        f"{PAIRS} generated pairs of {SIDE}x{SIDE} pixels, one process, second half of the steps; time on the wall",
        *(f"{key}: {value}" for key, value in facts.items()),
    ]
    table = Table("Training speed", header, rows, notes)
    name = Path(out, f"train-{file_name(facts)}")
    name.parent.mkdir(parents=True, exist_ok=True)
    write_text(f"{name}.md", table.as_markdown())
    write_text(f"{name}.csv", table.as_csv())
    print(table.as_text())
    return 0


def row(device: str, recipe: str, precision: str, throughput: Throughput, stock: Throughput) -> list[str]:
    """Fill a line of the table.

    Args:
        device: cpu or cuda.
        recipe: its name.
        precision: of the training.
        throughput: on our kernels.
        stock: in plain PyTorch.

    Returns:
        The cells.
    """
    ratio = throughput.steps_per_s / stock.steps_per_s
    figures = [number(throughput.steps_per_s, 3), number(ratio, 2), f"{throughput.data_wait:.1%}"]
    return [device, recipe, precision, *figures, number(throughput.peak_memory, 0)]


def write_pairs(folder: Path) -> None:
    """Smooth noise as input/ and ref/, in JPEG files like those of real training sets."""
    rng = np.random.default_rng(0)
    for part in ("input", "ref"):
        (folder / part).mkdir(parents=True)
        for i in range(PAIRS):
            coarse = Image.fromarray(rng.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8))
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / part / f"{i:03d}.jpg", quality=95)


def write_weights(config: TrainingConfig, weights: Path, vgg: Path) -> None:
    """Random weights of the network that the recipe starts from and of its VGG: nothing has to be downloaded."""
    build_network(config.model | {"reuse": False}).save_pretrained(weights)
    layers = vgg_features(config.perceptual).state_dict()
    save_file({f"features.{name}": value for name, value in layers.items()}, vgg)


def train_apart(folder: Path, recipe: str, steps: int, device: str, precision: str, plain: bool) -> Throughput:
    """Call `train_once` in a process of its own, with its arguments.

    accelerate keeps one precision a process, and peaks of memory add up.

    Args:
        folder: see `train_once`.
        recipe: see `train_once`.
        steps: see `train_once`.
        device: see `train_once`.
        precision: see `train_once`.
        plain: see `train_once`.

    Returns:
        What it gives.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(train_once, folder, recipe, steps, device, precision, plain).result()


def train_once(folder: Path, recipe: str, steps: int, device: str, precision: str, plain: bool) -> Throughput:
    """Run the recipe on ``folder/pairs``.

    Args:
        folder: gets the run.
        recipe: its name.
        steps: how many.
        device: cpu or cuda.
        precision: no, bf16 or fp16.
        plain: in plain PyTorch instead of our kernels.

    Returns:
        Figures of the run's second half.
    """
    from accelerate import PartialState

    from frfsr.recipes.train import train

    out = folder / f"{recipe}-{device}-{precision}-{plain}"
    weights, vgg = folder / "weights", folder / "vgg.safetensors"
    start = f"data={folder / 'pairs'}", f"init={{all: {weights}}}", f"perceptual_weights={vgg}"
    run = f"out={out}", f"steps={steps}", f"log_every={steps // 2}", f"mixed_precision={precision}"
    config = load_config(recipe, [*SETTINGS, *start, *run], TrainingConfig)
    write_weights(config, weights, vgg)
    PartialState(cpu=device == "cpu")
    with plain_pytorch() if plain else nullcontext():
        train(config)
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in logged if "samples_per_s" in line][-1]
    return Throughput(last["samples_per_s"] / config.batch, last["data_wait"], last["peak_memory"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: by default those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", metavar="DIR", default="evals/results", help="folder for the tables (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ...; default: all there are")
    options = parser.parse_args(arguments)
    return guarded(lambda: run(options.out, options.device))


if __name__ == "__main__":
    sys.exit(main())
