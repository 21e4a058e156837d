"""`frfsr data push`: pairs as a dataset of the Hugging Face Hub, whose viewer shows their images, with a card."""

import json
import re
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetInfo, Features, Image, List
from huggingface_hub import DatasetCard, DatasetCardData, HfApi
from huggingface_hub.errors import LocalTokenNotFoundError
from tqdm import tqdm

from frfsr.data.decoding import decode_image
from frfsr.data.pairs import load_pairs, stored_rows
from frfsr.errors import UserError, one_line

CODE = "https://github.com/frfsr/frfsr"
CARD = "README.md"
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def push(
    source: str | Path,
    repository: str,
    split: str = "train",
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    licence: str | None = None,
) -> str:
    """Put pairs on the Hub: Parquet files with images, in one commit, and a dataset card if the repository has none.

    Image files go as they are, without the names of their folders.

    Args:
        source: as for `frfsr.data.load_pairs`; every image is decoded first.
        repository: OWNER/NAME; made if there is none.
        split: of the source, perhaps a part of it; on the Hub it has the split's name and replaces what is there.
        revision: branch, made from main if there is none; main by default.
        token: with the right to write; by default the one of `hf auth login`.
        private: whether a repository that is made now is private; by default as the owner's settings are.
        licence: of the images, as the Hub names it (cc-by-4.0), for the card.

    Returns:
        The address of the dataset.

    Raises:
        UserError: no such pairs, a damaged image, or the Hub refuses.
    """
    pairs = load_pairs(source, split, decode=False)
    for row in tqdm(stored_rows(pairs), total=len(pairs), desc="checking", unit="pair", disable=None):
        for file in (row["input"], *row["references"]):
            try:
                decode_image(file)
            except UserError as error:
                raise UserError(f"{row['name']}: {error}") from error
    name = re.split(r"[\[+]", split)[0].strip()
    columns = Features({**pairs.features, "input": Image(), "references": List(Image())})
    shown = Dataset(pairs.data, DatasetInfo(features=columns), indices_table=pairs._indices)
    card = dataset_card(source, repository, pairs, licence)
    api = HfApi(token=token)
    try:
        refuse_what_would_be_lost(api, repository, revision, private=private, licence=licence)
        address = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, repo_type="dataset", exist_ok=True)
        if not api.file_exists(repository, CARD, repo_type="dataset", revision=revision):
            api.upload_file(
                path_or_fileobj=str(card).encode(),
                path_in_repo=CARD,
                repo_id=repository,
                repo_type="dataset",
                revision=revision,
                commit_message="Dataset card",
            )
        message = f"{len(pairs)} pairs, {name}"
        own = token if isinstance(token, str) else None
        shown.push_to_hub(repository, split=name, revision=revision, token=own, commit_message=message)
    except UserError:
        raise
    except LocalTokenNotFoundError as error:
        raise UserError(f"cannot push to {repository}: log in by `hf auth login`, or give a token.") from error
    except Exception as error:  # the client's, and those of its HTTP library, which differ by version
        raise UserError(f"cannot push to {repository}: {reason(error)}.") from error
    return str(address)


def refuse_what_would_be_lost(
    api: HfApi, repository: str, revision: str | None, *, private: bool | None, licence: str | None
) -> None:
    """Refuse what only a new repository or card takes, where there is one: above all, private photos in a public one.

    Args:
        api: with the token.
        repository: OWNER/NAME.
        revision: its branch.
        private: whether it is to be private.
        licence: for the card.

    Raises:
        UserError: the repository is public, or has a card already.
    """
    if (private is None and licence is None) or not api.repo_exists(repository, repo_type="dataset"):
        return
    if private and not api.dataset_info(repository).private:
        raise UserError(f"{repository} exists and is public: make it private on the Hub first, or give another name.")
    branch = revision if revision and api.revision_exists(repository, revision, repo_type="dataset") else None
    if licence and api.file_exists(repository, CARD, repo_type="dataset", revision=branch):
        card = DatasetCard.load(api.hf_hub_download(repository, CARD, repo_type="dataset", revision=branch))
        if card.data.to_dict().get("license") != licence:
            raise UserError(f"{repository} has a card with another licence, or none: change it there, not here.")


def reason(error: Exception) -> str:
    """What the Hub or its client has to say, in a few words."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the Hub refuses the token ({status}): it must be one with the right to write there"
    return one_line(error)[:160].rstrip(".") or type(error).__name__


def dataset_card(source: str | Path, repository: str, pairs: Dataset, licence: str | None = None) -> DatasetCard:
    """The card: what a row is, how it is used, and what is known of the photos.

    Args:
        source: of the pairs; if `frfsr data build` made it, its report lies beside it.
        repository: OWNER/NAME.
        pairs: as of `frfsr.data.load_pairs`.
        licence: as the Hub names it.

    Returns:
        The card.
    """
    size = next((name for most, name in SIZES.items() if len(pairs) < most), "n>1M")
    known: dict[str, Any] = {"license": licence} if licence else {}
    data = DatasetCardData(
        task_categories=["image-to-image"],
        tags=["super-resolution", "reference-based-super-resolution", "frfsr"],
        pretty_name=repository.split("/")[-1],
        size_categories=[size],
        **known,
    )
    others = [name for name in pairs.column_names if name not in ("name", "input", "references")]
    sections = [
        f"# {repository.split('/')[-1]}",
        "Pairs for reference-based super-resolution: `input` is a sharp image, `references` are images in which the "
        "same or similar things are seen, most relevant first. LR images are not stored: they are made from `input`.",
        f"## Columns\n\n`name`, `input`, `references`{''.join(f', `{name}`' for name in others)}.",
        f"## Use\n\nWith [frfsr]({CODE}):\n\n```bash\nfrfsr data check {repository}\n"
        f"frfsr train tiny_rec data={repository} out=runs/mine\n```\n\n"
        f'```python\nfrom frfsr.data.pairs import load_pairs\n\npairs = load_pairs("{repository}")\n```',
        f"## Origin\n\n{origin(source)}",
        f"## Licence\n\n{f'`{licence}`.' if licence else 'None is stated: ask the owner of the repository.'}",
    ]
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def origin(source: str | Path) -> str:
    """What is known of the photos: by the report of `frfsr data build` beside the pack, if there is one."""
    unknown = "Nothing is recorded about where the images come from."
    file = Path(source).with_suffix(".json")
    if Path(source).suffix != ".parquet" or not file.is_file():
        return unknown
    try:
        report = json.loads(file.read_text("utf-8"))
        cell, zooms, photos = report["settings"]["cell"], report["zooms"], report["photos"]
        compared, leaks = report["benchmark_images"], report["leaks"]
    except (OSError, ValueError, KeyError, TypeError):
        return unknown
    checked = (
        f"The photos were compared with {compared} benchmark images; {len(leaks)} that showed the same were left out."
        if compared
        else "The photos were not compared with any benchmark."
    )
    return (
        f"Cells of {cell}x{cell} pixels, cut by `frfsr data build` from {photos} photos of {len(report['places'])} "
        f"places: matched by SIFT and RANSAC, references at {min(zooms)} to {max(zooms)} of the input's zoom. {checked}"
    )
