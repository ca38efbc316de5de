"""The files of the text sets that have readers of their own: where they are, and how they get there.

Nothing is downloaded unless `prepare` is asked to, and it goes through the tools that publish the sets.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from localgrad.data import tfds

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
    folder = tfds.root(data_dir)
    places = [folder / file, folder / name / file] if data_dir is not None else [folder / name / file]
    if installed is not None and data_dir is None:
        places.insert(0, installed)
    for path in places:
        if path.is_file():
            return path
    remedy = {
        "wordnet_gloss": f"`apt-get install wordnet-base`, or `{tfds.command(name, data_dir)}`",
        "movie_snippets": f"`{tfds.command(name, data_dir)}`",
    }.get(name, f"fetch the set as its authors published it, and pass --data_dir with the folder that holds {file}")
    raise FileNotFoundError(f"{name} is not here: looked for {' and '.join(map(str, places))}. Get it: {remedy}")


def prepare(name: str, data_dir: str | Path | None = None) -> Path:
    """Downloads a set and keeps what is read of it; one that is there already is left alone.

    Args:
      name: `wordnet_gloss` (of Debian's `wordnet-base`, by `apt-get`), `movie_snippets` (of PyPI's source archive of
        vaderSentiment 0.5, by `pip`), or any set of tensorflow-datasets, see `tfds.prepare`.
      data_dir: see `tfds.root`.

    Returns:
      The folder of the set.

    Raises:
      RuntimeError: the tool is not there or failed; its own message is in it.
      ImportError, ValueError: as `tfds.prepare`.
    """
    folder = tfds.root(data_dir) / name.partition("/")[0]
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
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:", "vaderSentiment==0.5"]
            _run(pip, scratch)
            content, file = _snippets(_only(scratch, "vader*.zip")), SNIPPETS
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{file}.part"
        part.write_bytes(content)
        shutil.move(part, folder / file)  # whole or not at all
    return folder


def _snippets(archive: Path) -> bytes:
    with zipfile.ZipFile(archive) as outer:
        name = next(name for name in outer.namelist() if name.endswith(_SNIPPETS))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as inner:
            found = inner.extractfile(f"hutto_ICWSM_2014/{SNIPPETS}")
            assert found is not None  # a published archive does not change
            return found.read()


def _only(folder: Path, pattern: str) -> Path:
    return next(iter(folder.glob(pattern)))


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError(f"`{command[0]}` is not on this machine: fetch the set where it is, and copy it.") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"`{' '.join(command)}` failed: {error.stderr.strip()}") from error
