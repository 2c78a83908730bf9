"""A Hugging Face hub on this machine: folders served under names, over the protocol that huggingface_hub speaks.

`with serving({"gpt2": folder}) as hub: hub.run(code)` runs code in a fresh process that has this hub alone for a
network. The fixtures `hub`, `gpt2_folder` and `t5_folder` are in tests/conftest.py. Answers: docs of the hub's API,
and what the client was seen to ask (revision, tree, HEAD and GET of files with ranges, redirects of short names).
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

GUARD = Path(__file__).parent / "guard"
_API = re.compile(r"/api/models/(?P<name>[^/]+(?:/[^/]+)?)/(?P<what>revision|tree)/(?P<revision>[^/?]+)")
_FILE = re.compile(r"/(?P<name>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


class Request(NamedTuple):
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Hub:
    """A running hub. Change its fields at any time; names are `org/name` or short ones like `gpt2`.

    `folders` are served; `aliases` are redirected, as the real hub does with short names; `gated` answer 403 without
    the token `secret`; `broken` answer 500. `cuts` maps a file's name to the byte after which the connection is
    closed (once each), `damaged` names files of which one byte arrives wrong. `asked` is the log.
    """

    url: str
    home: Path
    folders: dict[str, Path] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    revisions: dict[str, set[str]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    cuts: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    asked: list[Request] = field(default_factory=list)

    def sha_of(self, name: str) -> str:
        """The commit that a name's revisions all mean."""
        return hashlib.sha1(name.encode()).hexdigest()

    def environment(self, **variables: str) -> dict[str, str]:
        """What a process needs to see this hub and nothing else; a HOME and a cache of its own."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "huggingface"),
            "HF_ENDPOINT": self.url,
            "PYTHONPATH": os.pathsep.join([str(GUARD), *filter(None, sys.path)]),
            "GUARD_LOG": str(self.home / "blocked.txt"),
            "OMP_NUM_THREADS": "1",
            **variables,
        }

    def run(self, code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in a fresh process (the client reads its variables at import) and give what it printed.

        Fails if the process does, or if it tried to speak to another machine.
        """
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(
            command, env=self.environment(**variables), cwd=self.home, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        self.assert_nothing_else_was_asked()
        return done

    def assert_nothing_else_was_asked(self) -> None:
        """No process of this hub's environment tried to speak to another machine."""
        log = self.home / "blocked.txt"
        assert not log.exists(), f"another machine was asked for: {log.read_text()}"


@contextmanager
def serving(folders: Mapping[str, Path], home: Path) -> Iterator[Hub]:
    """A hub with some folders, until the end of the block; `home` is an empty folder for processes to live in."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    home.mkdir(parents=True, exist_ok=True)
    hub = Hub(f"http://127.0.0.1:{server.server_port}", home, dict(folders))
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        hub.asked.append(Request(self.command, self.path, dict(self.headers)))
        path = unquote(urlsplit(self.path).path)
        match = _API.fullmatch(path) or _FILE.fullmatch(path)
        if match is None:
            return self.reply(404, b"no such page")
        name, revision = match["name"], match["revision"]
        if name in hub.aliases:
            return self.reply(307, b"", {"Location": self.path.replace(f"/{name}/", f"/{hub.aliases[name]}/", 1)})
        if name in hub.broken:
            return self.reply(500, b"out of order")
        if name not in hub.folders:
            return self.fail(401, "RepoNotFound", "Repository not found")
        if name in hub.gated and self.headers.get("Authorization") != "Bearer secret":
            return self.fail(403, "GatedRepo", f"Access to model {name} is restricted. You must be authenticated.")
        if revision not in {"main", hub.sha_of(name), *hub.revisions.get(name, ())}:
            return self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        folder = hub.folders[name]
        if match.re is _FILE:
            return self.file(hub, folder, match["file"], hub.sha_of(name))
        if match["what"] == "tree":
            return self.json(list_tree(folder))
        siblings = [{"rfilename": each["path"]} for each in list_tree(folder)]
        return self.json({"id": name, "sha": hub.sha_of(name), "siblings": siblings})

    def file(self, hub: Hub, folder: Path, name: str, sha: str) -> None:
        entry = next((each for each in list_tree(folder) if each["path"] == name), None)
        if entry is None:
            return self.fail(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
        content = (folder / name).read_bytes()
        tag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        if name in hub.damaged and self.command == "GET" and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        status, start = 200, 0
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            status, start, end = 206, int(found[1]), int(found[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content = content[start : end + 1]
        cut = hub.cuts.pop(name, None) if self.command == "GET" else None
        self.reply(status, content, headers, cut=cut)

    def fail(self, status: int, code: str, words: str, headers: dict[str, str] | None = None) -> None:
        self.reply(status, b"", {"X-Error-Code": code, "X-Error-Message": words, **(headers or {})})

    def json(self, value: Any) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def list_tree(folder: Path) -> list[dict[str, Any]]:
    """The files of a repository as the hub lists them: git's hash for small text, sha256 for what lies in LFS."""
    entries: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry = {"type": "file", "path": path.relative_to(folder).as_posix(), "size": len(content), "oid": blob}
        if path.suffix in (".safetensors", ".bin", ".model", ".gguf"):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 132}
        entries.append(entry)
    return entries
