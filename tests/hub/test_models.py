"""Models on the Hub: another process pushes them to a local server, and pulls them; and their cards."""

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from frfsr.cards import Origin, measured
from frfsr.checkpoints import PACKAGED

PUSH_AND_PULL = """
import sys
import frfsr
from frfsr.errors import UserError

folder, cache, other = sys.argv[1:]
commits = []
network = frfsr.load(folder, device="cpu")
for count in (1, 2):
    next(network.parameters()).data.fill_(count)
    commits.append(network.push_to_hub("someone/net", token="hf_right", commit_message=str(count)).oid)

def pull(name="someone/net", **options):
    try:
        pulled = frfsr.load(name, device="cpu", **{"token": "hf_right", "cache_dir": cache} | options)
    except UserError as error:
        print("refused:", error)
    else:
        print("value", next(pulled.parameters()).flatten()[0].item())

pull()
pull(revision=commits[0])
pull(local_files_only=True)
pull(local_files_only=True, cache_dir=other)
pull(revision="gone")
pull("someone/else")
pull(subfolder="inner")
pull(token="hf_wrong", cache_dir=other)
"""


@pytest.mark.slow
def test_push_and_pull(only_this_hub, small_model_folder, tmp_path) -> None:
    """In a process that knows this Hub alone: by revision, from the cache, and every refusal as one line."""
    arguments = [str(small_model_folder), str(tmp_path / "cache"), str(tmp_path / "other")]
    command = [sys.executable, "-c", PUSH_AND_PULL, *arguments]
    done = subprocess.run(
        command, env=only_this_hub, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    newest, first, cached, empty, revision, unknown, inner, token = done.stdout.splitlines()
    assert (newest, first, cached) == ("value 2.0", "value 1.0", "value 2.0")
    assert empty.startswith("refused: no model 'someone/net'")
    assert revision == "refused: someone/net on the Hub has no revision 'gone'."
    assert unknown.startswith("refused: no model 'someone/else' on the Hub")
    assert "someone/net/inner on the Hub has no config.json" in inner
    assert "401" in token


def test_the_card_of_a_network_says_what_is_known(small_model, tmp_path) -> None:
    results = measured("Set5", {"psnr": 31.1, "ssim": 0.88}, "PSNR and SSIM on Y, border 4")
    origin = Origin("Trained so and so.", "apache-2.0", ["someone/pairs"], "frfsr-tiny", results)
    small_model.save_pretrained(tmp_path, model_card_kwargs={"name": "small", "origin": origin})
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == "image-to-image"
    assert (card.data.license, card.data.datasets, card.data.base_model) == (
        "apache-2.0",
        ["someone/pairs"],
        "frfsr-tiny",
    )
    assert [(result.metric_type, result.metric_value) for result in card.data.eval_results] == [
        ("psnr", 31.1),
        ("ssim", 0.88),
    ]
    assert {result.metric_config for result in card.data.eval_results} == {"PSNR and SSIM on Y, border 4"}
    for said in ("arxiv.org/abs/2306.01500", "## Use", "## Limits", "Trained so and so."):
        assert said in card.text


def test_the_card_of_an_unknown_origin_claims_no_licence(small_model) -> None:
    card = small_model.generate_model_card()
    assert card.data.license is None
    assert "Nothing is recorded" in card.text


@pytest.mark.parametrize("name", [folder.name for folder in sorted(PACKAGED.glob("*/"))])
def test_cards_of_packaged_weights(name) -> None:
    """What the Hub reads of them: task, licence, and figures, which are those of docs/results."""
    card = ModelCard.load(PACKAGED / name / "README.md")
    assert (card.data.pipeline_tag, card.data.license, card.data.library_name) == (
        "image-to-image",
        "apache-2.0",
        "frfsr",
    )
    for said in ("arxiv.org/abs/2306.01500", "## Use", "## Limits", "## Training"):
        assert said in card.text
    table = (Path(__file__).parents[2] / "docs/results/table_I.csv").read_text().splitlines()
    columns = table[0].split(",")[1:]
    rows = {line.split(",")[0]: line.split(",")[1:] for line in table}
    if name == "frfsr-tiny-real":  # on photos as they are, which no table of the paper has
        page = (Path(__file__).parents[2] / "docs/results/README.md").read_text()
        assert " / ".join(f"{result.metric_value:.3f}".removesuffix("0") for result in card.data.eval_results) in page
        return
    row = rows[name]
    expected = {
        (column, metric): float(value)
        for column, cell in zip(columns, row, strict=True)
        for metric, value in zip(("psnr", "ssim"), cell.split(" / "), strict=True)
    }
    found = {(result.dataset_name, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert {key: found.get(key) for key in expected} == expected, "measured anew: bring the cards up to date"
