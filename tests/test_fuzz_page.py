"""Fifty mutated files over the page's handlers; `make fuzz` tries 5,000."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def fuzz_page(monkeypatch) -> ModuleType:
    pytest.importorskip("gradio")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("fuzz_page")


def test_mutated_files_are_told_in_one_line_or_enlarged(fuzz_page, small_model_folder):
    tally = fuzz_page.run(50, 1, model=str(small_model_folder))
    assert tally.findings == []
    assert tally.outcomes["refused"] > 20
    assert tally.outcomes["enlarged"] > 5


def test_what_is_no_line_for_people_is_found(fuzz_page):
    assert fuzz_page.unclear('<div class="line bad" role="alert">x.png: damaged.</div>', least=1) is None
    assert fuzz_page.unclear("", least=1)
    assert fuzz_page.unclear("x.png: damaged.")
    assert fuzz_page.unclear('<div class="line bad" role="alert">Traceback (most recent call last)</div>')
