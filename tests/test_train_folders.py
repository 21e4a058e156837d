"""Run folders as accidents leave them: a run goes on, or says in one line why it does not; nothing is lost."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

import frfsr.recipes.train as recipe
from frfsr.cli import main
from frfsr.errors import UserError
from frfsr.files import append
from frfsr.recipes.ending import INTERRUPTED, guarded
from frfsr.recipes.plot import read_log
from frfsr.recipes.setup import build_network

RECIPES = Path(recipe.__file__).parent


@pytest.fixture(scope="module")
def train(training_pairs, small_training) -> Callable[..., int]:
    """train(out, settings...): a small run of two steps; returns the exit code."""

    def train(out: Path, *settings: str) -> int:
        run = [f"data={training_pairs}", f"out={out}", "crop=32", "reference_side=64", "init={}", "frozen=[]"]
        return recipe.main(["--config", str(RECIPES / "tiny_rec.yaml"), *small_training, *run, "steps=2", *settings])

    return train


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert train(folder, "checkpoint_every=1") == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def test_lost_weights_are_exported_again(train, run: Path, finished: Path, capsys) -> None:
    shutil.rmtree(run / "weights")
    assert train(run) == 0
    assert "all 2 steps are done" in capsys.readouterr().out
    again, before = (load_file(folder / "weights" / "model.safetensors") for folder in (run, finished))
    assert all(again[name].equal(before[name]) for name in before)


@pytest.mark.parametrize("killed", ["before the new one came", "before the old one went"])
def test_a_checkpoint_whose_replacement_was_killed_is_found(train, run: Path, capsys, killed: str) -> None:
    place, old = run / "checkpoints" / "0000002", run / "checkpoints" / ".0000002.old"
    shutil.copytree(place, old)
    if killed == "before the new one came":
        place.rename(run / "checkpoints" / ".partial")
    shutil.rmtree(run / "checkpoints" / "0000001", ignore_errors=True)
    assert train(run) == 0
    assert "all 2 steps are done" in capsys.readouterr().out
    assert place.is_dir()
    assert not old.exists()


def test_checkpoints_that_cannot_be_written_are_named_before_the_first_step(
    train, run: Path, capsys, monkeypatch
) -> None:
    """The missing right is played: tests may run as root, who may write anywhere."""

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("frfsr.files.TemporaryDirectory", refused)
    assert train(run, "steps=3") == 2
    place = run / "checkpoints"
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"cannot write to {place}: Permission denied.")


@pytest.mark.parametrize("name", ["0000002.bak", "0000002 (copy)", "2x"])
def test_folders_of_other_names_are_no_checkpoints(train, run: Path, name: str) -> None:
    shutil.copytree(run / "checkpoints" / "0000002", run / "checkpoints" / name)
    (run / "checkpoints" / "0000009").write_text("no folder")
    assert train(run) == 0
    assert (run / "checkpoints" / name).is_dir()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.yaml", b"\xff\xfe", "holds no settings"),
        ("config.yaml", b"[1, 2]", "holds no settings"),
        ("config.yaml", b"{a: [", "holds no settings"),
        ("config.yaml", b"when: 2024-99-99", "holds no settings"),
        ("config.yaml", b"lr: 5", "with other settings"),
        ("data.sha256", b"\xff\xfe", "with other settings (data)"),
    ],
)
def test_damaged_settings(train, run: Path, capsys, file: str, content: bytes, message: str) -> None:
    (run / file).write_bytes(content)
    assert train(run) == 2
    error = capsys.readouterr().err.strip()
    assert message in error.splitlines()[-1]
    assert (run / file).read_bytes() == content


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_a_killed_run_was_saving_is_in_nobodys_way(train, run: Path, is_folder: bool) -> None:
    place = run / "checkpoints" / ".partial"
    shutil.copytree(run / "checkpoints" / "0000001", place) if is_folder else place.write_text("")
    if is_folder:
        (place / "stray").write_text("of a run with more processes")
    assert train(run, "steps=3") == 0
    assert sorted(os.listdir(run / "checkpoints")) == ["0000002", "0000003"]
    assert not (run / "checkpoints" / "0000003" / "stray").exists()


def test_a_line_that_a_killed_run_was_writing_spoils_no_other(tmp_path: Path) -> None:
    for line in ({"step": 1, "l1": 0.5}, {"step": 2, "l1": 0.25}):
        append(tmp_path / "metrics.jsonl", line)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "l1": 0.')
    append(tmp_path / "metrics.jsonl", {"step": 3, "l1": 0.125})
    assert read_log(tmp_path) == {"l1": {1: 0.5, 2: 0.25, 3: 0.125}}
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\n[1]\n{}\n" + b"[" * 10**5)
    with pytest.raises(UserError, match="no line that can be read"):
        read_log(tmp_path)


HOLD = """
import fcntl, sys
with open(sys.argv[1], "ab") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("ready", flush=True)
    input()
"""


def test_two_runs_do_not_share_a_folder(train, run: Path, capsys) -> None:
    pytest.importorskip("fcntl")
    command = [sys.executable, "-c", HOLD, str(run / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        before = (run / "environment.jsonl").read_bytes()
        assert train(run) == 2
        assert "is in use by another run: choose another out=" in capsys.readouterr().err
        assert (run / "environment.jsonl").read_bytes() == before
        other.communicate("go on\n")
    assert train(run) == 0


def test_an_interrupt_before_anything_is_trained_has_no_traceback(capsys) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert guarded(interrupted) == INTERRUPTED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["steps=" + "9" * 5000], "the value is no YAML"),
        (["steps=" + "[" * 1000], "the value is no YAML"),
        (["out=2024-99-99"], "the value is no YAML"),
        (["model=5", "model.x=1"], "the model is no list of KEY: VALUE"),
    ],
)
def test_values_that_are_none(settings: list[str], message: str, capsys) -> None:
    assert main(["train", "tiny_rec", "data=x", "out=y", *settings]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("model", [{"architecture": ["frfsr"]}, {"architecture": None}, {"preset": ["tiny"]}])
def test_models_that_are_none(model: dict) -> None:
    with pytest.raises(UserError, match=r"unknown (architecture|preset)"):
        build_network(model)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_others_may_read_what_the_umask_lets_them(train, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert train(tmp_path / "run", "carry=true") == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".safetensors", ".yaml", ".json"}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o666 & ~umask)}
