"""``frfsr data check``: what a source of pairs holds, and what is wrong with it for training or evaluation."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from PIL import Image as PILImage
from tqdm import tqdm

from frfsr.data.decoding import stored_bytes
from frfsr.data.layouts import Fault
from frfsr.data.pairs import decode_image, open_pairs, stored_rows
from frfsr.degrade import SCALE
from frfsr.errors import UserError

SHOWN = 20  # lines of one kind that are printed

Size = tuple[int, int]


@dataclass
class Report:
    """Result of `check`; ``str()`` is what ``frfsr data check`` prints.

    Attributes:
        kind: the layout.
        count: pairs whose files are all there.
        references: number of references of each.
        sizes: (width, height) of every input that can be read.
        reference_sizes: (width, height) of every reference that can be read.
        unpaired: files that are missing or have no partner.
        unreadable: images that cannot be decoded.
        unsuitable: images that are too small for any use.
        small: inputs that are smaller than the crop, unless all images have one size.
        repeated: pairs or names that come a second time, inputs that are their own reference: noted, but no faults.
        leaks: images that show what a benchmark shows.
    """

    kind: str
    count: int = 0
    references: list[int] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    reference_sizes: list[Size] = field(default_factory=list)
    unpaired: list[Fault] = field(default_factory=list)
    unreadable: list[Fault] = field(default_factory=list)
    unsuitable: list[Fault] = field(default_factory=list)
    small: list[Fault] = field(default_factory=list)
    repeated: list[Fault] = field(default_factory=list)
    leaks: list[Fault] = field(default_factory=list)

    @property
    def faults(self) -> list[Fault]:
        """All that is wrong."""
        return self.unpaired + self.unreadable + self.unsuitable + self.small + self.leaks

    @property
    def notes(self) -> list[str]:
        """What training and evaluation cope with, but the owner of the data may not have meant."""
        odd = sum(width % SCALE > 0 or height % SCALE > 0 for width, height in self.sizes)
        notes = [f"sides of {odd} inputs are no multiples of {SCALE}: cut at the right and bottom"] if odd else []
        if len(set(self.reference_sizes)) > 1:
            notes.append("references differ in size: training cuts or mirrors them to one size")
        return notes + [str(fault) for fault in self.repeated]

    @property
    def ok(self) -> bool:
        """Whether there is something, and nothing is wrong."""
        return self.count > 0 and not self.faults

    def __str__(self) -> str:
        numbers = sorted({min(self.references), max(self.references)} if self.references else {0})
        lines = [
            f"layout          {self.kind}",
            f"pairs           {self.count}",
            f"references      {' to '.join(map(str, numbers))} per input",
            *_span("input size", self.sizes),
            *_span("reference size", self.reference_sizes),
        ]
        for title in ("notes", "unpaired", "unreadable", "unsuitable", "small", "leaks"):
            found = getattr(self, title)
            lines += [f"{title:<16}{line}" for line in found[:SHOWN]]
            if len(found) > SHOWN:
                lines.append(f"{title:<16}... and {len(found) - SHOWN} more")
        count = len(self.faults)
        return "\n".join([*lines, "ok" if self.ok else f"{count} fault{'s' if count != 1 else ''}"])


def check(
    source: str | Path,
    split: str = "train",
    crop: int = 0,
    *,
    not_in: Sequence[str | Path] = (),
    revision: str | None = None,
    token: str | bool | None = None,
) -> Report:
    """Read every image of a source of pairs; report what is there and what is wrong.

    Args:
        source: as for `frfsr.data.load_pairs`.
        split: as for `frfsr.data.load_pairs`.
        crop: side in pixels of the input crops of a training; 0 if the pairs are for evaluation.
        not_in: folders and packs of benchmarks, none of which may show what an image shows; needs the extra build.
        revision: as for `frfsr.data.load_pairs`.
        token: as for `frfsr.data.load_pairs`.

    Returns:
        What is there, and what is wrong.

    Raises:
        UserError: there is no such source, or its content matches no layout at all.
    """
    if crop < 0:
        raise UserError(f"the crop is {crop} pixels: it must be a side, or 0 for evaluation only.")
    pairs = open_pairs(source, split, decode=False, revision=revision, token=token)
    report = Report(pairs.kind, unpaired=pairs.faults)
    leak_of = _leak_finder(not_in)
    seen: dict[str | bytes, str] = {}
    rows = pairs.rows
    assert isinstance(rows, Dataset)  # as it is no stream
    for row in tqdm(stored_rows(rows), total=len(rows), desc="checking", unit="pair", disable=None):
        report.count += 1
        report.references.append(len(row["references"]))
        _check_files(row, report, crop, leak_of)
        _check_repeated(row, report, seen)
    if len({*report.sizes, *report.reference_sizes}) == 1:  # small pieces of one size make batches as they are
        report.small.clear()
    return report


def _leak_finder(not_in: Sequence[str | Path]) -> Callable[[PILImage.Image], str | None]:
    """What tells, in one line, which benchmark image shows what an image shows."""
    if not not_in:
        return lambda image: None
    from frfsr.data.building.leakage import Benchmarks

    return Benchmarks(not_in).find_in


def _check_files(row: dict, report: Report, crop: int, leak_of: Callable[[PILImage.Image], str | None]) -> None:
    for place, file in enumerate([row["input"], *row["references"]]):
        name = f"{row['name']}, {f'reference {place}' if place else 'input'}"
        try:
            image = decode_image(file)
        except UserError as error:
            report.unreadable.append(Fault(name, str(error)))
            continue
        width, height = image.size
        if leak := leak_of(image):
            report.leaks.append(Fault(name, leak))
        (report.reference_sizes if place else report.sizes).append((width, height))
        if min(width, height) < SCALE:
            report.unsuitable.append(Fault(name, f"{width}x{height} is smaller than {SCALE}x{SCALE}"))
        elif not place and min(width, height) < crop:
            reason = f"{width}x{height} is smaller than the crop of {crop}, to which training mirrors it"
            report.small.append(Fault(name, reason))


def _check_repeated(row: dict, report: Report, seen: dict[str | bytes, str]) -> None:
    try:
        files = [hashlib.sha256(stored_bytes(file)).digest() for file in (row["input"], *row["references"])]
    except UserError:
        return  # is among the unreadable
    if files[0] in files[1:]:
        report.repeated.append(Fault(row["name"], "the input is its own reference"))
    keys = {"images": b"".join(files), "name": row["name"]}
    same = next((what for what, key in keys.items() if key in seen), None)
    if same:
        report.repeated.append(Fault(row["name"], f"the same {same} as pair {seen[keys[same]]}"))
    for key in keys.values():
        seen.setdefault(key, f"{report.count} ({row['name']})")


def _span(title: str, sizes: list[Size]) -> list[str]:
    """From the smallest to the largest, by area."""
    if not sizes:
        return []
    ends = sorted({min(sizes, key=math.prod), max(sizes, key=math.prod)}, key=math.prod)
    return [f"{title:<16}" + " to ".join(f"{width}x{height}" for width, height in ends)]
