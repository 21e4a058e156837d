"""What the page remembers of each person, and that it forgets it: files, the run, the result."""

import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from PIL import Image

from frfsr.page.work import Job, Outcome

LONGEST = 4 * 3600  # seconds, after which a session is over even if nobody closed it


@dataclass
class Session:
    """One open page.

    Attributes:
        folder: for what it is shown.
        files: that it uploaded; gradio keeps them elsewhere.
        job: its run, if any.
        outcome: its last result, if any.
        used: when something was last asked, in seconds of `time.monotonic`.
    """

    folder: Path
    files: set[str] = field(default_factory=set)
    job: Job | None = None
    outcome: Outcome | None = None
    used: float = field(default_factory=time.monotonic)

    def new_folder(self) -> Path:
        """An empty folder, which lives as long as the session."""
        return Path(mkdtemp(dir=self.folder))

    def finish(self, outcome: Outcome) -> None:
        """Remember a result instead of the one before, whose files go."""
        before, self.outcome = self.outcome, outcome
        if before:
            shutil.rmtree(before.file.parent, ignore_errors=True)

    def store(self, image: Image.Image, ending: str, outcome: Outcome | None = None) -> str:
        """Write a picture (.png: exact, .jpg: small), kept as long as the outcome or else the session; its path."""
        path = Path(mkdtemp(dir=outcome.file.parent if outcome else self.folder)) / f"picture{ending}"
        image.save(path, compress_level=1, quality=90)  # each for its own format
        return str(path)


class Sessions:
    """All open pages by their names.

    Args:
        folder: for all files; nothing else lies there.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.open: dict[str, Session] = {}
        self.lock = threading.Lock()

    def get(self, name: str) -> Session:
        """The session of this name, which begins if needed; those that are too old end."""
        with self.lock:
            now = time.monotonic()
            for old in [key for key, session in self.open.items() if now - session.used > LONGEST]:
                self._end(old)
            if name not in self.open:
                self.open[name] = Session(Path(mkdtemp(dir=self.folder)))
            self.open[name].used = now
            return self.open[name]

    def end(self, name: str) -> None:
        """Stop a session's run and forget all of it."""
        with self.lock:
            self._end(name)

    def _end(self, name: str) -> None:
        session = self.open.pop(name, None)
        if session is None:
            return
        if session.job:
            session.job.cancelled.set()
        # gradio stores equal files of two people once
        others = set().union(*(other.files for other in self.open.values()))
        for file in filter(self.is_ours, session.files - others):
            Path(file).unlink(missing_ok=True)
            with suppress(OSError):  # other files may lie there
                Path(file).parent.rmdir()
        shutil.rmtree(session.folder, ignore_errors=True)

    def is_ours(self, file: str) -> bool:
        """Whether a file lies in the folder of all files: examples do not."""
        return Path(file).is_relative_to(self.folder)
