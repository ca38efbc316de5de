"""What is fetched: the archive that was published and no other, unpacked in memory, with nothing in it run."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from localgrad.cli.data import main
from localgrad.data import fetch, prepare

TEXT = b"1\t1.5\tA fine film\n"


def archive(member: str = f"hutto_ICWSM_2014/{fetch.SNIPPETS}", text: bytes = TEXT) -> bytes:
    """An archive of the form of the published one, with a setup.py that nobody may run."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("vaderSentiment-0.5/setup.py", "open('was_run', 'w')")
        packed.writestr("vaderSentiment-0.5/../../escaped", "out of the folder")
        packed.writestr(f"vaderSentiment-0.5/{fetch._SNIPPETS}", inner.getvalue())
    return outer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's index is a folder; returns where its archive belongs."""
    folder = tmp_path / "index" / "files"
    folder.mkdir(parents=True)
    path = folder / "vaderSentiment-0.5.zip"
    page = f'<a href="{path.as_uri()}#sha256=0">vaderSentiment-0.5.zip</a><a href="vaderSentiment-3.3.zip">other</a>'
    get = fetch._get
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple/")
    monkeypatch.setattr(fetch, "_get", lambda url, most: page.encode() if url.endswith("/") else get(url, most))
    return path


def pinned(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(fetch, "_ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())


def test_the_sentences_are_taken_and_nothing_else(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.write_bytes(archive())
    pinned(monkeypatch, archive())
    monkeypatch.setattr(fetch, "_run", lambda *_: pytest.fail("a program was run"))
    assert prepare("movie_snippets", tmp_path / "sets") == tmp_path / "sets" / "movie_snippets"
    assert [path.read_bytes() for path in (tmp_path / "sets").rglob("*") if path.is_file()] == [TEXT]
    assert not list(tmp_path.rglob("was_run")) and not list(tmp_path.rglob("escaped"))


def test_another_archive_is_refused(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index.write_bytes(archive())
    with pytest.raises(RuntimeError, match="has the SHA-256 .*expected 5d97c37f.*not what was published"):
        prepare("movie_snippets", tmp_path / "sets")
    assert not (tmp_path / "sets").exists()
    assert main(["prepare", "movie_snippets", f"--data_dir={tmp_path / 'sets'}"]) == 2
    assert "not what was published" in capsys.readouterr().err


def test_a_larger_archive_is_refused(index: Path, tmp_path: Path) -> None:
    index.write_bytes(bytes(fetch._ARCHIVE_BYTES + 2))
    with pytest.raises(RuntimeError, match="has more than 2448964 bytes"):
        prepare("movie_snippets", tmp_path / "sets")


def test_an_archive_that_is_not_there(index: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"vaderSentiment-0.5.zip cannot be read .*copy it"):
        prepare("movie_snippets", tmp_path / "sets")


def test_what_unpacks_too_far_is_refused(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archive(text=bytes(fetch._MEMBER_BYTES + 1))
    index.write_bytes(bomb)
    pinned(monkeypatch, bomb)
    with pytest.raises(RuntimeError, match="unpacks to more than 16777216 bytes"):
        prepare("movie_snippets", tmp_path / "sets")


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(RuntimeError) as error:
        fetch._download()
    assert "http://127.0.0.1:9/simple/vadersentiment/" in str(error.value) and "secret" not in str(error.value)
