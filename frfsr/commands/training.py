"""`frfsr train` and `plot`: training runs and their curves."""

import argparse

from frfsr.commands.arguments import add_command
from frfsr.errors import UserError

TRAIN_EXAMPLES = """examples:
  frfsr train tiny_sife data=pairs.parquet out=runs/sife
  frfsr train tiny_rec data=pairs.parquet out=runs/rec minutes=150      (the same command goes on)
  frfsr train frfsr_rec data=CUFED out=runs/rec --processes 4
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add `frfsr train` and `frfsr plot`."""
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


def run_train(options: argparse.Namespace) -> int:
    """Train.

    Args:
        options: of `frfsr train`.

    Returns:
        The exit code of the recipe.

    Raises:
        UserError: a mistake in the configuration, or less than one process.
    """
    from frfsr.recipes.config import load_config
    from frfsr.recipes.effects import require_effect

    if options.processes < 1:
        raise UserError(f"--processes must be at least 1, got {options.processes}.")
    config = load_config(options.recipe, options.settings)  # mistakes are answered before torch is imported
    require_effect(config, options.settings)
    from frfsr.recipes.launch import launch

    return launch(options.recipe, options.settings, options.processes)


def run_plot(options: argparse.Namespace) -> int:
    """Draw."""
    from frfsr.recipes.plot import plot

    plot(options.folders, options.output, options.quantity)
    return 0
