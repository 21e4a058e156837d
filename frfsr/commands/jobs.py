"""Which photos are enlarged with which references into which files; no torch."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from frfsr.data.layouts import IMAGE_SUFFIXES, Fault, images, named_pairs
from frfsr.errors import UserError
from frfsr.imageio import WRITE_FORMATS, is_same_file

STREAM = "-"  # standard input or output
SEPARATORS = "_-. "  # between a photo's name and the rest of a reference's


class Job(NamedTuple):
    """One photo: its file, its references' files, and the file that is written."""

    photo: str
    references: tuple[str, ...]
    output: str


class Plan(NamedTuple):
    """The jobs, and whether they are a batch: several, or of a folder, or into one."""

    jobs: list[Job]
    is_batch: bool


def plan(photos: Sequence[str], references: Sequence[str], output: str, pairs: str | None = None) -> Plan:
    """Find all files.

    Args:
        photos: files, folders, globs, or "-".
        references: files, folders or globs. Those of folders are paired by name if there are several photos; all
            others go with every photo.
        output: a file, a folder if there are several photos, or "-".
        pairs: file that names a photo and its references in each line, instead of pairing by name; photos and
            references are the folders where they lie, besides its own.

    Returns:
        What is to be done.

    Raises:
        UserError: nothing is found, names do not pair, or an output is an input or another job's output.
    """
    if not output:
        raise UserError("an empty name is given for the output: give a file or folder.")
    if pairs is not None:
        found = read_pairs(pairs, [*photos, *references])
    else:
        files = expand(photos)
        found = [(file, chosen) for file, chosen in zip(files, references_of(files, references), strict=True)]
    into_folder = Path(output).is_dir() or output.endswith(("/", os.sep))
    is_batch = len(found) > 1 or into_folder or pairs is not None or list(photos) != [found[0][0]]
    if is_batch:
        if not into_folder and (output == STREAM or Path(output).suffix.lower() in IMAGE_SUFFIXES):
            raise UserError(f"several photos, or a folder of them, need a folder: {output} is one file; give -o DIR/.")
        jobs = [Job(photo, chosen, str(Path(output, output_name(photo)))) for photo, chosen in found]
    else:
        jobs = [Job(photo, chosen, output) for photo, chosen in found]
    require_distinct(jobs)
    return Plan(jobs, is_batch)


def expand(names: Iterable[str]) -> list[str]:
    """Files of names: folders become their images, globs what they match; each file once, in order.

    Raises:
        UserError: a name finds no image.
    """
    found: list[str] = []
    for name in names:
        if not name:
            raise UserError("an empty name is given for a photo or reference: give a file, folder or glob.")
        if Path(name).is_dir():
            files = [str(file) for file in images(Path(name))]
            if not files:
                raise UserError(f"{name} is a folder without images.")
        elif glob.has_magic(name) and not Path(name).exists():
            matches = sorted(glob.glob(name, recursive=True))
            files = [match for match in matches if Path(match).suffix.lower() in IMAGE_SUFFIXES]
            if not files:
                raise UserError(f"no image is named like {name}.")
        else:
            files = [name]
        found += files
    return list(dict.fromkeys(found))


def references_of(photos: Sequence[str], names: Sequence[str]) -> list[tuple[str, ...]]:
    """The references of each photo; see `plan`.

    Raises:
        UserError: no reference is named like a photo.
    """
    folders = [Path(name) for name in names if Path(name).is_dir()] if len(photos) > 1 else []
    everyone = expand(name for name in names if Path(name) not in folders)
    if not folders:
        return [tuple(everyone)] * len(photos)
    stems = {Path(photo).stem for photo in photos}
    own: dict[str, list[str]] = {stem: [] for stem in stems}
    for folder in folders:
        for entry in sorted(folder.iterdir()):
            owner = owner_of(entry.name if entry.is_dir() else entry.stem, stems)
            if owner is None or entry.name.startswith("."):
                continue
            if entry.is_dir():
                own[owner] += map(str, images(entry))
            elif entry.suffix.lower() in IMAGE_SUFFIXES:
                own[owner].append(str(entry))
    alone = [photo for photo in photos if not own[Path(photo).stem]]
    if alone:
        listed = ", ".join(map(str, folders))
        raise UserError(
            f"no reference in {listed} is named like {alone[0]} ({len(alone)} of {len(photos)} photos have none): name "
            f"them alike, give --pairs FILE, or for all references with every photo '{folders[0]}/*'."
        )
    return [(*own[Path(photo).stem], *everyone) for photo in photos]


def owner_of(name: str, stems: Iterable[str]) -> str | None:
    """The photo to which a reference belongs: of the same name, or the longest with which its name begins."""
    fitting = [stem for stem in stems if name == stem or (name.startswith(stem) and name[len(stem)] in SEPARATORS)]
    return max(fitting, key=len, default=None)


def read_pairs(file: str, folders: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Read photos and their references from a file in the form of data/'s pairs.txt.

    Args:
        file: its path.
        folders: where the images lie, besides the file's own folder.

    Returns:
        Each photo with its references.

    Raises:
        UserError: the file cannot be read, or names what is not there.
    """
    strangers = [name for name in folders if not Path(name).is_dir()]
    if strangers:
        raise UserError(f"--pairs names the photos and references: {strangers[0]} is no folder in which they lie.")
    faults: list[Fault] = []
    try:
        named = named_pairs(Path(file), faults)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    if faults:
        raise UserError(str(faults[0]))
    if not named:
        raise UserError(f"{file} names no photo.")
    places = [*folders, str(Path(file).parent)]

    def find(name: str) -> str:
        paths = (Path(place, name) for place in places)
        return next((str(path) for path in paths if path.is_file()), str(Path(places[-1], name)))

    return [(find(photo), tuple(map(find, references))) for photo, references in named.items()]


def output_name(photo: str) -> str:
    """The photo's name, in its format where that can be written, else as PNG.

    Raises:
        UserError: the photo comes from standard input and has no name.
    """
    if photo == STREAM:
        raise UserError("a photo from standard input needs the name of one output file, or -.")
    path = Path(photo)
    return path.name if path.suffix.lower() in WRITE_FORMATS else f"{path.stem}.png"


def require_distinct(jobs: Sequence[Job]) -> None:
    """Refuse outputs that would overwrite another output, or any input.

    Args:
        jobs: all of a run.

    Raises:
        UserError: one would.
    """
    seen: dict[str, str] = {}
    for job in jobs:
        if job.output in seen:
            raise UserError(f"{seen[job.output]} and {job.photo} would both be written to {job.output}: rename one.")
        seen[job.output] = job.photo
    inputs = {name for job in jobs for name in (job.photo, *job.references)}
    by_place = {os.path.realpath(name): name for name in inputs if name != STREAM}
    for job in jobs:
        same = by_place.get(os.path.realpath(job.output)) or next(
            (name for name in (job.photo, *job.references) if is_same_file(job.output, name)), None
        )
        if same is not None and job.output != STREAM:
            raise UserError(f"{job.output} is the input {same}: it would be overwritten; give another output.")
