"""Benchmarks: what each set must contain, and which image is whose reference under each rule of the paper."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset

from frfsr.data.pairs import decode_image, open_pairs, stored_bytes
from frfsr.degrade import crop_to_multiple, reorder_patches, upscale_bicubic
from frfsr.errors import UserError
from frfsr.evals.choices import BENCHMARKS, ReferenceRule, read_data, rules
from frfsr.evals.manifests import CUFEDR_POOL, load_manifests
from frfsr.evals.protocol import Protocol


@dataclass(frozen=True)
class Sample:
    """One image to super-resolve, uint8 RGB (height, width, 3).

    Attributes:
        name: of the image.
        hr: the truth, its sides multiples of 4.
        lr: a quarter of the size of `hr`.
        references: of any sizes.
    """

    name: str
    hr: np.ndarray
    lr: np.ndarray
    references: list[np.ndarray]


@dataclass(frozen=True)
class Item:
    """One image of a test set, its files not yet decoded (``{"bytes", "path"}``, one of them None).

    Attributes:
        name: of the image.
        input: the truth.
        references: most relevant first.
        order: of the patches of a shuffled reference, empty if it is not shuffled.
        enlarged: the enlarged LR stands in for a reference.
    """

    name: str
    input: dict
    references: tuple[dict, ...] = ()
    order: tuple[int, ...] = ()
    enlarged: bool = False

    def truth(self) -> np.ndarray:
        """Decode the HR image, (4h, 4w, 3) uint8.

        Raises:
            UserError: the file is broken, or the image too small.
        """
        hr = crop_to_multiple(np.asarray(decode_image(self.input)))
        if min(hr.shape[:2]) == 0:
            raise UserError("smaller than 4x4 pixels")
        return hr

    def load(self, protocol: Protocol) -> Sample:
        """Decode the images and make the LR.

        Args:
            protocol: says how the LR is made.

        Returns:
            The images of the sample.

        Raises:
            UserError: a file is broken.
        """
        hr = self.truth()
        lr = protocol.low(hr)
        references = [np.asarray(decode_image(file)) for file in self.references]
        if self.enlarged:
            references.append(upscale_bicubic(lr, protocol.interpolation))
        if self.order:
            references = [reorder_patches(reference, self.order) for reference in references]
        return Sample(self.name, hr, lr, references)

    def fingerprint(self, with_references: bool = True) -> str:
        """Hash all that `load` depends on besides the protocol.

        Args:
            with_references: count the references too.

        Returns:
            SHA-256 in hexadecimal digits.

        Raises:
            UserError: a file is missing.
        """
        digest = hashlib.sha256(str((self.order, self.enlarged) if with_references else ()).encode())
        for file in (self.input, *(self.references if with_references else ())):
            digest.update(hashlib.sha256(stored_bytes(file)).digest())
        return digest.hexdigest()


class TestSet:
    """The images of one folder, pack or Hub dataset under one rule for the references; a sequence of `Item`.

    Args:
        name: a key of `BENCHMARKS`, or any other name for data of one's own.
        path: anything that `frfsr.data.load_pairs` reads.
        reference: which reference each image gets:
            ``true``: as its benchmark says: its own of the given level (CUFED5, WR-SR), a frozen random choice among
            its own (Sun80) or among the other images (Manga109), its LR enlarged by bicubic interpolation (sets
            without references);
            ``all``: all its own at once; ``lr``: the enlarged LR; ``none``: no reference;
            ``rotated``: what the image half the set further on has (its truth where the set has no references), which
            shows something else. Not the next image: in WR-SR the reference of one can be the very photo of its
            neighbour;
            ``easy``, ``medium``, ``hard``: the true one cut into 2x2, 4x4 or 8x8 patches in frozen random orders;
            ``cufedr``: a frozen random choice among the images of Urban100, Manga109 and Sun80.
        level: which of several own references, 1 for the most relevant.
        split: of a Hub dataset, or the subfolder of that name.
        pool: for ``cufedr``, the three sets by their keys in `BENCHMARKS`.

    Frozen choices count images by name. In a set that is not complete they go round among those present.

    Raises:
        UserError: no such data, rule or level.

    Examples:
        >>> from frfsr import evals
        >>> test_set = evals.TestSet("set5", "set5", reference="rotated")
        >>> test_set.label, [item.name for item in test_set]
        ('Set5 (2 of 5)', ['circle', 'ramp'])
        >>> sample = test_set[0].load(evals.Protocol())
        >>> sample.hr.shape, sample.lr.shape, len(sample.references)
        ((64, 80, 3), (16, 20, 3), 1)
    """

    __test__ = False  # no pytest class

    def __init__(
        self,
        name: str,
        path: str | Path,
        reference: ReferenceRule = "true",
        level: int = 1,
        split: str = "test",
        pool: "Mapping[str, TestSet] | None" = None,
    ) -> None:
        if reference not in rules():
            raise UserError(f"unknown rule for references {reference!r}; there are {', '.join(rules())}")
        if level < 1:
            raise UserError(f"reference levels count from 1, got {level}")
        self.name, self.path, self.reference, self.level = name, path, reference, level
        self.benchmark = BENCHMARKS.get(name)
        self.title = self.benchmark.title if self.benchmark else name
        pairs = open_pairs(path, split, decode=False)
        self.rows, self.faults = cast(Dataset, pairs.rows), pairs.faults  # no stream was asked for
        self.names: list[str] = list(self.rows["name"])
        self.pool = pool or {}
        if reference == "cufedr" and (absent := CUFEDR_POOL.keys() - self.pool.keys()):
            raise UserError(f"CUFEDR takes its references from sets that are missing: {', '.join(sorted(absent))}")
        if reference == "rotated" and len(self) < 2:
            raise UserError(f"{self.title}: rotated references need two images, there is {len(self)}")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(index)
        order: tuple[int, ...] = ()
        if self.reference in ("easy", "medium", "hard"):
            orders = load_manifests().shuffles[self.reference]
            order = tuple(orders[index % len(orders)])
        references = self._references(index)
        enlarged = not references and self.reference != "none"
        return Item(self.names[index], self.input(index), references, order, enlarged)

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def input(self, index: int) -> dict:
        """The stored file of an HR image."""
        return self._column("input", index)

    @property
    def label(self) -> str:
        """Title, and ``n of N`` when the set is not complete."""
        if self.benchmark is None or len(self) == self.benchmark.count:
            return self.title
        return f"{self.title} ({len(self)} of {self.benchmark.count})"

    @property
    def notes(self) -> list[str]:
        """What is missing or unexpected, one line each."""
        if self.benchmark is None:
            return []
        notes = []
        if len(self) != self.benchmark.count:
            notes.append(f"{self.label}: the complete set is {self.benchmark.source}")
        if strange := [name for name in self.names if not re.fullmatch(self.benchmark.names, name)]:
            notes.append(f"{self.title}: {len(strange)} unexpected names, for example {strange[0]}")
        return notes

    def _column(self, name: str, index: int) -> Any:
        """One value, without the other columns' images being read."""
        return self.rows.select_columns(name)[index][name]

    def _references(self, index: int) -> tuple[dict, ...]:
        if self.reference in ("lr", "none"):
            return ()
        if self.reference == "cufedr":
            key, position = load_manifests().cufedr[index % BENCHMARKS["cufed5"].count]
            return (self.pool[key].input(position % len(self.pool[key])),)
        owner = (index + len(self) // 2) % len(self) if self.reference == "rotated" else index
        own = self._column("references", owner)
        if own:
            return self._choose(own, owner)
        if owner != index:
            return (self.input(owner),)
        if self.level > 1:
            raise UserError(f"there is no reference of level {self.level}, only the enlarged LR")
        if self.name == "manga109" and len(self) > 1:
            step = load_manifests().manga109[index % BENCHMARKS["manga109"].count]
            return (self.input((index + 1 + (step - 1) % (len(self) - 1)) % len(self)),)
        return ()

    def _choose(self, own: list[dict], owner: int) -> tuple[dict, ...]:
        if self.reference == "all":
            return tuple(own)
        if self.name == "sun80":
            return (own[load_manifests().sun80[owner % BENCHMARKS["sun80"].count] % len(own)],)
        if self.level > len(own):
            raise UserError(f"there is no reference of level {self.level}, only {len(own)}")
        return (own[self.level - 1],)


def as_test_set(benchmark: TestSet | str | Path) -> TestSet:
    """Give a test set as it is, or the one that `read_data` finds.

    Args:
        benchmark: a test set, ``NAME=PATH``, or a folder that is named like a benchmark.

    Returns:
        The test set.

    Raises:
        UserError: there is none, or there are several.
    """
    if isinstance(benchmark, TestSet):
        return benchmark
    found = read_data([benchmark])
    if len(found) > 1:
        raise UserError(f"{benchmark} holds {', '.join(found)}: give one of them, for example {benchmark}/wrsr.")
    ((name, path),) = found.items()
    return TestSet(name, path)
