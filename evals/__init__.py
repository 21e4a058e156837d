"""Metrics, benchmarks, tables and figures.

>>> from frfsr import evals
>>> results = [evals.evaluate(model, "set5") for model in ("bicubic", "frfsr-tiny")]  # a folder of photos
>>> print(evals.results_table(results).as_text())  # doctest: +ELLIPSIS
benchmark      model       reference  count  PSNR   SSIM    s/image
Set5 (2 of 5)  bicubic     true       2      ...
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frfsr.evals import metrics
    from frfsr.evals.benchmarks import TestSet
    from frfsr.evals.cache import ScoreCache
    from frfsr.evals.evaluation import Evaluation, Score, evaluate
    from frfsr.evals.metrics import lpips_alex, psnr_rgb, psnr_y, ssim_rgb, ssim_y
    from frfsr.evals.protocol import Protocol
    from frfsr.evals.statistics import paired_bootstrap
    from frfsr.evals.tables import Table, results_json, results_table
    from frfsr.evals.upscalers import load_upscaler

__all__ = [
    "Evaluation",
    "Protocol",
    "Score",
    "ScoreCache",
    "Table",
    "TestSet",
    "evaluate",
    "load_upscaler",
    "lpips_alex",
    "metrics",
    "paired_bootstrap",
    "psnr_rgb",
    "psnr_y",
    "results_json",
    "results_table",
    "ssim_rgb",
    "ssim_y",
]
# Names load on first use: the command line reads `frfsr.evals.commands` without importing torch.
_HOMES = {
    "benchmarks": ["TestSet"],
    "cache": ["ScoreCache"],
    "evaluation": ["Evaluation", "Score", "evaluate"],
    "metrics": ["lpips_alex", "metrics", "psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y"],
    "protocol": ["Protocol"],
    "statistics": ["paired_bootstrap"],
    "tables": ["Table", "results_json", "results_table"],
    "upscalers": ["load_upscaler"],
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            module = import_module(f"frfsr.evals.{home}")
            globals()[name] = module if name == home else getattr(module, name)
            return globals()[name]
    raise AttributeError(f"module 'frfsr.evals' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
