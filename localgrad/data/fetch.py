"""The files of the text sets that have readers of their own: where they are, and how they get there.

Nothing is downloaded unless `prepare` is asked to, and it goes through the tools that publish the sets.
"""

import base64
import hashlib
import io
import os
import re
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from localgrad.data import tfds, tfds_folders

_ARCHIVE = "vaderSentiment-0.5.zip"
_ARCHIVE_SHA256 = "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a"  # as PyPI publishes it
_ARCHIVE_BYTES = 2_448_964
_INDEX = "https://pypi.org/simple"
_INDEX_BYTES = _MEMBER_BYTES = 1 << 24  # more than an index's page, or a member of the archive, has
_SNIPPETS = "additional_resources/hutto_ICWSM_2014.tar.gz"  # of the archive
SNIPPETS = "movieReviewSnippets_GroundTruth.txt"


def find(name: str, file: str, data_dir: str | Path | None, installed: Path | None = None) -> Path:
    """The path of a file of a set.

    Args:
      name: the set.
      file: the file's name.
      data_dir: a folder with the file, or with a folder of the set's name that has it; None looks where a package puts
        it (`installed`), then where `prepare` does.

    Raises:
      FileNotFoundError: saying where it looked and how to get the file.
    """
    folder = tfds_folders.root(data_dir)
    places = [folder / file, folder / name / file] if data_dir is not None else [folder / name / file]
    if installed is not None and data_dir is None:
        places.insert(0, installed)
    for path in places:
        if path.is_file():
            return path
    remedy = {
        "wordnet_gloss": f"`apt-get install wordnet-base`, or `{tfds_folders.command(name, data_dir)}`",
        "movie_snippets": f"`{tfds_folders.command(name, data_dir)}`",
    }.get(name, f"fetch the set as its authors published it, and pass --data_dir with the folder that holds {file}")
    raise FileNotFoundError(f"{name} is not here: looked for {' and '.join(map(str, places))}. Get it: {remedy}")


def prepare(name: str, data_dir: str | Path | None = None) -> Path:
    """Downloads a set and keeps what is read of it; one that is there already is left alone.

    Args:
      name: `wordnet_gloss` (of Debian's `wordnet-base`, by `apt-get`), `movie_snippets` (of PyPI's source archive of
        vaderSentiment 0.5, from pip's index; its hash is fixed, and nothing in it is run), or any set of
        tensorflow-datasets, see `tfds.prepare`.
      data_dir: see `tfds_folders.root`.

    Returns:
      The folder of the set.

    Raises:
      RuntimeError: the tool is not there or failed, or what came is not what was published; the message says so.
      ImportError, ValueError: as `tfds.prepare`.
    """
    folder = tfds_folders.root(data_dir) / name.partition("/")[0]
    if folder.name not in ("wordnet_gloss", "movie_snippets"):
        return tfds.prepare(name, data_dir)
    if folder.is_dir() and any(not path.name.endswith(".part") for path in folder.iterdir()):
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        if folder.name == "wordnet_gloss":
            _run(["apt-get", "download", "wordnet-base"], scratch)
            _run(["dpkg-deb", "-x", str(_only(scratch, "wordnet-base*.deb")), "."], scratch)
            content = (scratch / "usr/share/wordnet/data.noun").read_bytes()
            file = "data.noun"
        else:
            content, file = _snippets(_download()), SNIPPETS
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{file}.part"
        part.write_bytes(content)
        part.replace(folder / file)  # whole or not at all
    return folder


def _download() -> bytes:
    """The archive, from the index that pip is set to.  Pip itself would run the archive's setup.py to look at it."""
    page_url = f"{_index()}/vadersentiment/"
    links = re.findall(r"""href=["']([^"']+)["']""", _get(page_url, _INDEX_BYTES).decode("utf-8", "replace"))
    found = [link for link in links if urllib.parse.urlsplit(link).path.endswith(f"/{_ARCHIVE}")]
    if not found:
        raise RuntimeError(f"{page_url} has no {_ARCHIVE}: set PIP_INDEX_URL to an index that has it.")
    url = urllib.parse.urljoin(page_url, found[0].replace("&amp;", "&")).partition("#")[0]
    content = _get(url, _ARCHIVE_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    if digest != _ARCHIVE_SHA256:
        raise RuntimeError(f"{url} has the SHA-256 {digest}; expected {_ARCHIVE_SHA256}: it is not what was published.")
    return content


def _index() -> str:
    """The address of pip's index of packages."""
    given = os.environ.get("PIP_INDEX_URL")
    if not given:
        ask = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        given = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    return (given or _INDEX).rstrip("/")


def _get(url: str, most: int) -> bytes:
    """What stands at an address, of at most so many bytes."""
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    parts = urllib.parse.urlsplit(url)
    account, _, host = parts.netloc.rpartition("@")
    shown = parts._replace(netloc=host).geturl()  # without a password
    request = urllib.request.Request(shown, headers={"Accept": "text/html, */*;q=0.1"})
    if account:
        token = base64.b64encode(urllib.parse.unquote(account).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            content = answer.read(most + 1)
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise RuntimeError(f"{shown} cannot be read ({error}): fetch the set where it can, and copy it.") from None
    if len(content) > most:
        raise RuntimeError(f"{shown} has more than {most} bytes: it is not what was published.")
    return content


def _snippets(archive: bytes) -> bytes:
    """The sentences, unpacked in memory and no further than a file of theirs can be long."""
    with zipfile.ZipFile(io.BytesIO(archive)) as outer:
        name = next(name for name in outer.namelist() if name.endswith(_SNIPPETS))
        with outer.open(name) as packed:
            inner = _bounded(packed)
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        found = tar.extractfile(f"hutto_ICWSM_2014/{SNIPPETS}")
        assert found is not None  # the hash is that of the published archive
        return _bounded(found)


def _bounded(file: IO[bytes]) -> bytes:
    content = file.read(_MEMBER_BYTES + 1)
    if len(content) > _MEMBER_BYTES:
        raise RuntimeError(f"{_ARCHIVE} unpacks to more than {_MEMBER_BYTES} bytes: it is not what was published.")
    return content


def _only(folder: Path, pattern: str) -> Path:
    return next(iter(folder.glob(pattern)))


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError(f"`{command[0]}` is not on this machine: fetch the set where it is, and copy it.") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"`{' '.join(command)}` failed: {error.stderr.strip()}") from error
