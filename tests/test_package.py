"""The built wheel, installed in a fresh environment outside the checkout, together with PyPI's unrelated `kernels`."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import Distribution
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import frfsr
for module in pkgutil.walk_packages(frfsr.__path__, "frfsr."):
    importlib.import_module(module.name)
assert all(name in sys.modules for name in ("frfsr.kernels.match", "frfsr.recipes.train", "frfsr.evals.metrics"))
ours = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "frfsr"}
assert all(file.startswith(sys.prefix) for file in ours.values()), ours
"""


def run(*command: str | Path, cwd: Path) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("frfsr", "kernels", "recipes", "evals"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", cwd=source)  # sdist, and the wheel from it
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; torch and the rest are lent by the running environment through a .pth file.

    Files like the finder of an editable installation have no effect in a folder that is added this way.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site_packages(folder) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(*pip(folder), "--no-index", wheel, cwd=folder)
    return folder


def site_packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))


def pip(environment: Path) -> list[str]:
    python = environment / "bin/python"
    return [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]


@pytest.mark.slow
def test_nothing_lies_outside_frfsr(environment):
    dist_info = next(site_packages(environment).glob("frfsr-*.dist-info"))
    files = [str(path) for path in Distribution.at(dist_info).files]
    outside = {path for path in files if not path.startswith(("frfsr/", dist_info.name))}
    assert outside == {"../../../bin/frfsr"}
    assert {"frfsr/py.typed", "frfsr/kernels/match.py", "frfsr/recipes/tiny_sife.yaml"} <= set(files)


@pytest.mark.slow
def test_everything_imports_and_the_command_runs(environment):
    run(environment / "bin/python", "-c", IMPORT_EVERYTHING, cwd=environment)
    run(environment / "bin/frfsr", "--help", cwd=environment)


@pytest.mark.slow
def test_beside_the_unrelated_package_kernels(environment):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", "downloads", "kernels"]
    download = subprocess.run(command, cwd=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if download.returncode:
        pytest.skip(f"the package registry cannot be reached: {download.stderr.strip().splitlines()[-1]}")
    run(*pip(environment), *(environment / "downloads").iterdir(), cwd=environment)
    code = "import kernels, frfsr.kernels; assert hasattr(kernels, 'get_kernel'); assert frfsr.kernels.patch_argmax"
    run(environment / "bin/python", "-c", code, cwd=environment)
