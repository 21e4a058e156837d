"""The command `frfsr`. Torch is imported by the subcommands that compute, so that help and mistakes answer at once."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version

from frfsr.errors import ImageWarning, UserError
from frfsr.evals import commands as evaluation

UPSCALE_EXAMPLES = """examples:
  frfsr upscale photo.png --reference sharp.png -o out.png
  frfsr upscale scan.tif --reference day1.jpg day2.jpg -o scan_x4.tif --device cuda --dtype bfloat16
  frfsr upscale photo.png --reference sharp.png -o out.png --base RCAN_BIX4.pth
  frfsr upscale huge.jpg -o huge_x4.png --tile 128      (no reference: what the network makes of the photo alone)
"""
CONVERT_EXAMPLES = """examples:
  frfsr convert net_g.pth out/ --arch frfsr-reuse
  frfsr convert net_g=rec.pth extractor=contras.pth vgg=vgg19.pth rrdb=RRDB_PSNR_x4.pth out/ --arch frfsr
"""
TRAIN_EXAMPLES = """examples:
  frfsr train tiny_sife data=pairs.parquet out=runs/sife
  frfsr train tiny_rec data=pairs.parquet out=runs/rec minutes=150      (the same command goes on)
  frfsr train frfsr_rec data=CUFED out=runs/rec --processes 4
