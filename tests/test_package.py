"""The built wheel, installed in a fresh environment outside the checkout, together with PyPI's unrelated `kernels`."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from importlib.metadata import Distribution
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", "*.egg-info", "build", "dist", "runs", "site", ".*_cache"
)

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
def built(tmp_path_factory) -> Path:
    """Folder with the sdist, and the wheel that was built from it."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(CHECKOUT, source, ignore=NOT_COPIED, symlinks=True, dirs_exist_ok=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", cwd=source)
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_sdist_has_what_the_tests_need(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"Makefile", "mkdocs.yml", "CHANGELOG.md", "tests/conftest.py", "tests/golden/01_match_a.safetensors"}
    needed |= {"docs/zoo.py", "docs/results/table_I.csv", "evals/manifests.json", "kernels/match.py", ".ci/run"}
    assert needed <= names
    assert not [name for name in names if name.startswith(("frfsr/kernels/", "frfsr/evals/", "frfsr/recipes/"))]


@pytest.mark.slow
def test_what_pypi_checks(built):
    pytest.importorskip("twine")
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)


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


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("datasets", "pyarrow", "accelerate", "fsspec", "skimage", "matplotlib", "lpips")))
from PIL import Image
import frfsr
from frfsr.cli import main
image = Image.new("RGB", (12, 8), "teal")
assert frfsr.upscale(image, [image.resize((48, 32))], device="cpu").size == (48, 32)
sys.exit(main(["data", "check", "."]))
"""


def test_inference_needs_no_extra_and_data_says_which(tmp_path):
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].endswith("pip install 'frfsr[data]'")
