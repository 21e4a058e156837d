"""What a build found, took and left out."""

import statistics
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from frfsr.data.building.leakage import Leak
from frfsr.data.building.options import BuildOptions
from frfsr.data.layouts import Fault

SHOWN = 20  # lines of one kind that are printed


@dataclass
class Report:
    """Result of `frfsr.data.building.build`; ``str()`` is what ``frfsr data build`` prints, ``as_json()`` its file.

    Attributes:
        settings: with which it was made.
        benchmark_images: with which photos were compared.
        photos: found in the folder.
        skipped: photos that were not used, and why.
        leaks: photos that show what a benchmark shows; they were not used.
        compared: pairs of photos that were compared.
        matched: those of them that share enough places.
        dropped: why cells were left out -> how many.
        pairs: input and reference, in the pack.
        places: a photo of each place -> pairs of it. Photos that are linked by pairs are one place.
        zooms: size of the content in the reference over that in the input, of each pair.
        inliers: places that input and reference share, of each pair.
    """

    settings: BuildOptions
    benchmark_images: int = 0
    photos: int = 0
    skipped: list[Fault] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    compared: int = 0
    matched: int = 0
    dropped: Counter = field(default_factory=Counter)
    pairs: int = 0
    places: dict[str, int] = field(default_factory=dict)
    zooms: list[float] = field(default_factory=list)
    inliers: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self) | {"dropped": dict(self.dropped), "leaks": [leak._asdict() for leak in self.leaks]}

    def __str__(self) -> str:
        compared = f", compared with {self.benchmark_images} benchmark images" if self.benchmark_images else ""
        lines = [
            f"photos          {self.photos}{compared}",
            *_listed("skipped", self.skipped),
            *_listed("leak", [f"{leak.name}: as {leak.benchmark} ({leak.how})" for leak in self.leaks]),
            f"matched         {self.matched} of {self.compared} photos with another as their reference",
            *_listed("left out", [f"{count} cells: {reason}" for reason, count in self.dropped.most_common()]),
        ]
        if self.pairs:
            most = max(self.places.items(), key=lambda entry: entry[1])
            lines += [
                f"places          {len(self.places)}, most pairs from that of {most[0]}: {most[1]}",
                f"zoom            {_span(self.zooms, '.2f')}",
                f"shared points   {_span(self.inliers, '.0f')}",
            ]
        if self.pairs and not self.benchmark_images:
            lines.append("not checked     whether benchmarks show the same: --not-in FOLDER")
        return "\n".join([*lines, f"pairs           {self.pairs}"])


def _listed(title: str, entries: list) -> list[str]:
    lines = [f"{title:<16}{entry}" for entry in entries[:SHOWN]]
    return lines + ([f"{title:<16}... and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else [])


def _span(values: list, form: str) -> str:
    low, middle, high = (format(value, form) for value in (min(values), statistics.median(values), max(values)))
    return f"{low} to {high}, median {middle}"
