"""Pairs of a photo and its references, wherever they lie: folders, Parquet packs, datasets, the Hugging Face Hub."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frfsr.data.pairs import load_pairs

__all__ = ["load_pairs"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from frfsr.data import pairs  # with datasets, which takes seconds

        return getattr(pairs, name)
    raise AttributeError(f"module 'frfsr.data' has no attribute {name!r}")
