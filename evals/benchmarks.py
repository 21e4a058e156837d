"""Benchmarks: what each set must contain, which image is whose reference, and the LR made from the truth."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from datasets import Dataset
from PIL import Image

from frfsr.data import UNREADABLE, load_pairs
from frfsr.degrade import crop_to_multiple, downscale, upscale_bicubic
from frfsr.errors import UserError

ReferenceRule = Literal["true", "rotated", "lr", "all"]


@dataclass(frozen=True)
class Benchmark:
    """A set of the field.

    Attributes:
        title: name in tables.
        count: number of inputs of the complete set.
        source: where people usually get it, in one line.
    """

    title: str
    count: int
    source: str


BENCHMARKS = {
    "cufed5": Benchmark("CUFED5", 126, "000_0.png ... 125_5.png; published with SRNTT (ZZUTK/SRNTT on GitHub)"),
    "wrsr": Benchmark("WR-SR", 80, "input/, ref/, pairs.txt; published with C2-Matching (yumingj/C2-Matching)"),
    "sun80": Benchmark("Sun80", 80, "published with 'Super-resolution from internet-scale scene matching' (ICCP 2012)"),
    "urban100": Benchmark(
        "Urban100", 100, "img_001.png ... img_100.png; published with SelfExSR (jbhuang0604/SelfExSR)"
    ),
    "manga109": Benchmark("Manga109", 109, "one page per volume; on request from manga109.org"),
    "set5": Benchmark("Set5", 5, "HR images; published with SelfExSR (jbhuang0604/SelfExSR)"),
}


@dataclass(frozen=True)
class Sample:
    """One image to super-resolve, uint8 RGB (height, width, 3).

    Attributes:
        hr: the truth, its sides multiples of 4.
        lr: a quarter of the size of `hr`.
        references: of any sizes.
    """

    name: str
    hr: np.ndarray
    lr: np.ndarray
    references: list[np.ndarray]


@dataclass(frozen=True)
class Failure:
    """An image that could not be evaluated, and why, in one line."""

    name: str
    reason: str


class TestSet:
    """The images of one folder, pack or Hub dataset under one rule for the references.

    Args:
        name: a key of `BENCHMARKS`, or any other name for data of one's own.
        path: anything that `frfsr.data.load_pairs` reads.
        reference: ``true``: the image's own reference, or its enlarged LR where the set has none; ``all``: all its own
            references at once; ``lr``: the enlarged LR (bicubic); ``rotated``: the next image's own reference (its
            truth where the set has none), which shows something else.
        level: which of several own references, 1 for the most relevant.
        split: of a Hub dataset, or the subfolder of that name.

    Raises:
        UserError: no such data, or references are asked for that it does not have.
    """

    __test__ = False  # no pytest class

    def __init__(
        self, name: str, path: str | Path, reference: ReferenceRule = "true", level: int = 1, split: str = "test"
    ) -> None:
        self.name, self.reference, self.level = name, reference, level
        self.faults: list[str] = []
        self.pairs: Dataset = load_pairs(path, split=split, faults=self.faults)
        known = BENCHMARKS.get(name)
        self.title = known.title if known else name
        self.complete_count = known.count if known else None
        if level < 1:
            raise UserError(f"reference levels count from 1, got {level}")
        if reference == "rotated" and len(self.pairs) < 2:
            raise UserError(f"{self.title}: rotated references need two images, there is {len(self.pairs)}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Sample | Failure]:
        for index, name in enumerate(self.pairs["name"]):
            try:
                yield self._sample(index, name)
            except UNREADABLE as error:
                yield Failure(name, " ".join(str(error).split()))
        for fault in self.faults:
            yield Failure(fault.split()[0], fault)

    @property
    def label(self) -> str:
        """Title, and ``n of N`` when the set is not complete."""
        if self.complete_count in (None, len(self)):
            return self.title
        return f"{self.title} ({len(self)} of {self.complete_count})"

    def _sample(self, index: int, name: str) -> Sample:
        hr = crop_to_multiple(np.asarray(self._input(index)))
        if min(hr.shape[:2]) == 0:
            raise UserError(f"{name} is smaller than 4x4 pixels")
        lr = downscale(hr)
        return Sample(name, hr, lr, self._references(index, lr))

    def _references(self, index: int, lr: np.ndarray) -> list[np.ndarray]:
        if self.reference == "lr":
            return [upscale_bicubic(lr)]
        owner = (index + 1) % len(self) if self.reference == "rotated" else index
        own = self.pairs.select_columns("references")[owner]["references"]
        if self.reference == "all" and own:
            return [np.asarray(image) for image in own]
        if own and self.level > len(own):
            raise UserError(f"there is no reference of level {self.level}, only {len(own)}")
        if own:
            return [np.asarray(own[self.level - 1])]
        return [upscale_bicubic(lr) if owner == index else np.asarray(self._input(owner))]

    def _input(self, index: int) -> Image.Image:
        return self.pairs.select_columns("input")[index]["input"]
