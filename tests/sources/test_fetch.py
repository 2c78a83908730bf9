import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.sources.packages import (
    make_deb,
    make_release,
    make_sdist,
    make_tar,
    make_wheel,
    npm_registry,
    use_mirror,
    use_release,
    use_wheels,
)
from trivium.data.shards import hash_file
from trivium.errors import DataError
from trivium.sources import fetch

DEP5 = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: GPL-2+

Files: a
License: Expat or GPL-2+

License: GPL-2+
 Permission is granted, and so on.
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def needs(client: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(client) is None, reason=f"{client} is not installed here")


def test_a_wheel_comes_by_pip_with_its_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = make_wheel(tmp_path, "two-words", {"two_words/a.txt": b"hello"}, licence="Apache-2.0")
    use_wheels(tmp_path, monkeypatch)
    package = fetch.fetch_python("two-words")
    assert (package.kind, package.name, package.version, package.licence) == ("PyPI", "two-words", "1.0", "Apache-2.0")
    assert package.url == "https://example.org" and package.sha256 == hash_file(served)
    assert dict(fetch.read_members(package.archive, lambda path: path.endswith(".txt"))) == {
        "two_words/a.txt": b"hello"
    }
    served.unlink()  # from the cache now
    assert fetch.fetch_python("two-words") == package


def test_a_source_archive_comes_by_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sdist(tmp_path, "only-source", {"only/a.txt": b"hello"})
    use_wheels(tmp_path, monkeypatch)
    with pytest.raises(DataError, match=r"pip could not get only-source .*check the network"):
        fetch.fetch_python("only-source")
    package = fetch.fetch_python("only-source", sdist=True)
    assert package.licence == "MIT" and package.archive.suffix == ".gz"
    assert [path for path, _ in fetch.read_members(package.archive, lambda path: path.endswith("a.txt"))]


@needs("npm")
def test_a_package_comes_by_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = b'{"name": "verse", "version": "1.0.0", "license": "MIT", "repository": {"url": "git+https://example.org"}}'
    served = make_tar(tmp_path / "verse.tgz", {"package/package.json": about, "package/a.json": b"[]"})
    with npm_registry({"verse": served}, monkeypatch, tmp_path / "npm"):
        package = fetch.fetch_npm("verse")
    assert (package.kind, package.version, package.licence) == ("npm", "1.0.0", "MIT")
    assert package.url == "git+https://example.org" and package.sha256 == hash_file(served)


@needs("apt-get")
def test_a_package_comes_by_apt_and_links_do_not_count_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = make_deb(tmp_path, "manual-3.10", {"usr/share/man/man1/a.1.gz": b".SH NAME\n"}, DEP5)
    older = make_deb(tmp_path, "manual-3.9", {})
    make_release(tmp_path, [deb, older], [])
    use_release(tmp_path, monkeypatch)
    assert fetch.list_debian([r"manual-[\d.]+", "no-such-manual"]) == ["manual-3.10"]
    package = fetch.fetch_debian("manual-3.10")
    assert (package.version, package.licence) == ("1.0-1", "Expat or GPL-2+, GPL-2+")
    assert package.url == "https://example.org/manual"
    members = dict(fetch.read_members(package.archive, lambda path: True))
    assert sorted(members) == ["usr/share/doc/manual-3.10/copyright", "usr/share/man/man1/a.1.gz"]
    assert gzip.decompress(members["usr/share/man/man1/a.1.gz"]) == b".SH NAME\n"
    first = next(fetch.read_members(package.archive, lambda path: True))  # who stops early is no error
    assert first[0] in members
    with pytest.raises(DataError, match=r"apt-get could not get no-such-thing .*Unable to locate"):
        fetch.fetch_debian("no-such-thing")


@needs("apt-get")
def test_indexes_are_read_from_a_private_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"Package": "a", "Source": "s (1.0)", "Section": "text", "Description-en": "short\n long\n .\n more"}
    make_release(tmp_path, [], [about])
    use_release(tmp_path, monkeypatch)
    (index,) = fetch.debian_index("Translations")
    assert index.is_relative_to(tmp_path / "cache")
    assert [stanza["Description-en"] for stanza in fetch.read_stanzas(index)] == ["short\n long\n .\n more"]
    shutil.rmtree(tmp_path / "dists")
    assert fetch.debian_index("Translations") == [index]  # fetched once


