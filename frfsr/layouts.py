"""Folder layouts of reference-based super-resolution data: which file is the reference of which."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from frfsr.errors import UserError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
LAYOUTS = (
    "input/ + ref/ (CUFED, WR-SR), 000_0.png ... 000_5.png (CUFED5), a plain folder of images, "
    "a Parquet pack or a Hub dataset with the columns input and reference(s)"
)


@dataclass
class Layout:
    """What a folder holds: ``pairs`` of (name, input file, reference files), and ``faults``, one line each."""

    kind: str
    pairs: list[tuple[str, Path, list[Path]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def scan(path: Path, split: str) -> Layout:
    """Recognises the layout of a folder and pairs up its files.

    Args:
        path: the folder, or its parent when it has a subfolder named ``split``.

    Raises:
        UserError: no folder, or a folder of no known layout.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_dir():
        raise UserError(f"{path} is neither a folder nor a Parquet pack; expected {LAYOUTS}")
    folder = split_folder(path, split)
    if (folder / "input").is_dir() != (folder / "ref").is_dir():
        present, absent = ("input", "ref") if (folder / "input").is_dir() else ("ref", "input")
        raise UserError(f"{folder} has {present}/ but no {absent}/")
    if (folder / "input").is_dir():
        layout = _scan_input_ref(folder)
    elif (files := images(folder)) and any(re.fullmatch(r"\d+_0", file.stem) for file in files):
        layout = _scan_groups(files)
    else:
        layout = Layout("plain folder, no references", [(file.stem, file, []) for file in files])
    if not layout.pairs and not layout.faults:
        raise UserError(f"{folder} holds no images; expected {LAYOUTS}")
    return layout


def split_folder(path: Path, split: str) -> Path:
    """The subfolder named like the split if there is one, else ``path`` itself."""
    return path / split if (path / split).is_dir() else path


def _scan_input_ref(folder: Path) -> Layout:
    """``input/X.png`` has what its line in pairs.txt names, else ``ref/X.png``, ``ref/X_ref.png``, ``ref/X/*``."""
    layout = Layout("input/ + ref/")
    inputs = {file.name: file for file in images(folder / "input")}
    references = {file.name: file for file in images(folder / "ref")}
    if (folder / "pairs.txt").is_file():
        layout.kind += " + pairs.txt"
        named = {line[0]: line[1:] for line in _lines(folder / "pairs.txt")}
    else:
        owned: dict[str, list[str]] = {}
        for name, file in references.items():
            owned.setdefault(file.stem.removesuffix("_ref"), []).append(name)
        for several in (entry for entry in sorted((folder / "ref").iterdir()) if entry.is_dir()):
            files = {f"{several.name}/{file.name}": file for file in images(several)}
            references |= files
            owned.setdefault(several.name, []).extend(files)
        named = {name: owned[file.stem] for name, file in inputs.items() if file.stem in owned}
    for name in sorted(named.keys() | inputs.keys()):
        missing = [f"input/{name} is missing"] if name not in inputs else []
        missing += [f"ref/{other} is missing" for other in named.get(name, []) if other not in references]
        if not named.get(name):
            missing.append(f"input/{name} has no reference")
        if missing:
            layout.faults += missing
        else:
            layout.pairs.append((Path(name).stem, inputs[name], [references[other] for other in named[name]]))
    used = {other for others in named.values() for other in others}
    layout.faults += [f"ref/{other} has no input" for other in sorted(references.keys() - used)]
    return layout


def _scan_groups(files: list[Path]) -> Layout:
    """CUFED5: ``G_0.png`` is the input, ``G_1.png`` ... its references in order of falling relevance."""
    layout = Layout("CUFED5 groups")
    groups: dict[str, dict[int, Path]] = {}
    for file in files:
        if match := re.fullmatch(r"(\d+)_(\d+)", file.stem):
            groups.setdefault(match[1], {})[int(match[2])] = file
        else:
            layout.faults.append(f"{file.name} is not named GROUP_NUMBER, as in 000_0.png")
    for group, members in sorted(groups.items()):
        absent = sorted(set(range(max(members) + 1)) - members.keys())
        layout.faults += [f"{group}_{number} is missing" for number in absent]
        if len(members) == 1:
            layout.faults.append(f"{group}_0 has no reference")
        elif not absent:
            layout.pairs.append((f"{group}_0", members[0], [members[number] for number in sorted(members)[1:]]))
    return layout


def images(folder: Path) -> list[Path]:
    """The image files of a folder, by their suffixes, in order of their names."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def _lines(file: Path) -> Iterator[list[str]]:
    """The words of each line that is neither empty nor a comment."""
    for line in file.read_text("utf-8", errors="replace").splitlines():
        if words := line.split("#")[0].split():
            yield words
