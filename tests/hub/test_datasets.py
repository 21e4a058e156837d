"""Pairs on the Hub: pushed with a card, and read by branch and commit; what the Hub refuses takes one line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PUSH_AND_READ = """
import sys
from pathlib import Path
from datasets import Image, List, load_dataset
from huggingface_hub import DatasetCard, HfApi
from frfsr.cli import main
from frfsr.data.pairs import load_pairs

pack, other, folder = sys.argv[1:]
right = ["--token", "hf_right"]

def run(*arguments):
    print("exit", main(["data", *arguments]), flush=True)

run("push", pack, "someone/pairs", "--licence", "cc-by-4.0", "--private", *right)
run("push", other, "someone/pairs", "--revision", "v2", *right)
run("push", folder, "someone/pairs", "--split", "test", "--private", "--licence", "cc-by-4.0", *right)
HfApi(token="hf_right").create_repo("someone/public", repo_type="dataset")
run("push", folder, "someone/public", "--private", *right)
run("push", folder, "someone/pairs", "--licence", "mit", *right)

def first(source="someone/pairs", split="train", **options):
    rows = load_pairs(source, split, token="hf_right", **options)
    shades = [image.getpixel((0, 0))[0] for image in (rows[0]["input"], *rows[0]["references"])]
    print("rows", len(rows), *shades)

first()
first(revision="v2")
first("someone/pairs@v2")
first(revision=HfApi(token="hf_right").dataset_info("someone/pairs", revision="v2").sha)
first("hf://datasets/someone/pairs@v2")
first("hf://datasets/someone/pairs/data/train-*.parquet", revision="v2")
first(split="test")
shown = load_dataset("someone/pairs", split="train", token="hf_right")
print("viewer", isinstance(shown.features["input"], Image), isinstance(shown.features["references"], List))
card = DatasetCard.load("someone/pairs", token="hf_right")
print("card", card.data.license, card.data.task_categories, "48 photos" in card.text, "## Use" in card.text)
files = HfApi(token="hf_right").list_repo_files("someone/pairs", repo_type="dataset")
print("files", *sorted(files))
run("check", "someone/pairs@v2", "--crop", "0", *right)
run("pack", "someone/pairs", str(Path(pack).with_name("again.parquet")), "--revision", "v2", *right)
for arguments in (
    ["push", pack, "someone/pairs", "--token", "hf_wrong"],
    ["push", pack, "pairs", *right],
    ["push", "nowhere.parquet", "someone/pairs", *right],
    ["check", "someone/pairs@gone", *right],
    ["check", "someone/absent", *right],
    ["check", "someone/unseen", "--token", "hf_wrong"],
):
    run(*arguments)
"""


def picture(shade: int) -> Image.Image:
    return Image.fromarray(np.full((16, 16, 3), shade, np.uint8))


@pytest.fixture
def folder(tmp_path):
    """folder(name, shade): one pair in the CUFED layout, the reference one shade lighter."""

    def make(name: str, shade: int) -> Path:
        for part, own in (("input", shade), ("ref", shade + 1)):
            (tmp_path / name / part).mkdir(parents=True)
            picture(own).save(tmp_path / name / part / "a.png")
        return tmp_path / name

    return make


@pytest.mark.slow
def test_push_and_read(only_this_hub, folder, tmp_path) -> None:
    from frfsr.data.pairs import pack

    files = []
    for name, shade in (("first", 10), ("second", 20)):
        files.append(tmp_path / f"{name}.parquet")
        pack(folder(name, shade), files[-1])
    report = {"settings": {"cell": 160}, "zooms": [0.6, 1.5], "photos": 48, "places": {"a": 1}}
    report |= {"benchmark_images": 125, "leaks": []}
    files[0].with_suffix(".json").write_text(json.dumps(report))
    arguments = [*map(str, files), str(folder("third", 30))]
    command = [sys.executable, "-c", PUSH_AND_READ, *arguments]
    done = subprocess.run(
        command, env=only_this_hub, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    rows = [line for line in lines if line.startswith("rows")]
    assert rows == ["rows 1 10 11", *["rows 1 20 21"] * 5, "rows 1 30 31"]
    assert "viewer True True" in lines
    assert "card cc-by-4.0 ['image-to-image'] True True" in lines
    assert "files README.md data/test-00000-of-00001.parquet data/train-00000-of-00001.parquet" in lines
    assert "1 pairs in" in done.stdout
    codes = [int(line.split()[1]) for line in lines if line.startswith("exit")]
    assert codes == [0, 0, 0, 2, 2, 0, 0, *[2] * 6]
    public, licence, wrong, unnamed, nowhere, revision, absent, refused = [
        line for line in done.stderr.splitlines() if line.startswith("frfsr: ")
    ]
    assert "exists and is public" in public
    assert "another licence" in licence
    assert "refuses the token (401)" in wrong
    assert "give OWNER/NAME" in unnamed
    assert "nowhere.parquet" in nowhere
    assert "gone" in revision
    assert "someone/absent" in absent
    assert "someone/unseen" in refused
    assert "Traceback" not in done.stderr
