"""Scores kept on disk under a hash of everything they depend on, so that an interrupted evaluation goes on."""

import hashlib
import json
from pathlib import Path
from typing import Any

from frfsr.errors import UserError
from frfsr.files import require_writable_folder, write_text


class ScoreCache:
    """One small JSON file per image result in ``folder``, which is made if needed; safe with several processes.

    Examples:
        >>> from frfsr import evals
        >>> cache = evals.ScoreCache("scores")
        >>> first, again = (evals.evaluate("bicubic", "set5", cache=cache) for _ in range(2))
        >>> first.scores == again.scores  # the seconds too, which no second run would repeat
        True
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        require_writable_folder(folder)

    @staticmethod
    def key(*parts: str) -> str:
        """SHA-256 of the parts in their order."""
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored values, None if there are none or the file is damaged."""
        try:
            values = json.loads(self._file(key).read_text())
        except (OSError, ValueError, RecursionError):
            return None
        return values if isinstance(values, dict) else None

    def put(self, key: str, values: dict) -> None:
        """Store the values of a key.

        Args:
            key: a file name without its ending.
            values: what JSON can hold.

        Raises:
            UserError: the place cannot be written.
        """
        file = self._file(key)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot keep scores in {self.folder}: {error.strerror or error}.") from error
        write_text(file, json.dumps(values))

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
