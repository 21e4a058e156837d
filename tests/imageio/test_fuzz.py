"""Three hundred mutated files; `make fuzz` tries 5,000."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "fuzz.py"


def test_mutated_files_are_refused_in_one_line_or_read_as_others_read_them():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    tally = fuzz.run(300, seed=1)
    assert tally.findings == []
    assert tally.outcomes["refused"] > 100
    assert tally.outcomes["compared"] > 20
    for name, data in fuzz.seeds().items():
        assert fuzz.verdict(data) in ("read", "compared"), name
