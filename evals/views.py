"""What turned, resized, several and unrelated references are worth: one table, beside what they must be worth.

`python -m frfsr.evals.views --data DIR`, DIR being a test set with references, for example cufed5_sample; references
are altered before the network sees them, as people's are.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from frfsr.evals.benchmarks import Item, TestSet
from frfsr.evals.cache import ScoreCache
from frfsr.evals.choices import PUBLISHED
from frfsr.evals.claims import print_table, table_parser
from frfsr.evals.evaluation import Evaluation, evaluate
from frfsr.evals.protocol import Protocol
from frfsr.evals.tables import Table, failures, number
from frfsr.evals.upscalers import Altered, NetworkUpscaler, load_network, resized, short_name

TURNS = (90, 180, 270)
ZOOMS = (0.5, 0.71, 1.41, 2.0)
KEPT = 90  # per cent of the gain that an altered reference must keep
LOSS = 0.03  # dB that an image may lose by a choice of views, or by an unrelated reference


class Joined(TestSet):
    """Each image with its own reference, and that of an image which shows something else."""

    def __getitem__(self, index: int) -> Item:
        own = super().__getitem__(index)
        return replace(own, references=(*own.references, *self.others[index].references))

    @cached_property
    def others(self) -> TestSet:
        """The same images, each with the reference of another."""
        return TestSet(self.name, self.path, "rotated")


def measure(data: str | Path, off: NetworkUpscaler, cache: ScoreCache | None = None) -> dict[str, Evaluation]:
    """Evaluate everything that the table needs.

    Args:
        data: a test set.
        off: the network, which sees references as they are.
        cache: scores found here are not computed again.

    Returns:
        Results by what was done.

    Raises:
        UserError: there is no such data.
    """
    auto = NetworkUpscaler(off.model, off.name, replace(off.options, views="auto"), base=off.base)
    own = TestSet("references", data)

    def score(upscaler: NetworkUpscaler | Altered, test_set: TestSet = own) -> Evaluation:
        return evaluate(upscaler, test_set, Protocol(), cache)

    results = {
        "none": score(off, TestSet("references", data, "none")),
        "off": score(off),
        "auto": score(auto),
        "all": score(auto, TestSet("references", data, "all")),
        "unrelated": score(auto, Joined("references", data)),
    }
    for turn in TURNS:
        results[f"turned {turn}"] = score(Altered(auto, f"turned {turn}", partial(np.rot90, k=turn // 90)))
    for zoom in ZOOMS:
        there = partial(resized, zoom=zoom)
        results[f"x{zoom}"] = score(Altered(auto, f"x{zoom}", there))
        results[f"x{zoom} off"] = score(Altered(off, f"x{zoom}", there))
        results[f"x{zoom} by hand"] = score(Altered(auto, f"x{zoom} and back", partial(there_and_back, zoom=zoom)))
    return results


def there_and_back(image: np.ndarray, zoom: float) -> np.ndarray:
    """Resize (H, W, 3) uint8, and back to its size."""
    return resized(resized(image, zoom), size=image.shape[:2])


def views_table(results: dict[str, Evaluation]) -> Table:
    """Compare the results with what they must be.

    Args:
        results: of `measure`.

    Returns:
        A row for each claim.
    """
    psnr = {key: np.array([score.psnr_y for score in result.scores]) for key, result in results.items()}
    none, auto = psnr["none"], psnr["auto"]
    rows = []

    def compare(title: str, key: str, than: str) -> None:
        difference = psnr[key] - psnr[than]
        figures = [f"{number(value, 2)} dB" for value in (psnr[key].mean(), difference.mean(), difference.min())]
        rows.append([title, *figures, "-", verdict(difference.min() >= -LOSS)])

    def keep(title: str, key: str, best: np.ndarray) -> None:
        kept = 100 * (psnr[key] - none).sum() / (best - none).sum()
        figures = [f"{number(value, 2)} dB" for value in (psnr[key].mean(), (psnr[key] - best).mean())]
        worst = f"{number((psnr[key] - best).min(), 2)} dB"
        rows.append([title, *figures, worst, f"{number(kept, 0)} %", verdict(kept >= KEPT)])

    rows.append(["no reference", f"{number(none.mean(), 2)} dB", "-", "-", "-", "-"])
    compare("reference 1, views off; against none", "off", "none")
    compare("views auto; against off", "auto", "off")
    compare("all references; against the first", "all", "auto")
    compare("and an unrelated one; against without", "unrelated", "auto")
    for turn in TURNS:
        keep(f"turned by {turn}°; against untouched", f"turned {turn}", auto)
    for zoom in ZOOMS:
        best = np.maximum(psnr[f"x{zoom} off"], psnr[f"x{zoom} by hand"])
        keep(f"resized x{zoom}; against the better of as it is and resized back", f"x{zoom}", best)
    head = ["reference", "PSNR-Y", "difference", "worst image", "kept of the gain", "verdict"]
    must = f"must: no image worse by more than {LOSS} dB; altered ones keep {KEPT} % of the gain over no reference"
    notes = [must, *failures(list(results.values())), f"images: {len(none)}; protocol: {Protocol()}"]
    return Table(f"References of {results['auto'].model}", head, rows, notes)


def verdict(reached: bool) -> str:
    """In a word."""
    return "reached" if reached else "missed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table.

    Args:
        arguments: of the command line; by default those of the process.

    Returns:
        The exit code: 0, 1 if an image could not be measured, 2 for bad input.
    """
    parser = table_parser(__doc__, "a test set with references")
    options = parser.parse_args(arguments)

    def measured(cache: ScoreCache | None) -> dict[str, Evaluation]:
        network = load_network(options.model, options.device)
        return measure(options.data, NetworkUpscaler(network, short_name(options.model), PUBLISHED), cache)

    return print_table(options, measured, views_table)


if __name__ == "__main__":
    sys.exit(main())
