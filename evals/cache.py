"""Scores kept on disk under a hash of everything they depend on, so that an interrupted evaluation goes on."""

import hashlib
import json
import os
from pathlib import Path


class ScoreCache:
    """One small JSON file per image result in ``folder``, which is made when needed; safe with several processes."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @staticmethod
    def key(*parts: str) -> str:
        """SHA-256 of the parts in their order."""
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def get(self, key: str) -> dict | None:
        """The stored values, None if there are none or the file is damaged."""
        try:
            return json.loads(self._file(key).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def put(self, key: str, values: dict) -> None:
        """Stores values that JSON can hold."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial_file = file.with_suffix(f".{os.getpid()}.partial")
        partial_file.write_text(json.dumps(values))
        os.replace(partial_file, file)

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
