"""Every folder layout of image pairs, and what is said about folders that are wrong."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from frfsr.data.layouts import Fault
from frfsr.data.pairs import load_pairs, open_pairs, pack
from frfsr.errors import UserError


@pytest.fixture
def cufed(save):
    def make(folder: Path) -> Path:
        save(folder / "input", b=1, a=2)
        save(folder / "ref", a=3, b=4)
        return folder

    return make


@pytest.fixture
def cufed5(save):
    def make(folder: Path) -> Path:
        save(folder, **{f"{g:03}_{i}": 10 * g + i for g in range(2) for i in range(6)})
        (folder / "CUFED5_pairs.txt").write_text("000_0.png 000_1.png\n001_0.png 001_1.png\n")
        return folder

    return make


@pytest.fixture
def wrsr(save):
    def make(folder: Path) -> Path:
        save(folder / "input", **{"001": 1, "002": 2})
        save(folder / "ref", **{"001_ref": 3, "002_ref": 4})
        (folder / "pairs.txt").write_text("# input reference\n001.png 001_ref.png\n002.png 002_ref.png\n\n")
        return folder

    return make


@pytest.fixture
def sun80(save):
    def make(folder: Path) -> Path:
        save(folder / "input", a=1)
        save(folder / "ref" / "a", x=2, y=3)
        return folder

    return make


@pytest.fixture
def plain(save):
    return lambda folder: save(folder, x=1, y=2)


@pytest.fixture
def image_folder(save):
    def make(folder: Path) -> Path:
        save(folder, a=1, b=2, c=3)
        rows = [
            {"file_name": "a.png", "reference_file_name": "b.png"},
            {"file_name": "b.png", "references_file_names": ["c.png", "a.png"]},
        ]
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return make


LAYOUTS = {
    "cufed": [("a", 2, [3]), ("b", 1, [4])],
    "cufed5": [("000_0", 0, [1, 2, 3, 4, 5]), ("001_0", 10, [11, 12, 13, 14, 15])],
    "wrsr": [("001", 1, [3]), ("002", 2, [4])],
    "sun80": [("a", 1, [2, 3])],
    "plain": [("x", 1, []), ("y", 2, [])],
    "image_folder": [("a", 1, [2]), ("b", 2, [3, 1])],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("streaming", [False, True])
def test_layouts(layout: str, streaming: bool, tmp_path: Path, shades, request) -> None:
    folder = request.getfixturevalue(layout)(tmp_path)
    assert shades(load_pairs(folder, streaming=streaming)) == LAYOUTS[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("streaming", [False, True])
def test_packs_give_back_what_they_were_made_of(layout: str, streaming: bool, tmp_path: Path, shades, request) -> None:
    out = tmp_path / "pairs.parquet"
    assert pack(request.getfixturevalue(layout)(tmp_path / "folder"), out) == len(LAYOUTS[layout])
    assert shades(load_pairs(out, streaming=streaming)) == LAYOUTS[layout]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["pairs.parquet"]
    assert shades(load_pairs(tmp_path, streaming=streaming)) == LAYOUTS[layout]


def test_split_subfolder(tmp_path: Path, save, shades) -> None:
    save(tmp_path / "train", x=1)
    save(tmp_path / "val", y=2)
    assert shades(load_pairs(tmp_path, split="validation")) == [("y", 2, [])]


def test_cufed_as_others_unpack_it(tmp_path: Path, cufed, cufed5, shades) -> None:
    """TTSR and MASA: train/input, train/ref, test/CUFED5; SRNTT: train/CUFED/input, ref and map_321."""
    cufed(tmp_path / "ttsr" / "train")
    cufed5(tmp_path / "ttsr" / "test" / "CUFED5")
    cufed(tmp_path / "srntt" / "train" / "CUFED")
    (tmp_path / "srntt" / "train" / "CUFED" / "map_321").mkdir()
    assert shades(load_pairs(tmp_path / "ttsr")) == shades(load_pairs(tmp_path / "srntt")) == LAYOUTS["cufed"]
    assert shades(load_pairs(tmp_path / "ttsr", split="test")) == LAYOUTS["cufed5"]


def test_pairs_file_may_name_several_references(tmp_path: Path, save, shades) -> None:
    save(tmp_path / "input", a=1)
    save(tmp_path / "ref", p=2, q=3)
    (tmp_path / "pairs.txt").write_text("a.png q.png p.png")
    assert shades(load_pairs(tmp_path)) == [("a", 1, [3, 2])]


def test_names_with_blanks_stand_in_quotes(tmp_path: Path, save, shades) -> None:
    save(tmp_path / "input", **{"my photo": 1, "o'clock": 2, "a#1": 3})
    save(tmp_path / "ref", **{"my photo": 4, "b": 5})
    lines = ['"my photo.png" "my photo.png"  # ours', "o'clock.png b.png", '"a#1.png" b.png']
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    assert shades(load_pairs(tmp_path)) == [("a#1", 3, [5]), ("my photo", 1, [4]), ("o'clock", 2, [5])]
    (tmp_path / "pairs.txt").write_text("\n".join(["my photo.png my photo.png", *lines[1:]]))
    assert (
        Fault("input/my", "missing (in pairs.txt, put names with blanks into double quotes)")
        in open_pairs(tmp_path).faults
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('"a.png a.png', Fault("pairs.txt, line 2", "a double quote is not closed")),
        ("a.png b.png", Fault("pairs.txt, line 2", "input/a.png stands there for the second time")),
    ],
)
def test_bad_lines_of_the_pairs_file(line: str, fault: Fault, tmp_path: Path, cufed) -> None:
    (cufed(tmp_path) / "pairs.txt").write_text(f"a.png a.png\n{line}\nb.png b.png")
    pairs = open_pairs(tmp_path)
    assert pairs.faults == [fault]
    assert pairs.rows["name"][:] == ["a", "b"]


def test_names_with_a_leading_dot_are_no_images(tmp_path: Path, cufed) -> None:
    for name in ("input/._a.png", "ref/._a.png", "ref/.DS_Store"):
        (cufed(tmp_path) / name).write_bytes(b"\x00\x05\x16\x07")
    assert load_pairs(tmp_path)["name"][:] == ["a", "b"]


def test_an_image_folder_of_several_splits(tmp_path: Path, save, shades) -> None:
    save(tmp_path / "train", a=1, r=2)
    save(tmp_path / "test", b=3, r=4)
    lines = ["file_name,reference_file_name", "train/a.png,train/r.png", "test/b.png,test/r.png"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    assert shades(load_pairs(tmp_path, split="test")) == [("b", 3, [4])]
    with pytest.raises(UserError, match="names no images of the split validation"):
        load_pairs(tmp_path, split="validation")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "a.png"}', "a.png: no reference"),
        ('{"file_name": "z.png", "reference_file_name": "b.png"}', "z.png: missing"),
        ('{"title": "z"}', "metadata.jsonl, line 3: no file_name"),
        ("file_name: a.png", "metadata.jsonl, line 3 is no JSON"),
        ("[1]", "metadata.jsonl, line 3 is no JSON object"),
        ("[" * 10**5, "metadata.jsonl, line 3 is no JSON"),
        ('{"file_name": "a\\u0000.png", "reference_file_name": "b.png"}', "a\ufffd.png: missing"),
        ('{"file_name": "' + "a" * 5000 + '", "reference_file_name": "b.png"}', "a: missing"),
    ],
)
def test_bad_rows_of_metadata(line: str, message: str, tmp_path: Path, image_folder) -> None:
    with open(image_folder(tmp_path) / "metadata.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        load_pairs(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file_name,reference_file_name\na.png,b.png,c.png\n", "line 2 has more values than there are columns"),
        (b"file_name\n" + b"x" * 2**18 + b"\n", "line 2 is no CSV"),
        (b"\xff\xfe,\n", "is no CSV"),
    ],
)
def test_bad_tables_of_metadata(content: bytes, message: str, tmp_path: Path, save) -> None:
    save(tmp_path, a=1, b=2)
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_pairs(tmp_path)


def test_links_that_lead_nowhere_are_named(tmp_path: Path, cufed) -> None:
    folder = cufed(tmp_path)
    (folder / "input" / "gone.png").symlink_to("/nowhere.png")
    (folder / "ref" / "gone.png").symlink_to("gone.png")
    with pytest.raises(UserError, match=r"gone\.png: No such file"):
        load_pairs(tmp_path)[2]


def test_names_that_are_no_text_are_named(tmp_path: Path, cufed) -> None:
    folder = cufed(tmp_path)
    for place in ("input", "ref"):
        (folder / place / os.fsdecode(b"\xff.png")).write_bytes((folder / place / "a.png").read_bytes())
    pairs = open_pairs(tmp_path)
    assert [str(fault) for fault in pairs.faults] == ["\ufffd: a file's name is no UTF-8: rename it"]
    assert pairs.rows["name"][:] == ["a", "b"]
    assert str(Fault("a\nb\x1b[31m", "odd")) == "a b\ufffd[31m: odd"


@pytest.fixture
def broken(save, cufed, cufed5, wrsr):
    def make(folder: Path, kind: str) -> None:
        if kind == "no ref/":
            save(folder / "input", a=1)
        elif kind == "empty":
            (folder / "deep" / "deeper").mkdir(parents=True)
        elif kind == "no partner":
            save(cufed(folder) / "input", c=1)
        elif kind == "lonely reference":
            save(cufed(folder) / "ref", c=1)
        elif kind == "pairs.txt":
            (wrsr(folder) / "pairs.txt").write_text("001.png 001_ref.png\n002.png 003_ref.png")
        elif kind == "gap":
            (cufed5(folder) / "001_3.png").unlink()
        elif kind == "no input":
            (cufed5(folder) / "001_0.png").unlink()
        elif kind == "no references":
            save(folder, **{"000_0": 1})

    return make


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no ref/", "has input/ but no ref/"),
        ("empty", "holds no images"),
        ("no partner", "input/c.png: no reference"),
        ("lonely reference", "ref/c.png: no input"),
        ("pairs.txt", r"ref/003_ref.png: missing \(and 1 more"),
        ("gap", "001_3: missing"),
        ("no input", "001_0: missing"),
        ("no references", "000_0: no reference"),
    ],
)
def test_wrong_layouts_are_named(kind: str, message: str, tmp_path: Path, broken) -> None:
    broken(tmp_path, kind)
    with pytest.raises(UserError, match=message) as error:
        load_pairs(tmp_path)
    assert "\n" not in str(error.value)


def test_faults_can_be_returned_instead(tmp_path: Path, broken) -> None:
    broken(tmp_path, "no partner")
    pairs = open_pairs(tmp_path)
    assert (len(pairs.rows), pairs.faults) == (2, [Fault("input/c.png", "no reference")])


def test_a_huge_group_number_is_answered_at_once(tmp_path: Path, picture) -> None:
    for name in ("000_0", "000_1", "000_99999999999"):
        picture(1).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match="000_2: missing"):
        load_pairs(tmp_path)


def test_images_come_as_rgb_and_upright(tmp_path: Path, picture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    picture(7).save(tmp_path / "a.jpg", exif=exif)
    picture(7).convert("P").save(tmp_path / "b.png")
    upright, palette = (row["input"] for row in load_pairs(tmp_path))
    assert upright.size == (7, 9)
    assert palette.mode == "RGB"
