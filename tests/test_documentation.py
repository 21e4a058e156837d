"""What the documentation says is true: its Python runs, its links lead somewhere, and the site builds."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import patch

import pytest

CHECKOUT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TUTORIALS = ("first_photo", "evaluate", "add_a_network", "feature_reuse")
RUNNABLE = [*(f"tutorials/{name}.md" for name in TUTORIALS), "export.md"]


@pytest.mark.parametrize("page", RUNNABLE)
def test_the_code_of_a_page_runs(page, monkeypatch, tmp_path) -> None:
    """All blocks of a page as one program."""
    from frfsr.architectures import ARCHITECTURES
    from frfsr.publications import PUBLICATIONS

    monkeypatch.chdir(tmp_path)
    text = (CHECKOUT / "docs" / page).read_text()
    # Line numbers of a failure are those of the page.
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    program = compile("\n".join(lines), str(CHECKOUT / "docs" / page), "exec")
    with patch.dict(ARCHITECTURES), patch.dict(PUBLICATIONS):  # a page may add to the lists that all modules share
        exec(program, {"__name__": page})


def test_the_list_of_networks_is_that_of_the_program() -> None:
    written = importlib.util.spec_from_file_location("zoo", CHECKOUT / "docs/zoo.py")
    zoo = importlib.util.module_from_spec(written)
    written.loader.exec_module(zoo)
    assert zoo.PAGE.read_text() == zoo.page(), "run `python docs/zoo.py`"


def test_the_site_builds_without_a_broken_link(tmp_path) -> None:
    """Strict: links to pages, anchors, pictures and names; and nothing is fetched from elsewhere to show a page."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    if not (CHECKOUT / "frfsr/kernels").exists():
        pytest.skip("unpacked from an sdist, which has no links by which packages are found")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "COLUMNS": "100"}
    built = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert {"index.html", "zoo.html", "command_line.html", "frfsr.kernels.html"} <= {page.name for page in pages}
    fetched = re.compile(r"""<(?:script|img|link rel="(?:stylesheet|preconnect)")[^>]+(?:src|href)="https?:[^"]*""")
    assert not [found for page in pages for found in fetched.findall(page.read_text())]


HOME = "https://github.com/frfsr/frfsr/blob/main/"
PICTURES = "https://raw.githubusercontent.com/frfsr/frfsr/main/"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_checkout_lead_somewhere(name) -> None:
    """Those of README are absolute, since PyPI shows it too."""
    text = (CHECKOUT / name).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        place = target.removeprefix(HOME).removeprefix(PICTURES)
        if name == "README.md":
            assert target.startswith("https://"), f"{target} has no meaning on PyPI"
        assert place.startswith("https://") or (CHECKOUT / place).exists(), target


def test_the_container_file_names_what_there_is() -> None:
    """No container is built here: its extras, command and Python are those of the package, its sources are there."""
    text = (CHECKOUT / "Containerfile").read_text()
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r'"/src\[([\w,]+)\]"', text)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    (command,) = re.findall(r'^ENTRYPOINT \["(\w+)"\]$', text, re.MULTILINE)
    assert command in project["scripts"]
    (python,) = re.findall(r"^FROM python:([\d.]+)-slim$", text, re.MULTILINE)
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (CHECKOUT / source).exists()
    ignored = (CHECKOUT / ".dockerignore").read_text().split("\n")
    assert {".git", ".venv*"} <= set(ignored), "the image would take gigabytes of the checkout"
    assert not [name for name in ("frfsr", "kernels", "evals", "recipes", "README.md") if name in ignored]
