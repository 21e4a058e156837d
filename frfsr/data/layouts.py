"""Folder layouts of reference-based super-resolution data: which file is the reference of which."""

import csv
import json
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from frfsr.data.splits import named_split, split_folder
from frfsr.errors import UserError, one_line

IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff"),
    *(".gif", ".ppm", ".pgm", ".avif", ".heic", ".heif"),
}
METADATA_FILES = ("metadata.jsonl", "metadata.csv")
LAYOUTS = (
    "input/ + ref/ (CUFED, WR-SR), 000_0.png ... 000_5.png (CUFED5), a plain folder of images, an ImageFolder with "
    "metadata.jsonl, a Parquet pack or a Hub dataset with the columns input and reference(s)"
)


@dataclass(frozen=True)
class Fault:
    """What is wrong with one image or pair.

    Attributes:
        name: of the file, relative to the folder, or of the pair.
        reason: one line.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{one_line(self.name)}: {one_line(self.reason)}"


class FilePair(NamedTuple):
    """An input file and its reference files, most relevant first."""

    name: str
    input: Path
    references: list[Path]


@dataclass
class Layout:
    """What a folder holds; `faults` are files that are missing or have no partner."""

    kind: str
    pairs: list[FilePair] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def scan(path: Path, split: str) -> Layout:
    """Recognise the layout of a folder and pair up its files.

    Args:
        path: the folder, or its parent when it has a subfolder named like the split.
        split: train, validation, test or any other name.

    Returns:
        The pairs in order of their names.

    Raises:
        UserError: no folder, or a folder of no known layout.
    """
    if not path.is_dir():
        raise UserError(f"{path} is neither a folder nor a Parquet pack; expected {LAYOUTS}")
    folder = path if any((path / name).is_file() for name in METADATA_FILES) else _unwrapped(split_folder(path, split))
    if (folder / "input").is_dir() != (folder / "ref").is_dir():
        present, absent = ("input", "ref") if (folder / "input").is_dir() else ("ref", "input")
        raise UserError(f"{folder} has {present}/ but no {absent}/")
    metadata = next((folder / name for name in METADATA_FILES if (folder / name).is_file()), None)
    if metadata:
        layout = _scan_metadata(metadata, split)
    elif (folder / "input").is_dir():
        layout = _scan_input_ref(folder)
    elif (files := images(folder)) and any(re.fullmatch(r"\d+_0", file.stem) for file in files):
        layout = _scan_groups(files)
    else:
        layout = Layout("plain folder, no references", [FilePair(file.stem, file, []) for file in files])
    odd = [pair for pair in layout.pairs if not all(map(_is_text, (pair.input, *pair.references)))]
    layout.faults += [Fault(pair.name, "a file's name is no UTF-8: rename it") for pair in odd]
    layout.pairs = [pair for pair in layout.pairs if pair not in odd]
    if not layout.pairs and not layout.faults:
        raise UserError(f"{folder} holds no images; expected {LAYOUTS}")
    return layout


def _is_text(path: Path) -> bool:
    """Whether the path can be stored as text, which names of other encodings cannot."""
    return os.fsencode(path).isascii() or "\ufffd" not in os.fsencode(path).decode(errors="replace")


def _unwrapped(folder: Path) -> Path:
    """The folder, or the only one in it, as in test/CUFED5/ of the CUFED that TTSR and MASA train on."""
    entries = [entry for entry in folder.iterdir() if entry.name[0] != "."]
    only = entries[0] if len(entries) == 1 else folder
    return _unwrapped(only) if only.is_dir() and only != folder and only.name not in ("input", "ref") else folder


def images(folder: Path) -> list[Path]:
    """The image files of a folder in order of their names; those with a leading dot (macOS's ._x.png) are none."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and _is_file(entry)]
    return [folder / name for name in sorted(names) if Path(name).suffix.lower() in IMAGE_SUFFIXES]


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to one that is gone: that is not passed over but named when it is read."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry))
    except OSError:  # links in a circle
        return True


def _scan_input_ref(folder: Path) -> Layout:
    """``input/X.png`` has what its line in pairs.txt names, else ``ref/X.png``, ``ref/X_ref.png``, ``ref/X/*``."""
    layout = Layout("input/ + ref/")
    inputs = {file.name: file for file in images(folder / "input")}
    references = {file.name: file for file in images(folder / "ref")}
    subfolders = sorted(entry for entry in (folder / "ref").iterdir() if entry.is_dir() and entry.name[0] != ".")
    own = {several.name: {f"{several.name}/{file.name}": file for file in images(several)} for several in subfolders}
    if (folder / "pairs.txt").is_file():
        layout.kind += " + pairs.txt"
        named = named_pairs(folder / "pairs.txt", layout.faults)
    else:
        owned: dict[str, list[str]] = {}
        for name, file in references.items():
            owned.setdefault(file.stem.removesuffix("_ref"), []).append(name)
        for stem, files in own.items():
            owned.setdefault(stem, []).extend(files)
        named = {name: owned[file.stem] for name, file in inputs.items() if file.stem in owned}
    for files in own.values():
        references |= files
    missing = "missing"
    if any(" " in name for name in (*inputs, *references)):
        missing += " (in pairs.txt, put names with blanks into double quotes)"
    for name in sorted(named.keys() | inputs.keys()):
        faults = [Fault(f"input/{name}", missing)] if name not in inputs else []
        faults += [Fault(f"ref/{other}", missing) for other in named.get(name, []) if other not in references]
        if not named.get(name):
            faults.append(Fault(f"input/{name}", "no reference"))
        if faults:
            layout.faults += faults
        else:
            layout.pairs.append(FilePair(Path(name).stem, inputs[name], [references[other] for other in named[name]]))
    used = {other for others in named.values() for other in others}
    layout.faults += [Fault(f"ref/{other}", "no input") for other in sorted(references.keys() - used)]
    return layout


def named_pairs(file: Path, faults: list[Fault]) -> dict[str, list[str]]:
    """Input name -> names of its references, as pairs.txt has them; its bad lines are added to `faults`."""
    named: dict[str, list[str]] = {}
    for number, line in enumerate(file.read_text("utf-8-sig", errors="replace").splitlines(), start=1):
        lexer = shlex.shlex(line, posix=True)
        lexer.whitespace_split, lexer.quotes, lexer.escape = True, '"', ""
        try:
            words = list(lexer)
        except ValueError:
            faults.append(Fault(f"{file.name}, line {number}", "a double quote is not closed"))
            continue
        if words and words[0] in named:
            faults.append(Fault(f"{file.name}, line {number}", f"input/{words[0]} stands there for the second time"))
        elif words:
            named[words[0]] = words[1:]
    return named


def _scan_groups(files: list[Path]) -> Layout:
    """CUFED5: ``G_0.png`` is the input, ``G_1.png`` ... its references in order of falling relevance."""
    layout = Layout("CUFED5 groups")
    groups: dict[str, dict[int, Path]] = {}
    for file in files:
        if match := re.fullmatch(r"(\d+)_(\d+)", file.stem):
            groups.setdefault(match[1], {})[int(match[2])] = file
        else:
            layout.faults.append(Fault(file.name, "not named GROUP_NUMBER, as in 000_0.png"))
    for group, members in sorted(groups.items()):
        absent = [number for number in range(len(members)) if number not in members]
        layout.faults += [Fault(f"{group}_{number}", "missing") for number in absent]
        if len(members) == 1:
            layout.faults.append(Fault(f"{group}_0", "no reference"))
        elif not absent:
            layout.pairs.append(FilePair(f"{group}_0", members[0], [members[number] for number in sorted(members)[1:]]))
    return layout


def _scan_metadata(file: Path, split: str) -> Layout:
    """ImageFolder: a row a pair; ``file_name`` is the input, columns such as ``reference_file_name`` its references."""
    layout = Layout(f"ImageFolder + {file.name}")
    rows = [(number, _file_names(row)) for number, row in _metadata_rows(file)]
    if any(_named_folder(names) for _, (names, _) in rows):
        rows = [(number, files) for number, files in rows if _named_folder(files[0]) == (named_split(split) or split)]
        if not rows:
            raise UserError(f"{file} names no images of the split {split}")
    with_references = any(references for _, (_, references) in rows)
    for number, (inputs, references) in rows:
        place = f"{file.name}, line {number}"
        if len(inputs) != 1:
            layout.faults.append(Fault(place, "no file_name"))
            continue
        faults = [Fault(name, "missing") for name in [*inputs, *references] if not os.path.isfile(file.parent / name)]
        if with_references and not references:
            faults.append(Fault(inputs[0], "no reference"))
        layout.faults += faults
        if not faults:
            name, reference_files = inputs[0], [file.parent / reference for reference in references]
            layout.pairs.append(FilePair(Path(name).stem, file.parent / name, reference_files))
    return layout


def _metadata_rows(file: Path) -> list[tuple[int, dict]]:
    """(line number, row) of metadata.jsonl or metadata.csv."""
    is_csv, rows = file.suffix == ".csv", []
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            read = csv.DictReader(lines) if is_csv else (json.loads(line) if line.strip() else None for line in lines)
            for row in read:
                rows.append((len(rows) + 1 + is_csv, row))
    except (ValueError, RecursionError, csv.Error) as error:
        kind = "CSV" if is_csv else "JSON"
        raise UserError(f"{file}, line {len(rows) + 1 + is_csv} is no {kind}: {error}") from error
    for number, row in rows:
        if isinstance(row, dict) and None in row:
            raise UserError(f"{file}, line {number} has more values than there are columns")
        if row is not None and not isinstance(row, dict):
            raise UserError(f"{file}, line {number} is no JSON object")
    return [(number, row) for number, row in rows if row is not None]


def _file_names(row: dict) -> tuple[list[str], list[str]]:
    """(input, references) of a row; ImageFolder's columns of files end in ``file_name`` or ``file_names``."""
    inputs, references = [], []
    for key, value in row.items():
        files = [str(name) for name in (value if isinstance(value, list) else [value]) if name]
        column = re.sub(r"_?file_names?$", "", key)
        if column in ("reference", "references", "ref", "refs"):
            references += files
        elif column in ("", "input", "image"):
            inputs += files
    return inputs, references


def _named_folder(names: list[str]) -> str | None:
    """The split that the first folder of a file's name stands for."""
    parts = Path(names[0]).parts if names else ()
    return named_split(parts[0]) if len(parts) > 1 else None
