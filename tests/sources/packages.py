"""Hand-made packages and the three places that serve them: a folder for pip, a registry for npm, a release for apt."""

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trivium.sources import fetch

BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, settings=None):
    made = pathlib.Path(folder, "NAME-1.0.dist-info")
    made.mkdir()
    (made / "METADATA").write_text(pathlib.Path("PKG-INFO").read_text())
    return made.name
def build_wheel(*given): raise RuntimeError("nothing is to be built")
def build_sdist(*given): raise RuntimeError("nothing is to be built")
"""
BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def metadata(name: str, licence: str) -> str:
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: {licence}\nHome-page: https://example.org\n"


def make_wheel(folder: Path, name: str, files: dict[str, bytes], licence: str = "MIT") -> Path:
    """A wheel with these files."""
    stem = name.replace("-", "_") + "-1.0"
    path = folder / f"{stem}-py3-none-any.whl"
    info = {"METADATA": metadata(name, licence), "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n", "RECORD": ""}
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            archive.writestr(file, data)
        for file, text in info.items():
            archive.writestr(f"{stem}.dist-info/{file}", text)
    return path


def make_tar(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """A .tar.gz with these files, and symbolic links."""
    with tarfile.open(path, "w:gz") as archive:
        for file, data in files.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for file, target in (links or {}).items():
            entry = tarfile.TarInfo(file)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return path


def make_sdist(folder: Path, name: str, files: dict[str, bytes], licence: str = "MIT") -> Path:
    """A source archive with these files, built by a backend of its own that needs no network."""
    backend = BACKEND.replace("NAME", name.replace("-", "_"))
    own = {"PKG-INFO": metadata(name, licence), "pyproject.toml": BUILD, "backend.py": backend}
    every = {file: text.encode() for file, text in own.items()} | files
    return make_tar(folder / f"{name}-1.0.tar.gz", {f"{name}-1.0/{file}": data for file, data in every.items()})


def make_deb(folder: Path, name: str, files: dict[str, bytes], copyright_text: str = "License: GPL-2+\n") -> Path:
    """A Debian package with these files, the gz ones compressed, and a copyright file."""
    root = folder / f"{name}-root"
    control = f"Package: {name}\nVersion: 1.0-1\nArchitecture: all\nMaintainer: T <t@example.org>\n"
    control += "Homepage: https://example.org/manual\nDescription: made for a test\n"
    every = files | {"DEBIAN/control": control.encode(), f"usr/share/doc/{name}/copyright": copyright_text.encode()}
    for file, data in every.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(gzip.compress(data) if file.endswith(".gz") else data)
    (root / f"usr/share/doc/{name}/again").symlink_to("copyright")
    path = folder / f"{name}_1.0-1_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, path], check=True, capture_output=True)
    return path


def make_release(folder: Path, debs: list[Path], described: list[dict[str, str]], suite: str = "test") -> None:
    """A release for apt: the packages given as files, and others that only its indexes know."""
    main = folder / "dists" / suite / "main"
    packages, translations = [], []
    for deb in debs:
        data = deb.read_bytes()
        control = subprocess.run(["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True).stdout
        place = os.path.relpath(deb, folder)
        packages.append(f"{control}Filename: {place}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n")
    for each in described:
        digest = hashlib.md5(each["Description-en"].encode(), usedforsecurity=False).hexdigest()
        head = f"Package: {each['Package']}\nVersion: 1\nArchitecture: all\nMaintainer: T\nFilename: x\nSize: 1\n"
        head += f"Source: {each['Source']}\nSection: {each['Section']}\nSHA256: {'0' * 64}\n"
        packages.append(f"{head}Description: x\nDescription-md5: {digest}\n")
        translations.append(
            f"Package: {each['Package']}\nDescription-md5: {digest}\nDescription-en: {each['Description-en']}\n"
        )
    architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    binary = f"binary-{architecture.stdout.strip()}"
    lines = []
    for name, records in {f"{binary}/Packages": packages, "i18n/Translation-en": translations}.items():
        text = "\n".join(records).encode()
        (main / name).parent.mkdir(parents=True, exist_ok=True)
        (main / name).write_bytes(text)
        lines.append(f" {hashlib.sha256(text).hexdigest()} {len(text)} main/{name}")
    head = f"Suite: {suite}\nCodename: {suite}\nComponents: main\nArchitectures: {architecture.stdout.strip()} all\n"
    (main.parent / "Release").write_text(
        f"{head}Date: Sat, 01 Aug 2026 00:00:00 UTC\nSHA256:\n" + "\n".join(lines) + "\n"
    )


def use_release(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let apt know this release and no other."""
    (folder / "sources.list").write_text(f"deb [trusted=yes] file:{folder} test main\n")
    settings = {"Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": "/dev/null"}
    (folder / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    patch.setenv("APT_CONFIG", str(folder / "apt.conf"))


def use_mirror(folder: Path, patch: pytest.MonkeyPatch, options: str = "trusted=yes") -> None:
    """Let this folder be the mirror of Debian's other releases."""
    (folder / "keys").touch()
    for name, value in {"MIRROR": f"file:{folder}", "KEYRING": folder / "keys", "OPTIONS": options}.items():
        patch.setattr(fetch, name, str(value))
    patch.setattr(fetch, "COMPONENTS", "main")


def use_wheels(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let pip know the archives in this folder and no others."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}.items():
        patch.setenv(name, value)


@contextmanager
def npm_registry(packages: dict[str, Path], patch: pytest.MonkeyPatch, cache: Path) -> Iterator[None]:
    """A registry on this machine that serves these archives as version 1.0.0."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").removesuffix(".tgz")
            data = packages[name].read_bytes()
            if not self.path.endswith(".tgz"):
                mark = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
                dist = {"tarball": f"{url}/{name}.tgz", "integrity": mark}
                version = {"name": name, "version": "1.0.0", "dist": dist}
                about = {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
                data = json.dumps(about).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    patch.setenv("npm_config_registry", url)
    patch.setenv("npm_config_cache", str(cache))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
