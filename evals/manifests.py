"""The random choices of the benchmarks, made once and frozen in manifests.json.

``python evals/manifests.py`` prints that file again from its seed. It is never run by an evaluation.
"""

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("manifests.json")
VERSION = 1
SEED = 2023
CUFEDR_POOL = {"urban100": 100, "manga109": 109, "sun80": 80}
PATCHES = {"easy": 2, "medium": 4, "hard": 8}


@dataclass(frozen=True)
class Manifests:
    """Positions count the images of a set in order of their names.

    Attributes:
        version: raised whenever a choice changes.
        sun80: which of its 20 references each of the 80 inputs gets.
        manga109: how many places after itself each of the 109 images finds its reference, going round.
        cufedr: for each of CUFED5's 126 inputs the set and the position of its reference.
        shuffles: per strength, orders of the reference's n x n patches; image i takes order i, going round.
    """

    version: int
    sun80: list[int]
    manga109: list[int]
    cufedr: list[tuple[str, int]]
    shuffles: dict[str, list[list[int]]]


@cache
def load_manifests() -> Manifests:
    """The frozen choices that come with the package."""
    values = json.loads(FILE.read_text())
    return Manifests(**(values | {"cufedr": [tuple(choice) for choice in values["cufedr"]]}))


def draw(seed: int) -> dict:
    """The content of manifests.json."""
    rng = random.Random(seed)
    pool = [(name, position) for name, count in CUFEDR_POOL.items() for position in range(count)]
    return {
        "version": VERSION,
        "sun80": [rng.randrange(20) for _ in range(80)],
        "manga109": [rng.randrange(1, 109) for _ in range(109)],
        "cufedr": [rng.choice(pool) for _ in range(126)],
        "shuffles": {strength: [rng.sample(range(n * n), n * n) for _ in range(16)] for strength, n in PATCHES.items()},
    }


if __name__ == "__main__":
    print(json.dumps(draw(SEED)))
