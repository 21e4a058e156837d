"""Splits, slices, patterns, saved datasets, dataset objects and the Hub."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Image, IterableDataset

from frfsr.data.pairs import load_pairs, stored
from frfsr.data.splits import named_split, of_split
from frfsr.errors import UserError


@pytest.fixture
def write(png):
    def make(file: Path, *shades: int) -> Path:
        rows = [{"name": f"{shade}", "input": png(shade), "reference": png(shade + 1)} for shade in shades]
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), file)
        return file

    return make


@pytest.fixture
def dataset(png) -> Dataset:
    columns = {"name": ["a", "b"], "input": [png(1), png(2)], "reference": [png(3), png(4)], "scene": ["x", "y"]}
    return Dataset.from_dict(columns).cast_column("input", Image()).cast_column("reference", Image())


def names(*arguments: Any, **options: Any) -> list[str]:
    return [row["name"] for row in load_pairs(*arguments, **options)]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("my_training.parquet", "train"),
        ("dev.parquet", "validation"),
        ("pairs.eval.parquet", "test"),
        ("night-00000-of-00001.parquet", "night"),
        ("pairs.parquet", None),
        ("trainstation.parquet", None),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert named_split(name) == split


def test_files_without_a_split_in_their_name_go_with_train() -> None:
    files = [Path(name) for name in ("more.parquet", "test-0.parquet", "train-0.parquet")]
    assert of_split(files, "train") == [files[0], files[2]]
    assert of_split(files, "test") == [files[1]]
    assert of_split(files[:1], "test") == files[:1]


@pytest.mark.parametrize("folder", ["", "data"])
@pytest.mark.parametrize("streaming", [False, True])
def test_packs_of_several_splits_in_one_folder(folder: str, streaming: bool, tmp_path: Path, write) -> None:
    for name, shade in (("train-00000-of-00002", 1), ("train-00001-of-00002", 2), ("test-00000-of-00001", 3)):
        write(tmp_path / folder / f"{name}.parquet", shade)
    assert names(tmp_path, streaming=streaming) == ["1", "2"]
    assert names(tmp_path, "test", streaming=streaming) == ["3"]
    with pytest.raises(UserError, match="no split validation, only test, train"):
        load_pairs(tmp_path, "validation")
    assert names(tmp_path / folder / "test-00000-of-00001.parquet") == ["3"]


def test_patterns(tmp_path: Path, write, save) -> None:
    for name, shade in (("train-0", 1), ("train-1", 2), ("test-0", 3)):
        write(tmp_path / f"{name}.parquet", shade)
    save(tmp_path / "photos", a=1, b=2, c=3)
    assert names(f"{tmp_path}/train-*.parquet", "test") == ["1", "2"]
    assert names(f"{tmp_path}/*.parquet", "test") == ["3"]
    assert names(f"{tmp_path}/photos/[ab].png") == ["a", "b"]
    with pytest.raises(UserError, match="neither a Parquet pack nor an image matches"):
        load_pairs(f"{tmp_path}/*.npy")


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:2]", "01"),
        ("train[50%:]", "23"),
        ("train[-1:]", "3"),
        ("train[:1]+train[2:3]", "02"),
        ("train", "0123"),
    ],
)
def test_slices(split: str, expected: str, tmp_path: Path, write, save) -> None:
    assert names(write(tmp_path / "p.parquet", 0, 1, 2, 3), split) == list(expected)
    save(tmp_path / "photos", **{"0": 0, "1": 1, "2": 2, "3": 3})
    assert names(tmp_path / "photos", split) == list(expected)


@pytest.mark.parametrize("split", ["train[:0]", "train[2:]", "train[2:1]", "train[:1]+train[5:]"])
def test_slices_that_leave_nothing(split: str, tmp_path: Path, write) -> None:
    with pytest.raises(UserError, match="of 2 rows leaves none"):
        load_pairs(write(tmp_path / "p.parquet", 1, 2), split)


@pytest.mark.parametrize("split", ["train[a:b]", "train[", "[:2]", ""])
def test_slices_that_are_none(split: str, tmp_path: Path, write) -> None:
    with pytest.raises(UserError, match=r"is no (slice|split)"):
        load_pairs(write(tmp_path / "p.parquet", 1, 2), split)


def test_a_stream_cannot_be_sliced(tmp_path: Path, write) -> None:
    with pytest.raises(UserError, match="cannot be sliced"):
        load_pairs(write(tmp_path / "p.parquet", 1), "train[:1]", streaming=True)


def test_dataset_objects(dataset: Dataset, shades) -> None:
    expected = [("a", 1, [3]), ("b", 2, [4])]
    rows = load_pairs(dataset)
    assert shades(rows) == shades(load_pairs(dataset, streaming=True)) == expected
    assert rows["scene"][:] == ["x", "y"]
    assert shades(load_pairs(dataset.select([1, 0]))) == expected[::-1]
    assert shades(load_pairs(dataset.to_iterable_dataset())) == expected
    assert shades(load_pairs(dataset.remove_columns("name").to_iterable_dataset()))[1] == ("000001", 2, [4])
    assert shades(load_pairs(load_pairs(dataset))) == expected
    splits = DatasetDict(train=dataset, test=dataset.select([1]))
    assert shades(load_pairs(splits, "test")) == expected[1:]
    with pytest.raises(UserError, match="no split validation, only train, test"):
        load_pairs(splits, "validation")


def test_saved_datasets(dataset: Dataset, tmp_path: Path, shades) -> None:
    dataset.save_to_disk(tmp_path / "one")
    DatasetDict(train=dataset, test=dataset.select([1])).save_to_disk(tmp_path / "two")
    assert shades(load_pairs(tmp_path / "one", "test")) == [("a", 1, [3]), ("b", 2, [4])]
    assert shades(load_pairs(tmp_path / "two", "test")) == [("b", 2, [4])]


@pytest.fixture
def hub(dataset: Dataset, monkeypatch) -> list[tuple[tuple, dict]]:
    """The calls that would reach the Hub."""
    calls = []

    def answer(*arguments, **options) -> Dataset | IterableDataset:
        calls.append((arguments, {name: value for name, value in options.items() if value is not None}))
        return dataset.to_iterable_dataset() if options["streaming"] else dataset

    monkeypatch.setattr("frfsr.data.sources.load_dataset", answer)
    return calls


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("source", "options", "arguments", "passed"),
    [
        ("me/pairs", {"token": "t", "revision": "v1"}, ("me/pairs",), {"token": "t", "revision": "v1"}),
        ("hf://datasets/me/pairs", {}, ("me/pairs",), {}),
        ("hf://datasets/me/pairs@v2/sub/dir", {}, ("me/pairs",), {"revision": "v2", "data_dir": "sub/dir"}),
        (
            "hf://datasets/me/pairs@v2/data/test-*.parquet",
            {"token": "t"},
            ("parquet",),
            {"token": "t", "data_files": {"test": "hf://datasets/me/pairs@v2/data/test-*.parquet"}},
        ),
    ],
)
def test_hub_names(source, options, arguments, passed, streaming: bool, hub, shades) -> None:
    rows = load_pairs(source, "test", streaming=streaming, **options)
    assert hub == [(arguments, {"split": "test", "streaming": streaming, **passed})]
    assert shades(rows) == [("a", 1, [3]), ("b", 2, [4])]


def test_slices_of_hub_datasets(hub, shades) -> None:
    assert shades(load_pairs("me/pairs", "train[:1]")) == [("a", 1, [3])]
    assert hub[0][1]["split"] == "train"


def test_unknown_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("frfsr.data.sources.load_dataset", refuse)
    with pytest.raises(UserError, match=r"cannot load somebody/pairs.*no network$"):
        load_pairs("somebody/pairs")


@pytest.mark.parametrize("path", ["/no/where", "./no/where", "no/where/at/all", "no/where.parquet"])
def test_what_is_plainly_a_path_is_not_looked_up(path: str, hub) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_pairs(path)
    assert hub == []


def test_files_that_are_neither_folder_nor_pack(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(UserError, match="neither a folder nor a Parquet pack"):
        load_pairs(tmp_path / "notes.txt")


def test_stored_images_of_decoded_pairs(tmp_path: Path, write) -> None:
    pairs = load_pairs(write(tmp_path / "p.parquet", 1, 2, 3)).select([2, 0])
    files = [(row["name"], row["input"]["path"], row["references"][0]["path"]) for row in stored(pairs)]
    assert files == [("3", "3.png", "4.png"), ("1", "1.png", "2.png")]
    assert len(pairs.cache_files) == 1
