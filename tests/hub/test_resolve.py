"""Names and folders; a hub that is a small server on this machine."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.reference import build_pair
from trivium.errors import HubError
from trivium.hub.auto import save_model
from trivium.hub.resolve import resolve_folder

SHA = "0" * 40


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve_folder(tmp_path) == tmp_path
    assert resolve_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["runs/demo/decoder", "./nothing", "../nothing", "a b", "", "org/name/x@main"])
def test_what_is_neither_folder_nor_name(name: str) -> None:
    with pytest.raises(HubError, match="expected a model folder or a hub name like org/name"):
        resolve_folder(name if name else "/nothing")
    with pytest.raises(HubError, match="is no folder"):
        resolve_folder(Path("org/name"))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A server with one repository, `org/tiny`, and the log of what was asked for."""
    source, asked = save_model(build_pair("gpt2").ours, tmp_path / "source"), []
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "modeling_tiny.py").write_text("raise SystemExit\n")
    files = sorted(path.name for path in source.iterdir())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            asked.append(self.path)
            name = self.path.rsplit("/", 1)[-1]
            if not self.path.startswith(("/api/models/org/tiny/", "/org/tiny/")):
                return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
            if "/revision/" in self.path:
                siblings = [{"rfilename": file} for file in files]
                return self.reply(200, json.dumps({"id": "org/tiny", "sha": SHA, "siblings": siblings}).encode())
            if "/tree/" in self.path:
                tree = [{"type": "file", "path": f, "size": (source / f).stat().st_size, "oid": f} for f in files]
                return self.reply(200, json.dumps(tree).encode())
            return self.reply(200, (source / name).read_bytes(), {"X-Repo-Commit": SHA, "ETag": f'"{name}"'})

        def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def run(code: str, home: Path, **variables: str) -> str:
    """Fresh processes: the hub's variables are read when its library is imported."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HF_HOME": str(home),
        "PYTHONPATH": ":".join(sys.path),
        **variables,
    }
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


RESOLVE = """
from trivium.errors import HubError
from trivium.hub.resolve import resolve_folder
try:
    print(*sorted(path.name for path in resolve_folder({name!r}).iterdir()))
except HubError as error:
    print(error)
"""


def test_a_name_is_downloaded_once_without_code_and_pickles(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, asked = hub
    home, files = tmp_path / "home", "README.md config.json generation_config.json model.safetensors"
    assert run(RESOLVE.format(name="org/tiny@main"), home, HF_ENDPOINT=endpoint) == files
    assert not [path for path in asked if path.endswith((".bin", ".py"))]
    count = len(asked)
    assert run(RESOLVE.format(name="org/tiny"), home, HF_HUB_OFFLINE="1", HF_ENDPOINT=endpoint) == files
    assert len(asked) == count
    answer = run(RESOLVE.format(name="org/none"), home, HF_ENDPOINT=endpoint)
    assert answer.startswith("org/none is no folder here and could not be had from the hub")
    answer = run(RESOLVE.format(name="org/other"), home, HF_HUB_OFFLINE="1", HF_ENDPOINT=endpoint)
    assert answer.startswith("org/other is no folder here and could not be had from the hub")
    assert "\n" not in answer
