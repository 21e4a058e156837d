"""What speed figures depend on: the machine, and the versions of what runs on it."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def machine(devices: list[str]) -> dict[str, str]:
    """What the figures depend on."""
    processor = _processor() + ", AMX" * _has_amx()
    facts = {"cpu": f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"}
    if "cuda" in devices:
        facts["gpu"] = torch.cuda.get_device_name()
        facts["driver"] = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return facts | {
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "commit": _commit(Path(__file__).parents[1]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _commit(root: Path) -> str:
    """The commit, with "-dirty" if files have edits; results themselves do not count."""
    commit = _output("git", "-C", str(root), "rev-parse", "--short", "HEAD")
    changes = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)evals/results")
    return f"{commit}-dirty" if commit != "unknown" and _output("git", "-C", str(root), *changes) else commit


def file_name(facts: dict[str, str]) -> str:
    """The machine as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", facts.get("gpu", facts["cpu"]).lower()).strip("-")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _has_amx() -> bool:
    """Whether the processor has matrix units, which multiply bfloat16 several times as fast as float32."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _output(*command: str) -> str:
    """The first line that a command prints, "unknown" if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().partition("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
