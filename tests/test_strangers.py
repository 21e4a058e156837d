"""Models of strangers: whatever config.json or weights hold is used as it is meant, or refused in one line."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import frfsr
from frfsr.architectures import ARCHITECTURES
from frfsr.base import load_single_image
from frfsr.checkpoints import CONFIG, WEIGHTS, read_checkpoint
from frfsr.errors import UserError
from frfsr.parts import RRDBNet
from frfsr.recipes.pretrained import load_part
from frfsr.settings import from_mapping

ODD_VALUES = (-1, 0, 2**40, 10**30, 1.5, 1e9, "x", "9" * 5000, None, [], {}, [1] * 9, [-1] * 3, [1e9] * 3, [[1]] * 3)
LONGEST = 700  # characters of a message, which may list keys
KIND = "holds no plain fractions"


@pytest.fixture
def folder(tmp_path: Path, small_model) -> Path:
    """A sound model."""
    small_model.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def refusal(load: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as raised:
        load()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < LONGEST
    return str(raised.value)


def numbers(value: Any) -> list[float]:
    if isinstance(value, list | tuple):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_numbers_of_a_configuration_are_bounded(name: str) -> None:
    config_class = ARCHITECTURES[name].module.config_class
    sound = asdict(config_class())
    for field in sound:
        for value in (*ODD_VALUES, float("nan"), float("inf")):
            values = sound | {field: value}
            try:
                config = from_mapping(config_class, values)
            except UserError:
                refusal(lambda values=values: from_mapping(config_class, values))
            else:
                assert all(0 <= number <= 4096 for number in numbers(list(asdict(config).values())))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"refine": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b"\xff\xfe{\0}\0", "cannot be read"),
        (b"[]", "no JSON object"),
        (b"NaN", "no JSON object"),
        (b'{"architecture": []}', "unknown architecture"),
        (b'{"architecture": "' + b"x" * 5000 + b'"}', "unknown architecture"),
        (b'{"format": "' + b"x" * 5000 + b'"}', "has format"),
        (b'{"' + b"x" * 5000 + b'": 1}', "unknown key"),
    ],
)
def test_files_that_are_no_configuration(folder: Path, content: bytes, message: str) -> None:
    (folder / CONFIG).write_bytes(content)
    assert message in refusal(lambda: frfsr.load(folder, "cpu"))


def test_a_byte_order_mark_is_no_content(folder: Path) -> None:
    (folder / CONFIG).write_bytes(b"\xef\xbb\xbf" + (folder / CONFIG).read_bytes())
    assert frfsr.load(folder, "cpu")


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_weights_of_any_precision(folder: Path, small_model, dtype: str) -> None:
    stored = {name: value.to(getattr(torch, dtype)).contiguous() for name, value in small_model.state_dict().items()}
    save_file(stored, folder / WEIGHTS)
    for name, value in frfsr.load(folder, "cpu").state_dict().items():
        assert torch.equal(value, stored[name].float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.to(torch.int8), "int8 instead of float32"),
        (lambda value: value > 0, "bool instead of float32"),
        (lambda value: value.to(torch.complex64), "complex64 instead of float32"),
        (lambda value: torch.full_like(value, torch.nan), "NaN or infinite"),
        (lambda value: torch.full_like(value, torch.inf, dtype=torch.float16), "NaN or infinite"),
        (lambda value: torch.full_like(value, 1e300, dtype=torch.float64), "NaN or infinite"),
        (lambda value: value[:1], "of another shape"),
        (lambda value: value.flatten(), "of another shape"),
    ],
)
def test_weights_of_another_kind(folder: Path, small_model, change: Callable, message: str) -> None:
    state = {name: value.contiguous() for name, value in small_model.state_dict().items()}
    save_file(
        state | {"sife.conv_first.weight": change(state["sife.conv_first.weight"]).contiguous()}, folder / WEIGHTS
    )
    said = refusal(lambda: frfsr.load(folder, "cpu"))
    assert message in said
    assert "sife.conv_first.weight" in said


def test_this_folder_is_no_packaged_name(folder: Path, small_model, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    assert frfsr.load(".", "cpu").config == small_model.config


@pytest.fixture
def rrdb() -> RRDBNet:
    return RRDBNet(features=4, blocks=1, growth=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.to(torch.int8), KIND),
        (lambda value: value > 0, KIND),
        (lambda value: value.to(torch.complex64), KIND),
        (lambda value: value.to_sparse(), KIND),
        (lambda value: value.to("meta"), KIND),
        (lambda value: torch.quantize_per_tensor(value.detach(), 0.1, 0, torch.qint8), KIND),
        (lambda value: torch.zeros(1).expand(10**6, *value.shape[1:]), "claims more values than the file holds"),
        (lambda value: torch.full_like(value, torch.nan), "NaN or infinite"),
        (lambda value: torch.tensor(1.0), ""),
        (lambda value: value[:0], ""),
        (lambda value: "text", ""),
    ],
)
def test_published_weights_of_another_kind(tmp_path: Path, rrdb: RRDBNet, change: Callable, message: str) -> None:
    file, key = tmp_path / "rrdb.pth", "conv_first.weight"
    torch.save({"params": rrdb.state_dict() | {key: change(rrdb.state_dict()[key])}}, file)
    for load in (
        lambda: ARCHITECTURES["rrdb"].from_published(read_checkpoint(file)),
        lambda: load_single_image(file, "cpu"),
        lambda: load_part(frfsr.FRFSR(frfsr.FRFSRConfig.tiny(sife_features=4, sife_growth=2)), "sife", str(file)),
    ):
        assert message in refusal(load)


@pytest.mark.parametrize("content", [[1], 5, None, {1: torch.zeros(1)}, {"a": {2: torch.zeros(1)}}, {}, {"params": 3}])
def test_files_of_something_else(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    refusal(lambda: load_single_image(tmp_path / "other.pth", "cpu"))
    refusal(lambda: ARCHITECTURES["rrdb"].from_published(read_checkpoint(tmp_path / "other.pth")))


def test_damage_in_the_middle_of_a_file_of_weights(tmp_path: Path, rrdb: RRDBNet) -> None:
    file = tmp_path / "rrdb.pth"
    torch.save(rrdb.state_dict(), file)
    sound = file.read_bytes()
    values = sound.index(rrdb.conv_first.weight.detach().numpy().tobytes())
    damaged = bytearray(sound)
    damaged[values + 40] ^= 0x10  # the network would load, and give another picture
    file.write_bytes(damaged)
    assert "is damaged" in refusal(lambda: read_checkpoint(file))
    file.write_bytes(sound[: len(sound) // 2])
    assert "not a whole one" in refusal(lambda: read_checkpoint(file))
    torch.save(rrdb.state_dict(), file, _use_new_zipfile_serialization=False)  # the form of older files
    assert torch.equal(read_checkpoint(file)["conv_first.weight"], rrdb.conv_first.weight)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for place in (tmp_path / "pipe.pth", tmp_path):
        assert "it is no file" in refusal(lambda place=place: read_checkpoint(place))


def test_an_unusual_configuration_runs(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({name: config[name] for name in reversed(config)}))
    assert frfsr.upscale(np.zeros((8, 9, 3), np.uint8), model=folder).shape == (32, 36, 3)
