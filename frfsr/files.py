"""Files and folders that appear whole or not at all: what is written lies beside its place until it is complete."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any
from uuid import uuid4

from frfsr.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to; the file that lies there replaces `path` when the block ends without an error.

    A link is followed, so that what it points to is replaced. A file that is replaced passes on its mode.

    Args:
        path: the file's final place; its folder must exist. The path given has the same ending.

    Yields:
        An empty file beside `path`, removed when the block fails.

    Raises:
        UserError: the place cannot be written.
    """
    with _beside(path) as (partial, target):
        yield partial
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)


def require_writable(path: str | Path) -> None:
    """Try whether `whole_file` could write here, before the long work; nothing is left.

    Args:
        path: the file's final place.

    Raises:
        UserError: the place cannot be written.
    """
    with _beside(path):
        pass


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) whole or not at all.

    Args:
        path: its place.
        text: its content.

    Raises:
        UserError: the place cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty folder to fill; it replaces the folder `path` when the block ends without an error.

    Args:
        path: the folder's final place; its parent must exist. What it held before is removed.

    Yields:
        An empty folder beside `path`, removed when the block fails.

    Raises:
        OSError: the place cannot be written.
    """
    path = Path(path)
    restore_folder(path)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        replace_folder(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def added_to_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty folder to fill; its files move into another one at the end.

    Args:
        path: the other folder, made if needed. Other files in it stay; none is moved when the block fails.

    Yields:
        The empty folder.

    Raises:
        UserError: the place cannot be written.
    """
    if not str(path):
        raise UserError("an empty name is given for a folder: give another.")
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".partial-", dir=path) as partial:
            yield Path(partial)
            for name in sorted(os.listdir(partial)):
                os.replace(Path(partial, name), path / name)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}.") from error


def require_writable_folder(path: str | Path) -> None:
    """Try whether `added_to_folder` could write here, before the long work.

    Args:
        path: the folder, made if needed.

    Raises:
        UserError: the place cannot be written.
    """
    with added_to_folder(path):
        pass


def replace_folder(new: Path, final: Path) -> None:
    """Put the complete folder `new` in the place of `final`; a reader never sees a half-written one."""
    old = replaced_folder(final)
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    try:
        new.rename(final)
    finally:
        restore_folder(final)


def restore_folder(final: Path) -> None:
    """End what `replace_folder` was doing to `final` when it failed or was killed: what was there before comes back."""
    old = replaced_folder(final)
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(final)


def replaced_folder(final: Path) -> Path:
    """Where `replace_folder` keeps, for a moment, what was in the place of `final`."""
    return final.with_name(f".{final.name}.old")


def append(file: Path, values: dict[str, Any]) -> None:
    """Add a line of JSON, or nothing: a part of one, which a full disk leaves, would spoil the next."""
    length = file.stat().st_size if file.exists() else 0
    try:
        with file.open("ab+") as lines:
            lines.seek(max(length - 1, 0))
            start = b"" if lines.read() in (b"", b"\n") else b"\n"  # behind what a killed run has left
            lines.write(start + json.dumps(values).encode() + b"\n")
    except OSError:
        os.truncate(file, length)
        raise


def locked(path: str | Path, message: str) -> IO[bytes]:
    """Lock a file, where the system can, until it is closed or this process ends, however that happens.

    Args:
        path: of the file, made if needed.
        message: for the one that comes too late.

    Returns:
        The open file, to be kept.

    Raises:
        UserError: another process has locked it.
    """
    file = open(path, "ab")  # noqa: SIM115 (what is closed is no longer locked)
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(message) from error  # others: a file system without locks
    return file


@contextmanager
def _beside(path: str | Path) -> Iterator[tuple[Path, Path]]:
    """An empty file beside `path`, which is removed at the end if it still exists, and `path` without links."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} exists and is not a file: give the output another name.")
        target = path.resolve()
        partial = target.with_name(f".{uuid4().hex}.partial{target.suffix}")
        partial.touch(exist_ok=False)
        try:
            yield partial, target
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