@needs("apt-get")
def test_another_suite_has_a_state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in ("test", "newer"):
        about = {"Package": "a", "Source": "s", "Section": "text", "Description-en": f"short\n of {suite}"}
        make_release(tmp_path, [], [about], suite)
    use_release(tmp_path, monkeypatch)
    use_mirror(tmp_path, monkeypatch)
    for suite in ("", "newer", ""):
        (index,) = fetch.debian_index("Translations", suite)
        assert [each["Description-en"] for each in fetch.read_stanzas(index)] == [f"short\n of {suite or 'test'}"]
    assert index.is_relative_to(tmp_path / "cache") and fetch.list_releases() == ["test"]
    assert fetch.debian_index("Packages", "newer")[0].is_relative_to(fetch.cache_folder("apt-newer"))


@needs("apt-get")
def test_another_suite_must_be_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_release(tmp_path, [], [], "newer")
    use_mirror(tmp_path, monkeypatch, options="lang=en")
    with pytest.raises(DataError, match=r"get the package indexes of Debian newer .*is not signed"):
        fetch.update_debian("newer")
    (tmp_path / "keys").unlink()
    with pytest.raises(DataError, match=r"keys are not here; expected .*; install debian-archive-keyring"):
        fetch.update_debian("newer")


def test_a_release_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("apt-get is not installed here")
    use_release(tmp_path, monkeypatch)
    with pytest.raises(DataError, match="apt-get could not get Debian's package indexes"):
        fetch.update_debian()


@pytest.mark.parametrize("call", [fetch.fetch_npm, fetch.fetch_debian])
def test_a_missing_client_is_one_sentence(call: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="which is not installed; expected it on PATH; install it"):
        call("anything")  # type: ignore[operator]


def test_a_silent_client_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SECONDS", 0.05)
    with pytest.raises(DataError, match="sleep did not answer"):
        fetch.run_client(["sleep", "5"], "nothing")


@pytest.mark.parametrize("name", ["a.whl", "a.tgz", "a.deb"])
def test_a_broken_archive_is_one_sentence(name: str, tmp_path: Path) -> None:
    if name == "a.deb" and shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed here")
    (tmp_path / name).write_bytes(b"\x1f\x8bno archive" * 50)
    with pytest.raises(DataError, match="is no whole archive"):
        list(fetch.read_members(tmp_path / name, lambda path: True))


def test_a_cut_archive_is_one_sentence(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "a.tgz", {f"{number}.txt": bytes(range(256)) * 40 for number in range(50)})
    whole.write_bytes(whole.read_bytes()[:600])
    with pytest.raises(DataError, match="is no whole archive"):
        list(fetch.read_members(whole, lambda path: True))


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MEMBER_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1001))
    tar = make_tar(tmp_path / "a.tgz", {"bomb": bytes(1001)})
    for path in (tmp_path / "a.zip", tar):
        with pytest.raises(DataError, match="1,001 bytes; expected at most"):
            list(fetch.read_members(path, lambda path: True))


def test_only_regular_files_come_out_of_a_tar(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tgz", {"a": b"1"}, {"b": "/etc/passwd"})
    with tarfile.open(tar) as archive:
        assert archive.getnames() == ["a", "b"]
    assert list(fetch.read_members(tar, lambda path: True)) == [("a", b"1")]


def test_licences_are_read_from_fields_or_from_words() -> None:
    assert fetch.read_licence(DEP5) == "Expat or GPL-2+, GPL-2+"
    words = "This is under the GNU General\n Public License, version 2: see /usr/share/common-licenses/GPL-2."
    assert fetch.read_licence(words) == "GPL-2"
    assert fetch.read_licence("License: you may do what you like, and so on, for ever and ever.") == fetch.UNNAMED


def test_nothing_half_fetched_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "run_client", _half)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch_npm("verse")
    assert list((tmp_path / "cache" / "trivium" / "sources" / "npm" / "verse").iterdir()) == []


def _half(command: list[str], wanted: str, *, folder: Path) -> bytes:
    (folder / "verse.tgz").write_bytes(b"half")
    raise KeyboardInterrupt
