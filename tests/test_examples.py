"""The examples in the docstrings of everything that a newcomer calls run, and there are some."""

import doctest
from importlib import import_module

import pytest
from PIL import Image

PACKAGES = ("frfsr", "frfsr.kernels", "frfsr.evals")
MADE_BY_EVALUATE = {"Evaluation", "Score"}
NOT_CALLED = {"__version__", "metrics", *MADE_BY_EVALUATE}
NAMES = [(package, name) for package in PACKAGES for name in import_module(package).__all__ if name not in NOT_CALLED]


@pytest.fixture
def files(tmp_path, monkeypatch) -> None:
    """What examples take for granted in their folder: a photo, its sharp reference, and a test set of two photos."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set5").mkdir()
    circle = Image.radial_gradient("L").resize((80, 64)).convert("RGB")
    circle.save("set5/circle.png")
    circle.save("sharp.png")
    circle.resize((20, 16)).save("photo.png")
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save("set5/ramp.png")


@pytest.mark.parametrize(("package", "name"), [*NAMES, ("frfsr", "evals")], ids=lambda part: part)
def test_examples_run(package, name, files):
    owner = getattr(import_module(package), name)
    (test,) = doctest.DocTestFinder(recurse=False).find(owner, name, module=False, globs={})
    assert test.examples
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)