"""
PROBLEM = 2  # exit code for bad input, the same that argparse uses


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for findings, 2 for bad input, 130 when interrupted."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its warnings about a wrong name would bury our one line
    options = build_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            return options.run(options)
    except UserError as error:
        print("frfsr:", *str(error).split(), file=sys.stderr)
        return PROBLEM
    except KeyboardInterrupt:
        return 130


def show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_, **__) -> None:
    """Print a warning about a file in one line; any other as Python does."""
    is_ours = issubclass(category, ImageWarning)
    text = f"frfsr: {message}\n" if is_ours else warnings.formatwarning(message, category, filename, lineno)
    sys.stderr.write(text)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="frfsr", description="Reference-based super-resolution: photos four times as large, with real textures."
    )
    parser.add_argument("--version", action="version", version=f"frfsr {version('frfsr')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    upscale = add_command(commands, "upscale", run_upscale, "enlarge a photo four times", UPSCALE_EXAMPLES)
    upscale.add_argument("input", help="the photo: PNG, JPEG, WebP, TIFF, ...; 8 or 16 bits, grey, colour, with alpha")
    upscale.add_argument("-o", "--output", required=True, metavar="FILE", help=".png, .jpg, .webp or .tif; 4x the size")
    upscale.add_argument(
        "--reference",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="sharp photos of similar content, of any size; best at about the scale of the output",
    )
    upscale.add_argument(
        "--model", default="frfsr-tiny", metavar="NAME", help="packaged name, folder or Hub id (%(default)s)"
    )
    upscale.add_argument(
        "--base", metavar="NAME", help="file, folder or name of a single-image network: its image is refined"
    )
    upscale.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="largest size that is read, width times height (268 million); for files that you trust",
    )
    upscale.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    upscale.add_argument("--dtype", help="float32 (default), bfloat16 or float16")
    upscale.add_argument(
        "--tile", type=int, metavar="N", help="side in input pixels of the pieces; smaller takes less memory"
    )
    upscale.add_argument(
        "--strength", type=float, metavar="S", help="0 ... 1: how much of the references' part is taken (1)"
    )
    upscale.add_argument(
        "--upsampled", metavar="HOW", help="exact (default) or 8-bit: the enlarged photo rounded, as evaluations do"
    )
    upscale.add_argument(
        "--views",
        metavar="N",
        help="auto (default): references are looked at resized and turned too; off; or how many views of each are used",
    )
    upscale.add_argument(
        "--max-memory", metavar="SIZE", help="for example 2GB; by default most of what is free may be taken"
    )
    upscale.add_argument("-q", "--quiet", action="store_true", help="no progress bar")

    evaluate = add_command(commands, "eval", evaluation.run, "measure PSNR and SSIM on test sets")
    evaluation.add_arguments(evaluate)

    data = commands.add_parser("data", help="prepare training and test pairs")
    data_commands = data.add_subparsers(metavar="COMMAND", required=True)
    pack = add_command(data_commands, "pack", run_data_pack, "put the pairs of a folder into one Parquet file")
    pack.add_argument("source", metavar="PAIRS", help="folder (CUFED, CUFED5, WR-SR, ImageFolder), packs or Hub id")
    pack.add_argument("output", metavar="out.parquet")
    pack.add_argument("--split", default="train", metavar="NAME", help="train (default), test, train[:100], ...")
    check = add_command(
        data_commands, "check", run_data_check, "report count, sizes, and what is wrong with the images"
    )
    check.add_argument("source", metavar="PAIRS", help="folder (CUFED, CUFED5, WR-SR, ImageFolder), packs or Hub id")
    check.add_argument("--split", default="train", metavar="NAME", help="train (default), test, train[:100], ...")
    check.add_argument(
        "--crop", type=int, default=160, metavar="N", help="side of the training crops (160); 0: for evaluation only"
    )

    convert = add_command(
        commands, "convert", run_convert, "turn published checkpoints into safetensors", CONVERT_EXAMPLES
    )
    convert.add_argument(
        "checkpoint", nargs="+", metavar="[PART=]FILE", help=".pth or .safetensors; PART= for --arch frfsr"
    )
    convert.add_argument("output", metavar="DIR", help="folder for config.json and model.safetensors")
    convert.add_argument("--arch", required=True, help="frfsr, frfsr-reuse, extractor or rrdb")

    train = add_command(commands, "train", run_train, "train a network by a recipe", TRAIN_EXAMPLES)
    train.add_argument("recipe", help="a recipe's name, or a yaml file")
    train.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="changes to it; model.KEY=VALUE for the network"
    )
    train.add_argument("--processes", type=int, default=1, metavar="N", help="one for each GPU (%(default)s)")

    plot = add_command(commands, "plot", run_plot, "draw the curves of training runs in one picture")
    plot.add_argument("folders", nargs="+", metavar="RUN", help="run folders of the training recipes")
    plot.add_argument("-o", "--output", required=True, metavar="FILE", help=".png, .svg or .pdf")
    plot.add_argument(
        "--quantity", nargs="+", default=[], metavar="NAME", help="as in the log, for example l1 psnr; default: all"
    )

    info = add_command(commands, "info", run_info, "show a model's configuration and parameters by part")
    info.add_argument("model", nargs="?", default="frfsr-tiny", help="packaged name, folder or Hub id (%(default)s)")
    return parser


def add_command(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    examples: str | None = None,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def run_upscale(options: argparse.Namespace) -> int:
    from frfsr.imageio import MAX_PIXELS, check_output, read_photo, write_photo
    from frfsr.upscaling.options import Options, parse_memory, parse_views

    given = {name: getattr(options, name) for name in ("tile", "strength", "upsampled")}
    given["views"] = options.views and parse_views(options.views)
    given["max_memory"] = options.max_memory and parse_memory(options.max_memory)
    settings = Options(**{name: value for name, value in given.items() if value is not None})
    max_pixels = MAX_PIXELS if options.max_pixels is None else options.max_pixels
    inputs = [options.input, *options.reference]
    photo, *references = [read_photo(path, max_pixels=max_pixels) for path in inputs]
    height, width = photo.pixels.shape[:2]
    check_output(options.output, 4 * height, 4 * width, photo.has_alpha, inputs)

    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch: large tensors in huge pages, see docs/kernels.md
    from frfsr.architectures import load
    from frfsr.base import load_base
    from frfsr.upscaling.upscale import upscale_photo

    model = load(options.model, options.device, options.dtype)
    base = load_base(options.base, model) if options.base else None
    upscaled = upscale_photo(
        photo, references, model, settings, base=base, names=options.reference, progress=not options.quiet
    )
    for line in upscaled.report.warnings:
        print("frfsr: warning:", line, file=sys.stderr)
    if not options.quiet:
        for line in upscaled.report.notes:
            print("frfsr:", line, file=sys.stderr)
    write_photo(upscaled.photo, options.output)
    return 0


def run_data_pack(options: argparse.Namespace) -> int:
    from frfsr.data import pack

    print(f"{pack(options.source, options.output, options.split)} pairs in {options.output}")
    return 0


def run_data_check(options: argparse.Namespace) -> int:
    from frfsr.data_check import check

    report = check(options.source, options.split, options.crop)
    print(report)
    return 0 if report.ok else 1


def run_convert(options: argparse.Namespace) -> int:
    from frfsr.convert import convert_files

    convert_files(options.checkpoint, options.output, options.arch)
    return 0


def run_train(options: argparse.Namespace) -> int:
    from frfsr.recipes.config import load_config

    if options.processes < 1:
        raise UserError(f"--processes must be at least 1, got {options.processes}.")
    load_config(options.recipe, options.settings)  # mistakes are answered before torch is imported
    from frfsr.recipes.launch import launch

    return launch(options.recipe, options.settings, options.processes)


def run_plot(options: argparse.Namespace) -> int:
    from frfsr.recipes.plot import plot

    plot(options.folders, options.output, options.quantity)
    return 0


def run_info(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from frfsr.architectures import load

    model = load(options.model, device="cpu")
    for name, value in asdict(model.config).items():
        print(f"{name:20} {value}")
    print()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    for name, count in [*counts.items(), ("all", sum(counts.values()))]:
        print(f"{name:20} {count:12,} parameters  {4 * count / 2**20:8.2f} MiB")
    return 0
