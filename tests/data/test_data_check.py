"""`frfsr data check`: its report, whatever the data is like."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from frfsr.cli import main
from frfsr.data.check import check


@pytest.fixture
def pairs(tmp_path: Path, picture):
    """pairs((width, height), ...): a folder of as many pairs with inputs of these sizes, references of 16x16."""

    def make(*sizes: tuple[int, int], reference: tuple[int, int] = (16, 16)) -> Path:
        for part in ("input", "ref"):
            (tmp_path / part).mkdir()
        for number, size in enumerate(sizes):
            picture(number, *size).save(tmp_path / "input" / f"{number}.png")
            picture(100 + number, *reference).save(tmp_path / "ref" / f"{number}.png")
        return tmp_path

    return make


def test_what_is_there(pairs) -> None:
    report = check(pairs((16, 16), (20, 32)), crop=16)
    assert report.ok
    assert str(report).splitlines() == [
        "layout          input/ + ref/",
        "pairs           2",
        "references      1 per input",
        "input size      16x16 to 20x32",
        "reference size  16x16",
        "ok",
    ]


def test_every_fault_is_reported(pairs, picture) -> None:
    folder = pairs((16, 16), (16, 16))
    picture(1).save(folder / "input" / "c.png")
    data = (folder / "ref" / "0.png").read_bytes()
    (folder / "ref" / "0.png").write_bytes(data[: len(data) // 2])
    (folder / "input" / "1.png").write_text("no image")
    report = check(folder)
    assert not report.ok
    assert [str(fault) for fault in report.unpaired] == ["input/c.png: no reference"]
    assert [fault.name for fault in report.unreadable] == ["0, reference 1", "1, input"]
    assert str(report).endswith("3 faults")


@pytest.mark.parametrize(
    ("sizes", "crop", "small"),
    [
        ([(16, 16), (8, 16)], 16, ["1, input"]),
        ([(9, 9), (9, 9)], 16, ["0, input", "1, input"]),
        ([(9, 9), (9, 9)], 0, []),
        ([(17, 18), (30, 19)], 16, []),
        ([(16, 16), (16, 16)], 160, []),
    ],
)
def test_sizes_for_the_crop(sizes: list, crop: int, small: list[str], pairs) -> None:
    report = check(pairs(*sizes), crop=crop)
    assert [fault.name for fault in report.small] == small
    assert report.ok == (not small)


def test_images_too_small_for_any_use(pairs) -> None:
    assert [str(fault) for fault in check(pairs((16, 16), (3, 16))).unsuitable] == [
        "1, input: 3x16 is smaller than 4x4"
    ]


def test_notes(pairs, picture) -> None:
    folder = pairs((17, 16), (16, 16), (16, 16))
    picture(1).save(folder / "ref" / "0.png")
    (folder / "ref" / "1.png").write_bytes((folder / "input" / "1.png").read_bytes())
    for part in ("input", "ref"):
        (folder / part / "2.png").write_bytes((folder / part / "1.png").read_bytes())
    report = check(folder)
    assert report.ok
    assert report.notes == [
        "sides of 1 inputs are no multiples of 4: cut at the right and bottom",
        "references differ in size: training cuts or mirrors them to one size",
        "1: the input is its own reference",
        "2: the input is its own reference",
        "2: the same images as pair 2 (1)",
    ]


def test_many_faults_of_one_kind_are_counted(pairs) -> None:
    text = str(check(pairs(*[(8, 8)] * 22), crop=16))
    assert text.count("smaller than the crop") == 20
    assert "small           ... and 2 more" in text


def test_exit_codes(tmp_path: Path, png, capsys) -> None:
    rows = [{"name": "a", "input": png(1, 160, 160), "reference": png(2, 160, 160)}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "good.parquet")
    rows.append({"name": "b", "input": {"bytes": rows[0]["input"]["bytes"][:99], "path": None}, "reference": png(2)})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bad.parquet")
    assert main(["data", "check", str(tmp_path / "good.parquet")]) == 0
    assert main(["data", "check", str(tmp_path / "bad.parquet")]) == 1
    assert main(["data", "check", str(tmp_path / "bad.parquet"), "--split", "train[:1]"]) == 0
    assert main(["data", "check", str(tmp_path / "good.parquet"), "--crop", "161"]) == 0
    assert "unreadable      b, input: " in capsys.readouterr().out


def test_a_folder_without_a_single_pair(tmp_path: Path, save, capsys) -> None:
    save(tmp_path / "input", a=1)
    save(tmp_path / "ref", b=1)
    assert main(["data", "check", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("2 faults\n")
