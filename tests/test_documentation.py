"""What the documentation says is true: its Python runs, its links lead somewhere, and the site builds."""

import importlib.util
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUNNABLE = ["add_a_network.md"]


@pytest.mark.parametrize("page", RUNNABLE)
def test_the_code_of_a_tutorial_runs(page, monkeypatch, tmp_path) -> None:
    """All blocks of a page as one program."""
    from frfsr.architectures import ARCHITECTURES

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("frfsr.architectures.ARCHITECTURES", dict(ARCHITECTURES))
    text = (CHECKOUT / "docs/tutorials" / page).read_text()
    # Line numbers of a failure are those of the page.
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    exec(compile("\n".join(lines), str(CHECKOUT / "docs/tutorials" / page), "exec"), {"__name__": page})


def test_the_list_of_networks_is_that_of_the_program() -> None:
    written = importlib.util.spec_from_file_location("zoo", CHECKOUT / "docs/zoo.py")
    zoo = importlib.util.module_from_spec(written)
    written.loader.exec_module(zoo)
    assert zoo.PAGE.read_text() == zoo.page(), "run `python docs/zoo.py`"
