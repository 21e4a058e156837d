"""A Hub in memory, which speaks the endpoints that frfsr needs of the real one, for models and datasets."""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_right"
TOKEN_FREE = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
Files = dict[str, bytes]


class Repository:
    """Commits, each with all of its files, and the branches that name them."""

    def __init__(self, kind: str, name: str, *, is_private: bool = False):
        self.kind, self.name, self.is_private = kind, name, is_private
        self.commits: dict[str, Files] = {}
        self.branches: dict[str, str | None] = {"main": None}

    def find(self, revision: str) -> tuple[str, Files] | None:
        """(commit, files) of a branch or commit."""
        commit = self.branches.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else None

    def commit(self, branch: str, lines: list[dict], stored: Files) -> str:
        """Apply the operations of a commit; returns its name."""
        found = self.find(branch)
        files = dict(found[1]) if found else {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        name = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name


class Hub(BaseHTTPRequestHandler):
    """Repositories by kind and name, and the large files that commits refer to."""

    repositories: dict[tuple[str, str], Repository]
    stored: Files

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and parts[-1] != "validate-yaml":
            return self.answer(401, {"error": "Invalid username or password."})
        if parts == ["api", "validate-yaml"]:  # of a card
            return self.answer(200, {"errors": [], "warnings": []})
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            kind, name = f"{asked.get('type', 'model')}s", f"{asked['organization']}/{asked['name']}"
            status = 409 if (kind, name) in self.repositories else 200
            is_private = asked.get("private", asked.get("visibility") == "private")  # as older and newer clients say it
            self.repositories.setdefault((kind, name), Repository(kind, name, is_private=is_private))
            prefix = "datasets/" if kind == "datasets" else ""
            return self.answer(status, {"url": f"{self.home}/{prefix}{name}", "name": name})
        if parts[-1] == "batch":  # [datasets/]OWNER/NAME.git/info/lfs/objects/batch
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.home}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        repository, action, revision = self.repositories[parts[1], "/".join(parts[2:4])], parts[4], "/".join(parts[5:])
        if action == "branch":
            status = 409 if revision in repository.branches else 200
            repository.branches.setdefault(revision, repository.branches["main"])
            return self.answer(status, {})
        if action == "preupload":
            files = [
                {"path": path, "uploadMode": "lfs" if path.endswith(".parquet") else "regular", "shouldIgnore": False}
                for path in (file["path"] for file in json.loads(body)["files"])
            ]
            return self.answer(200, {"files": files})
        if action == "paths-info":
            return self.answer(200, entries(repository.find(revision)[1], wanted_paths(body)))
        commit = repository.commit(revision, [json.loads(line) for line in body.splitlines()], self.stored)
        return self.answer(200, {"commitOid": commit, "commitUrl": f"{self.home}/{repository.name}/commit/{commit}"})

    def do_PUT(self) -> None:
        self.stored[self.path.split("/")[-1]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {})

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        is_api, kind = parts[0] == "api", "models"
        parts = parts[1:] if is_api else parts
        if parts[0] in ("models", "datasets"):
            kind, *parts = parts
        name, action = "/".join(parts[:2]), parts[2] if len(parts) > 2 else ""
        repository = self.repositories.get((kind, name))
        if repository is None:
            return self.answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        revision = parts[3] if len(parts) > 3 else "main"
        found = repository.find(revision)
        if not action or action == "revision":  # information on the repository
            if action and not found:
                return self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
            facts = {"id": name, "sha": found and found[0], "siblings": [], "private": repository.is_private}
            return self.answer(200, facts)
        if not found:
            return self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        commit, files = found
        path = "/".join(parts[4:])
        if action == "tree" and (not path or entries(files, [path])):
            return self.answer(200, listed(files, path, recursive="recursive=true" in self.path.lower()))
        if path not in files:
            return self.answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        etag = f'"{hashlib.sha256(files[path]).hexdigest()}"'
        return self.answer(200, files[path], {"X-Repo-Commit": commit, "ETag": etag})

    do_HEAD = do_GET  # noqa: N815 (so http.server finds it)

    @property
    def home(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, status: int, body: dict | list | bytes, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def wanted_paths(body: bytes) -> list[str]:
    """Of a request for paths-info, which is JSON or a form."""
    try:
        return json.loads(body)["paths"]
    except ValueError:
        return [unquote(part.partition("=")[2]) for part in body.decode().split("&") if part.startswith("paths=")]


def entries(files: Files, paths: list[str]) -> list[dict]:
    """Files and folders as the Hub lists them."""
    found = []
    for path in paths:
        if path in files:
            found.append({"type": "file", "path": path, "size": len(files[path]), "oid": "0" * 40})
        elif any(file.startswith(f"{path}/") for file in files):
            found.append({"type": "directory", "path": path, "oid": "0" * 40})
    return found


def listed(files: Files, folder: str, recursive: bool) -> list[dict]:
    """What a folder of a repository holds."""
    start = f"{folder}/" if folder else ""
    inside = [file.removeprefix(start) for file in files if file.startswith(start)]
    depths = {"/".join(file.split("/")[:depth]) for file in inside for depth in range(1, file.count("/") + 2)}
    return entries(files, [start + path for path in sorted(depths) if recursive or "/" not in path])


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """Address of a server with an empty Hub."""
    handler = type("EmptyHub", (Hub,), {"repositories": {}, "stored": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def only_this_hub(hub: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that knows this Hub alone, and has its cache in `tmp_path`."""
    known = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return known | {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home")} | TOKEN_FREE
