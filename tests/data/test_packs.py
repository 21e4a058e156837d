"""Parquet packs: any size, any column types, known by their content."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from frfsr.data import packs
from frfsr.data.layouts import Fault
from frfsr.data.pairs import load_pairs, open_pairs, pack
from frfsr.errors import UserError


def write(file: Path, rows: list[dict], **options) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), file, **options)
    return file


@pytest.mark.parametrize("streaming", [False, True])
def test_one_reference_per_row_and_more_columns(streaming: bool, tmp_path: Path, png, shades) -> None:
    file = write(tmp_path / "p.parquet", [{"name": "n", "source": "real", "input": png(1), "reference": png(2)}])
    rows = list(load_pairs(file, streaming=streaming))
    assert set(rows[0]) == {"name", "source", "input", "references"}
    assert rows[0]["source"] == "real"
    assert shades(rows) == [("n", 1, [2])]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_without_names_are_numbered(streaming: bool, tmp_path: Path, png, monkeypatch) -> None:
    monkeypatch.setattr(packs, "BATCH_ROWS", 2)
    file = write(tmp_path / "p.parquet", [{"input": png(1), "reference": png(2)}] * 3)
    assert [row["name"] for row in load_pairs(file, streaming=streaming)] == ["000000", "000001", "000002"]


@pytest.mark.parametrize("column", [pa.binary(), pa.large_binary()])
def test_images_may_be_bare_bytes(column: pa.DataType, tmp_path: Path, png, shades) -> None:
    images = pa.array([png(shade)["bytes"] for shade in (1, 2)], column)
    lists = pa.array([[png(3)["bytes"]], [png(4)["bytes"], png(5)["bytes"]]], pa.large_list(column))
    pq.write_table(pa.table({"name": [7, 8], "input": images, "references": lists}), tmp_path / "p.parquet")
    assert shades(load_pairs(tmp_path)) == [("7", 1, [3]), ("8", 2, [4, 5])]


def test_images_may_be_paths(tmp_path: Path, save, shades) -> None:
    photos = save(tmp_path / "photos", a=1, b=2)
    file = write(tmp_path / "p.parquet", [{"input": f"{photos}/a.png", "reference": {"path": f"{photos}/b.png"}}])
    assert shades(load_pairs(file)) == [("000000", 1, [2])]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_pack_of_any_size_is_read_in_bounded_batches(streaming: bool, tmp_path: Path, png, monkeypatch) -> None:
    """2 GiB in one column stand for more than an Arrow array can hold; here the limit is that of two rows."""
    rows = [{"name": str(i), "input": png(i), "reference": png(i)} for i in range(9)]
    file = write(tmp_path / "p.parquet", rows, use_dictionary=False, compression="none")
    size = pq.ParquetFile(file).metadata.row_group(0).total_byte_size
    monkeypatch.setattr(packs, "BATCH_BYTES", 2 * size // 9 + 1)
    sizes = []
    normalised = packs.normalised

    def recorded(batch: pa.Table, *arguments) -> pa.Table:
        sizes.append(len(batch))
        return normalised(batch, *arguments)

    monkeypatch.setattr(packs, "normalised", recorded)
    assert [row["name"] for row in load_pairs(file, streaming=streaming)] == [str(i) for i in range(9)]
    assert set(sizes) == {1, 2}


def test_row_groups_of_a_new_pack_are_bounded(tmp_path: Path, save, monkeypatch) -> None:
    save(tmp_path / "photos", **{f"p{i}": i for i in range(9)})
    assert pack(tmp_path / "photos", tmp_path / "rows.parquet") == 9
    monkeypatch.setattr(packs, "BATCH_ROWS", 2)
    pack(tmp_path / "photos", tmp_path / "pairs.parquet")
    monkeypatch.setattr(packs, "BATCH_ROWS", 64)
    monkeypatch.setattr(packs, "BATCH_BYTES", 1)
    pack(tmp_path / "photos", tmp_path / "single.parquet")
    groups = [pq.ParquetFile(tmp_path / f"{name}.parquet").num_row_groups for name in ("rows", "pairs", "single")]
    assert groups == [1, 5, 9]


def test_a_pack_is_known_by_its_content(tmp_path: Path, png, cache: Path) -> None:
    file, other = tmp_path / "p.parquet", tmp_path / "q.parquet"
    for names in ("abcd", "efgh"):
        write(file, [{"name": name, "input": png(1), "reference": png(1)} for name in names])
        os.utime(file, (1.7e9, 1.7e9))
        assert load_pairs(file)["name"][:] == list(names)
    other.write_bytes(file.read_bytes())
    before = sorted(cache.rglob("*.arrow"))
    assert load_pairs(other)["name"][:] == list("efgh")
    assert sorted(cache.rglob("*.arrow")) == before


def test_a_cache_that_cannot_be_written(tmp_path: Path, png, monkeypatch, shades) -> None:
    file = write(tmp_path / "p.parquet", [{"name": "n", "input": png(1), "reference": png(2)}])
    (tmp_path / "file").touch()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    for _ in range(2):
        assert shades(load_pairs(file)) == [("n", 1, [2])]


def test_a_cache_that_can_only_be_read(tmp_path: Path, png, monkeypatch) -> None:
    file = write(tmp_path / "p.parquet", [{"name": "n", "input": png(1), "reference": png(2)}])
    kept = load_pairs(file).cache_files
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: pytest.fail("written to"))
    assert load_pairs(file).cache_files == kept


def test_rows_without_images_are_named(tmp_path: Path, png) -> None:
    rows = [
        {"name": "good", "input": png(1), "reference": png(2)},
        {"name": "blind", "input": None, "reference": png(2)},
        {"name": "hollow", "input": {"bytes": None, "path": None}, "reference": png(2)},
        {"name": "alone", "input": png(1), "reference": None},
    ]
    pairs = open_pairs(write(tmp_path / "p.parquet", rows))
    assert pairs.rows["name"][:] == ["good"]
    assert pairs.faults == [
        Fault("blind", "no input image"),
        Fault("hollow", "no input image"),
        Fault("alone", "no reference"),
    ]
    with pytest.raises(UserError, match=r"blind: no input image \(and 2 more"):
        load_pairs(tmp_path)
    with pytest.raises(UserError, match="blind: no input image"):
        list(load_pairs(tmp_path, streaming=True))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": ["x"]}, r"columns \['picture'\], needed are: input, reference"),
        ({"input": [None], "reference": [None]}, "the column input holds null, needed are images"),
        ({"input": [1], "reference": [2]}, "the column input holds int64, needed are images"),
        ({"input": [b"x"], "reference": [2.5]}, "the column reference holds double, needed are images"),
        ({"input": [b"x"], "references": [[1]]}, "the column references holds int64, needed are images"),
        ({"input": [b"x"], "references": ["x"]}, "the column references holds string, needed are lists of images"),
        (pa.table([[b"x"]] * 3, names=["input", "input", "reference"]), "several columns of the name input"),
        ({"input": pa.array([], pa.binary()), "reference": pa.array([], pa.binary())}, "holds no pairs"),
    ],
)
def test_unsuitable_packs_are_one_line(columns: dict, message: str, streaming: bool, tmp_path: Path) -> None:
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(UserError, match=message) as error:
        load_pairs(tmp_path, streaming=streaming)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "cannot load .*p.parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
    ],
)
def test_files_that_are_no_packs(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_pairs(tmp_path)


def test_packs_with_different_columns(tmp_path: Path, png) -> None:
    write(tmp_path / "a.parquet", [{"name": "n", "source": "real", "input": png(1), "reference": png(2)}])
    write(tmp_path / "b.parquet", [{"name": "n", "input": png(1), "reference": png(2)}])
    with pytest.raises(UserError, match=r"b.parquet has no column 'source', which .*a.parquet has"):
        load_pairs(tmp_path)


def test_rows_whose_name_is_null_are_numbered(tmp_path: Path, png) -> None:
    columns = {"name": ["a", None], "input": [png(1), png(2)], "reference": [png(3), png(4)]}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    assert load_pairs(tmp_path / "p.parquet")["name"][:] == ["a", "000001"]
    assert pack(tmp_path / "p.parquet", tmp_path / "q.parquet") == 2


@pytest.mark.parametrize("name", ["p.parquet", "./p.parquet", "pack", "pack.txt"])
def test_what_a_pack_must_not_be_called(name: str, tmp_path: Path, png, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"input": [png(1)], "reference": [png(2)]}), "p.parquet")
    before = Path("p.parquet").read_bytes()
    with pytest.raises(UserError, match=r"would be overwritten|must end in \.parquet"):
        pack("p.parquet", name)
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]
    assert Path("p.parquet").read_bytes() == before


def test_a_pack_is_whole_or_absent(tmp_path: Path, save) -> None:
    folder = save(tmp_path / "folder", a=1)
    (folder / "b.png").write_text("no image")
    with pytest.raises(UserError, match=r"^b: .*b\.png"):
        pack(folder, tmp_path / "p.parquet")
    with pytest.raises(UserError, match="there is no folder"):
        pack(folder, tmp_path / "nowhere" / "p.parquet")
    assert list(tmp_path.iterdir()) == [folder]
