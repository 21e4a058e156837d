"""Which of all cells go into the pack: caps, no cell twice or nearly so, and their order."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frfsr.data.building.cells import shared
from frfsr.data.building.options import BuildOptions

OVERLAP = 0.5  # of the area that inputs with references of different photos may share
BITS = 10  # of the 64 of a perceptual hash by which two cells must differ more


class Candidate(NamedTuple):
    """A cell that was cut.

    Attributes:
        input_photo: name of the photo of the input.
        reference_photo: name of the photo of the reference.
        file: of `frfsr.data.building.work.Work.cells`.
        rank: row in it, the best first.
        figures: the other columns of its row.
    """

    input_photo: str
    reference_photo: str
    file: Path
    rank: int
    figures: dict[str, Any]


def choose(candidates: list[Candidate], options: BuildOptions, dropped: Counter) -> list[Candidate]:
    """Take the best cells of every two photos in turn; why others are left out is added to `dropped`."""
    chosen: list[Candidate] = []
    of_photo: dict[str, list[tuple[int, int]]] = defaultdict(list)
    hashes = np.zeros(len(candidates), np.uint64)
    ranked = sorted(candidates, key=lambda entry: (entry.rank, -entry.figures["inliers"], entry[:2]))
    for candidate in ranked:
        left, top = candidate.figures["x"], candidate.figures["y"]
        own, taken = np.uint64(int(candidate.figures["hash"], 16)), of_photo[candidate.input_photo]
        if len(taken) >= options.per_photo:
            dropped["more than --per-photo"] += 1
        elif any(shared(left - x, top - y, options.cell) > OVERLAP for x, y in taken):
            dropped["same part of the photo as another cell"] += 1
        elif (np.bitwise_count(hashes[: len(chosen)] ^ own) <= BITS).any():
            dropped["nearly the same as another cell"] += 1
        else:
            hashes[len(chosen)] = own
            taken.append((left, top))
            chosen.append(candidate)
    return chosen


def by_place(chosen: list[Candidate], seed: int) -> dict[str, list[Candidate]]:
    """The cells of each place, named by one of its photos; places and their cells in random order.

    Photos that are linked by cells show one place. So the last rows, which training holds back for its validation, show
    other places than the first.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for candidate in chosen:
        first, second = sorted(map(root, candidate[:2]))
        parent[second] = first
    places: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in chosen:
        places[root(candidate.input_photo)].append(candidate)
    rng = np.random.default_rng(seed)
    names = sorted(places)
    return {
        names[place]: [places[names[place]][row] for row in rng.permutation(len(places[names[place]]))]
        for place in rng.permutation(len(names))
    }
