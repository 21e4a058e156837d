"""Every layout of image pairs, packs, and what is said about folders that are wrong."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from frfsr.data import check, load_pairs, pack
from frfsr.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packs are cached by `datasets`; not in the home of whoever runs the tests."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def picture(shade: int, width: int = 9, height: int = 7) -> Image.Image:
    """An image that `shade_of` recognises."""
    return Image.fromarray(np.full((height, width, 3), shade, np.uint8))


def shade_of(image: Image.Image) -> int:
    assert image.mode == "RGB"
    return image.getpixel((0, 0))[0]


def save(folder: Path, **shades: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, shade in shades.items():
        picture(shade).save(folder / f"{name}.png")


def shades(dataset) -> list[tuple[str, int, list[int]]]:
    return [(row["name"], shade_of(row["input"]), [shade_of(r) for r in row["references"]]) for row in dataset]


def cufed(folder: Path) -> Path:
    save(folder / "input", b=1, a=2)
    save(folder / "ref", a=3, b=4)
    return folder


def cufed5(folder: Path) -> Path:
    save(folder, **{f"{g:03}_{i}": 10 * g + i for g in range(2) for i in range(6)})
    (folder / "CUFED5_pairs.txt").write_text("000_0.png 000_1.png\n001_0.png 001_1.png\n")
    return folder


def wrsr(folder: Path) -> Path:
    save(folder / "input", **{"001": 1, "002": 2})
    save(folder / "ref", **{"001_ref": 3, "002_ref": 4})
    (folder / "pairs.txt").write_text("# input reference\n001.png 001_ref.png\n002.png 002_ref.png\n\n")
    return folder


def sun80(folder: Path) -> Path:
    save(folder / "input", a=1)
    save(folder / "ref" / "a", x=2, y=3)
    return folder


def plain(folder: Path) -> Path:
    save(folder, x=1, y=2)
    return folder


LAYOUTS = {
    cufed: [("a", 2, [3]), ("b", 1, [4])],
    cufed5: [("000_0", 0, [1, 2, 3, 4, 5]), ("001_0", 10, [11, 12, 13, 14, 15])],
    wrsr: [("001", 1, [3]), ("002", 2, [4])],
    sun80: [("a", 1, [2, 3])],
    plain: [("x", 1, []), ("y", 2, [])],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("streaming", [False, True])
def test_layouts(layout, streaming: bool, tmp_path: Path) -> None:
    assert shades(load_pairs(layout(tmp_path), streaming=streaming)) == LAYOUTS[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("streaming", [False, True])
def test_packs_give_back_what_they_were_made_of(layout, streaming: bool, tmp_path: Path) -> None:
    out = tmp_path / "pairs.parquet"
    assert pack(layout(tmp_path / "folder"), out) == len(LAYOUTS[layout])
    assert shades(load_pairs(out, streaming=streaming)) == LAYOUTS[layout]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["pairs.parquet"]
    assert shades(load_pairs(tmp_path, streaming=streaming)) == LAYOUTS[layout]


@pytest.mark.parametrize("streaming", [False, True])
def test_pack_with_one_reference_per_row_and_more_columns(streaming: bool, tmp_path: Path) -> None:
    file = wrsr(tmp_path) / "input" / "001.png"
    image = {"bytes": file.read_bytes(), "path": "001.png"}
    rows = [{"name": "n", "source": "real", "input": image, "reference": image}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    (row,) = load_pairs(tmp_path / "p.parquet", streaming=streaming)
    assert set(row) == {"name", "source", "input", "references"}
    assert (row["name"], row["source"], shade_of(row["input"])) == ("n", "real", 1)
    assert [shade_of(reference) for reference in row["references"]] == [1]


def test_pack_without_names_is_numbered(tmp_path: Path) -> None:
    picture(5).save(tmp_path / "a.png")
    image = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    pq.write_table(pa.Table.from_pylist([{"input": image, "reference": image}] * 2), tmp_path / "p.parquet")
    assert load_pairs(tmp_path / "p.parquet")["name"] == ["000000", "000001"]


def test_split_subfolder(tmp_path: Path) -> None:
    save(tmp_path / "train", x=1)
    save(tmp_path / "test", y=2)
    assert shades(load_pairs(tmp_path, split="test")) == [("y", 2, [])]


def test_pairs_file_may_name_several_references(tmp_path: Path) -> None:
    save(tmp_path / "input", a=1)
    save(tmp_path / "ref", p=2, q=3)
    (tmp_path / "pairs.txt").write_text("a.png q.png p.png")
    assert shades(load_pairs(tmp_path)) == [("a", 1, [3, 2])]


def test_images_come_as_rgb_and_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    picture(7).save(tmp_path / "a.jpg", exif=exif)
    picture(7).convert("P").save(tmp_path / "b.png")
    upright, palette = (row["input"] for row in load_pairs(tmp_path))
    assert upright.size == (7, 9)
    assert palette.mode == "RGB"


def break_layout(folder: Path, kind: str) -> None:
    if kind == "no ref/":
        save(folder / "input", a=1)
    elif kind == "empty":
        (folder / "deep" / "deeper").mkdir(parents=True)
    elif kind == "no partner":
        cufed(folder)
        save(folder / "input", c=1)
    elif kind == "lonely reference":
        cufed(folder)
        save(folder / "ref", c=1)
    elif kind == "pairs.txt":
        (wrsr(folder) / "pairs.txt").write_text("001.png 001_ref.png\n002.png 003_ref.png")
    elif kind == "gap":
        (cufed5(folder) / "001_3.png").unlink()
    elif kind == "no input":
        (cufed5(folder) / "001_0.png").unlink()
    elif kind == "no references":
        save(folder, **{"000_0": 1})
    elif kind == "columns":
        pq.write_table(pa.table({"picture": ["x"]}), folder / "p.parquet")
    elif kind == "no parquet":
        (folder / "p.parquet").write_text("text")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no ref/", "has input/ but no ref/"),
        ("empty", "holds no images"),
        ("no partner", r"input/c.png has no reference"),
        ("lonely reference", r"ref/c.png has no input"),
        ("pairs.txt", r"ref/003_ref.png is missing \(and 1 more"),
        ("gap", "001_3 is missing"),
        ("no input", "001_0 is missing"),
        ("no references", "000_0 has no reference"),
        ("columns", r"columns \['picture'\], needed are: input, reference"),
        ("no parquet", "cannot load"),
    ],
)
def test_wrong_layouts_are_named(kind: str, message: str, tmp_path: Path) -> None:
    break_layout(tmp_path, kind)
    with pytest.raises(UserError, match=message) as error:
        load_pairs(tmp_path)
    assert "\n" not in str(error.value)


def test_missing_and_unsuitable_paths(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_pairs(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(UserError, match="neither a folder nor a Parquet pack"):
        load_pairs(tmp_path / "notes.txt")


def test_unknown_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("frfsr.data.load_dataset", refuse)
    with pytest.raises(UserError, match=r"cannot load somebody/pairs.*no network$"):
        load_pairs("somebody/pairs")


def test_faults_can_be_collected_instead(tmp_path: Path) -> None:
    break_layout(tmp_path, "no partner")
    faults: list[str] = []
    assert len(load_pairs(tmp_path, faults=faults)) == 2
    assert faults == ["input/c.png has no reference"]


def test_check_reports_what_is_there(tmp_path: Path) -> None:
    report = check(cufed5(tmp_path))
    assert report.ok
    assert (report.count, report.references, report.sizes) == (2, (5, 5), ((9, 7), (9, 7)))
    assert "pairs       2" in str(report)


def test_check_reports_every_fault(tmp_path: Path) -> None:
    cufed(tmp_path)
    save(tmp_path / "input", c=1)
    data = (tmp_path / "ref" / "a.png").read_bytes()
    (tmp_path / "ref" / "a.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "input" / "b.png").write_text("no image")
    report = check(tmp_path)
    assert not report.ok
    assert report.faults == ["input/c.png has no reference"]
    assert [line.split(": ")[0].removeprefix(f"{tmp_path}/") for line in report.unreadable] == [
        "ref/a.png",
        "input/b.png",
    ]
    assert str(report).endswith("3 faults")


def test_check_of_a_pack(tmp_path: Path) -> None:
    pack(wrsr(tmp_path / "folder"), tmp_path / "p.parquet")
    assert check(tmp_path / "p.parquet").ok


def test_a_pack_is_whole_or_absent(tmp_path: Path) -> None:
    folder = cufed(tmp_path / "folder")
    (folder / "ref" / "b.png").write_text("no image")
    with pytest.raises(UserError, match=r"cannot read .*b\.png"):
        pack(folder, tmp_path / "p.parquet")
    with pytest.raises(UserError, match="there is no folder"):
        pack(folder, tmp_path / "nowhere" / "p.parquet")
    assert list(tmp_path.iterdir()) == [folder]
