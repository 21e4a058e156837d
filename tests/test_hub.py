"""The Hub, as far as frfsr needs it: a local server speaks its endpoints, another process pushes and pulls."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import ModelCard

from frfsr.cards import Origin, measured, model_card
from frfsr.checkpoints import PACKAGED

TOKEN = "hf_right"
TOKEN_FREE = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
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


class Hub(BaseHTTPRequestHandler):
    """Repositories of models in memory: {name: [(commit, {path: bytes})]}."""

    repositories: dict[str, list[tuple[str, dict[str, bytes]]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and parts[-1] != "validate-yaml":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.repositories.setdefault(name, [])
            return self.answer(200, {"url": f"{self.home}/{name}", "name": name})
        if self.path == "/api/validate-yaml":  # of the model card
            return self.answer(200, {"errors": [], "warnings": []})
        if parts[4] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        commits = self.repositories["/".join(parts[2:4])]
        files = dict(commits[-1][1]) if commits else {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = hashlib.sha1(body).hexdigest()
        commits.append((commit, files))
        return self.answer(
            200, {"commitOid": commit, "commitUrl": f"{self.home}/{'/'.join(parts[2:4])}/commit/{commit}"}
        )

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        if parts[0] == "api":  # GET /api/models/OWNER/NAME[/revision/...]
            commits = self.repositories.get("/".join(parts[2:4]))
            return self.answer(200, {"id": "/".join(parts[2:4]), "sha": commits[-1][0] if commits else None})
        name, revision, path = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if name not in self.repositories:
            return self.answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        commits = self.repositories[name]
        found = [commit for commit in commits if revision in ("main", commit[0])]
        if not found:
            return self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        commit, files = found[-1]
        if path not in files:
            return self.answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        etag = f'"{hashlib.sha256(files[path]).hexdigest()}"'
        return self.answer(200, files[path], {"X-Repo-Commit": commit, "ETag": etag})

    do_HEAD = do_GET

    @property
    def home(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, status: int, body: dict | bytes, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """Address of a server with an empty Hub."""
    handler = type("EmptyHub", (Hub,), {"repositories": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.slow
def test_push_and_pull(hub, small_model_folder, tmp_path) -> None:
    """In a process that knows this Hub alone: by revision, from the cache, and every refusal as one line."""
    known = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    known |= {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path)} | TOKEN_FREE
    arguments = [str(small_model_folder), str(tmp_path / "cache"), str(tmp_path / "other")]
    command = [sys.executable, "-c", PUSH_AND_PULL, *arguments]
    done = subprocess.run(command, env=known, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)
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
    card = model_card(small_model)
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
    table = (Path(__file__).parents[1] / "docs/results/table_I.csv").read_text().splitlines()
    columns = table[0].split(",")[1:]
    row = next(line.split(",")[1:] for line in table if line.split(",")[0] == name)
    expected = {
        (column, metric): float(value)
        for column, cell in zip(columns, row, strict=True)
        for metric, value in zip(("psnr", "ssim"), cell.split(" / "), strict=True)
    }
    found = {(result.dataset_name, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert {key: found.get(key) for key in expected} == expected, "measured anew: bring the cards up to date"
    for said in ("arxiv.org/abs/2306.01500", "## Use", "## Limits", "## Training"):
        assert said in card.text
