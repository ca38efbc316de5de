"""Mistakes that a user can make, as command lines and damaged files: the cases of `experiments.checks.refusals`.

All are drawn from one seed.  A case holds flags, in which `{base}` is a folder of its own, and what to put there.
"""

import inspect
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from localgrad.blocks import NETWORKS, networks_of
from localgrad.methods import METHODS

TRAIN, EVALUATE, DATA, STUDY = (
    "experiments.train",
    "experiments.evaluate",
    "localgrad.cli.data",
    "experiments.studies.al_depth",
)
SMALL = ("--dataset=digits", "--widths=8,8,8", "--target_width=8", "--batch_size=32", "--limit=96", "--epochs=1")
PLAN = ("--dry_run", "--workdir={base}/run")

_WHOLE = {  # flag -> whether 0 is allowed
    "target_width": False, "limit": False, "batch_size": False, "epochs": False, "seed": True, "trials": False,
    "stages": False, "data_parallel": False, "batches_per_call": False, "checkpoint_every_steps": True,
    "frozen": True, "micro_batches": False, "max_length": False, "vocabulary": False,
}  # fmt: skip
_REAL = (
    "dropout", "learning_rate", "weight_decay", "clip_norm", "label_noise", "feedback_learning_rate",
    "feedback_weight_decay",
)  # fmt: skip
_LISTS = ("widths", "blocks", "bridge", "cuts")
_NAMES = (
    "method", "profile", "codes", "net", "activation", "dataset", "optimizer", "schedule", "trials_by", "dtype",
    "engine", "staleness", "decay_on", "feedback_optimizer", "feedback_schedule",
)  # fmt: skip
_VALUES = ("0", "-1", "1.5", "nan", "inf", "1e309", "''", "None", "True", "x", "[]", "()", "{}", "(1,2)", "[[1]]",
           "(0,)", "(-1,)", "('a',)", "(1.5,)", "1j", "b'x'", "2**70", str(2**63), "10**9", "é", "1e-400",
           "...")  # fmt: skip


class Case(NamedTuple):
    """One mistake.

    Attributes:
      kind: what it is one of.
      program: the module whose `main` is called.
      flags: what it is given.
      setting: name of what `damaged_files.SETTINGS` puts into `{base}` first, and the damage: both may be empty.
      nonsense: it must be refused, for it means nothing.
      alone: it needs a process of its own.
    """

    kind: str
    program: str
    flags: tuple[str, ...]
    setting: str = ""
    damage: str = ""
    nonsense: bool = False
    alone: bool = False


def numbers() -> Iterator[Case]:
    """Numbers at and beyond their ends, and what is none."""
    make = partial(_train, "number")
    for name, zero in _WHOLE.items():
        for value in ("-1", "0", "1", "1.5", "abc", "", "nan", str(2**31), str(2**63), str(10**30), "1e3", " 3 "):
            bad = value in ("-1", "1.5", "abc", "", "nan", "1e3") or (value == "0" and not zero)
            huge = name in ("stages", "data_parallel", "trials") and len(value) > 5
            yield make((f"--{name}={value}",), nonsense=bad or huge)
    for name in _REAL:
        own = ("--method=dkp", "--net=mlp") if name.startswith("feedback") else ()
        given = tuple(f for f in SMALL if own == () or not f.startswith("--target_width"))
        for value in ("nan", "inf", "-inf", "1e309", "-1", "-1e-9", "0", "abc", "", "1e300", "1e-400", "1,5"):
            bad = value in ("nan", "inf", "-inf", "1e309", "-1", "-1e-9", "abc", "", "1,5")
            bad |= value == "1e300" and name in ("dropout", "label_noise")
            yield Case("number", TRAIN, (*given, *PLAN, *own, f"--{name}={value}"), nonsense=bad)


def lists() -> Iterator[Case]:
    """Lists of whole numbers."""
    for name in _LISTS:
        for value in ("", "0", "-1", "1.5", "8,,8", "a", "1e3", "8,0", "8,-8", "None", str(10**9), str(2**63), "8;8",
                      "0,1,2,3,4,5", ",".join(["1"] * 60), "3,2,1", "0,0,3", "nan"):  # fmt: skip
            bad = value in ("0", "-1", "1.5", "8,,8", "a", "1e3", "8,0", "8,-8", "None", "8;8", "nan", str(2**63))
            yield _train("list", (f"--{name}={value}",), nonsense=bad)


def names() -> Iterator[Case]:
    """What is no known name."""
    line: tuple[str, ...]
    for name in _NAMES:
        for value in ("", " ", "Adam ", "x" * 3000, "é😀", "%s{}", "../..", "None", "\n"):
            yield _train("name", (f"--{name}={value}",), nonsense=True)
    for value in ("", "crop,", "flip,flip", "spin", ",", "crop, flip", "x" * 999):
        yield _train("name", (f"--augment={value}",))
    for line in (
        ("--nosuch=1",),
        ("more",),
        ("--method",),
        ("--norm=maybe",),
        ("--resident=2",),
        ("--measure",),
        ("--",),
    ):
        yield Case("name", TRAIN, (*SMALL, *(f for f in PLAN if line != ("--measure",) or f != "--dry_run"), *line),
                   nonsense=line != ("--",))  # fmt: skip


def options(rng: random.Random) -> Iterator[Case]:
    """Options of every method and network, of wrong types and values."""
    for flag, makers in (("method", {name: method.make for name, method in METHODS.items()}),
                         ("net", {name: net.make for name, net in NETWORKS.items()})):  # fmt: skip
        for name, make in makers.items():
            own = ("network", "x_spec", "classes", "tx", "words", "vectors", "buckets", "dtype")
            keys = [key for key in inspect.signature(make).parameters if key not in own]
            text = flag == "net" and name in networks_of("texts")
            chosen = [(key, value) for key in keys for value in rng.sample(_VALUES, 3)]
            for key, value in rng.sample(chosen, min(len(chosen), 8)):
                given = [f"--dataset={'wordnet_gloss' if text else 'digits'}", "--batch_size=8", "--limit=16"]
                given += ["--data_dir={base}"] if text else []
                flags = (*given, *PLAN, f"--{flag}={name}", f"--{flag}_options={key}={value}")
                yield Case("option", TRAIN, flags, setting="nouns" if text else "",
                           nonsense=value in ("nan", "1j", "b'x'", "{}", "..."))  # fmt: skip
    for pair in ("", "=", "=1", "pool", "pool==1", "pool=1=2", "pool=(1", "pool=" + "(" * 500, "pool=" + "9" * 5000,
                 "pool=__import__('os')", "é=1", "pool=1,pool=2", "tx=1", "network=1", "classes=3"):  # fmt: skip
        yield _train("option", (f"--method_options={pair}",))


def combinations(rng: random.Random, count: int) -> Iterator[Case]:
    """Methods, networks, data and placements, by chance; none is nonsense by its form."""
    choices: dict[str, Sequence[str]] = {
        "method": list(METHODS),
        "net": ["mlp", "cnn", "convnet", "two_conv", "vgg8b", "resnet20", *networks_of("texts")],
        "dataset": ["digits", "digits", "wordnet_gloss"], "stages": ["1", "2", "3", "8"],
        "data_parallel": ["1", "2", "3"],
        "cuts": ["0,1", "0,1,3", "0,2,4", "1,2", "0,1,2,3"], "blocks": ["1", "2", "9", "2,1"], "trials": ["1", "2"],
        "trials_by": ["vmap", "loop"], "frozen": ["0", "1", "5"], "engine": ["auto", "sequential", "spmd", "mpmd"],
        "staleness": ["delayed", "locked"], "micro_batches": ["1", "2", "5", "8"], "dtype": ["float32", "float64"],
        "augment": ["crop", "flip", "crop,flip", "crop=99", "rescale=0.5,brightness"],
        "label_noise": ["0.2", "1"], "max_length": ["1", "7"],
        "optimizer": ["adamw", "sgd", "momentum", "heavy_ball", "rmsprop"],
        "schedule": ["cosine", "neco", "stairs", "step"],
        "step_epochs": ["1", "2,1", "0"], "step_factor": ["0.5", "-1"],
        "warmup_epochs": ["1", "9"], "padding": ["edge", "reflect"], "scaling": ["symmetric", "unit"],
        "greedy_epochs": ["1", "2"], "replay": ["1", "3"], "replay_shares": ["1,1", "1,x", "0,1"],
        "coarse_labels": ["2", "0:1", "few"], "double_buffered": ["1", "4"],
        "decay_on": ["all", "f", "g"],
        "resident": ["true", "false"], "norm": ["true", "false"], "dropout": ["0.5", "1", "0.999"],
        "feedback_learning_rate": ["0.1"], "grow_from": ["{base}/gone"], "word_vectors": ["{base}/gone.txt"],
        "widths": ["8", "8,8", "8,8,8,8"], "target_width": ["1", "9"], "bridge": ["1", "2,1"],
        "profile": ["iclr", "neco"], "codes": ["first", "fixed"],
        "batch_size": ["1", "2", "16"], "vocabulary": ["1", "20"], "activation": ["relu", "elu", "tanh"],
    }  # fmt: skip
    for _ in range(count):
        chosen = ["dataset", "method", "net", *rng.sample(sorted(set(choices) - {"dataset", "method", "net"}), 4)]
        given = tuple(f"--{name}={rng.choice(choices[name])}" for name in chosen)
        yield Case("combination", TRAIN, ("--batch_size=16", "--limit=48", "--data_dir={base}", *PLAN, *given), "nouns")


def paths() -> Iterator[Case]:
    """Folders that are none, and data that are not there."""
    more: tuple[str, ...]
    for damage in ("file", "link to nothing", "link to itself", "within a file", "a file within"):
        for name in ("workdir", "grow_from", "data_dir", "word_vectors"):
            more = ("--dataset=wordnet_gloss", "--net=embedding") if name in ("data_dir", "word_vectors") else ()
            flags = (*SMALL[3:], *more, "--workdir={base}/other", f"--{name}={{base}}/place")
            yield Case("path", TRAIN, flags, "place", damage, nonsense=True)
    for value in ("", "/proc/no/such", "/dev/null", "~nobody_here/x", "x" * 300, "gs://", "gs://no-such-bucket/x"):
        for name in ("workdir", "grow_from", "data_dir", "word_vectors"):
            if not (name == "workdir" and value == "") and not value.startswith("gs://no"):
                more = ("--dataset=mnist",) if name == "data_dir" else ()
                flags = (*SMALL[1:], *more, "--workdir={base}/other", f"--{name}={value}")
                yield Case("path", TRAIN, flags, nonsense=value != "")
    for name in ("..", ".", "nosuch", "nosuch/", "mnist:9.9.9", "emnist/none", "wordnet_gloss/none", "a b", "é"):
        yield Case("path", TRAIN, (*SMALL[3:], *PLAN, "--data_dir={base}", f"--dataset={name}"), nonsense=True)


def damaged_files(files: Callable[[str], Sequence[str]], damages: Sequence[str]) -> Iterator[Case]:
    """Damaged data, and damaged workdirs that are gone on with, evaluated and grown from.

    Args:
      files: what a setting has in it that may be damaged.
      damages: what may be done to a file.
    """
    data = {
        "idx": ("--dataset=mnist", "--net=mlp"),
        "nouns": ("--dataset=wordnet_gloss", "--net=embedding"),
        "snippets": ("--dataset=movie_snippets", "--net=embedding"),
        "vectors": ("--dataset=wordnet_gloss", "--net=embedding", "--word_vectors={base}/vectors.txt"),
        "prepared": ("--dataset=tiny_grey", "--net=mlp"),
    }
    for setting, given in data.items():
        for file, damage in itertools.product(files(setting), damages):
            flags = ("--batch_size=4", "--data_dir={base}", *given, *PLAN)
            yield Case("damaged data", TRAIN, flags, setting, f"{damage} of {file}")
    same = (*SMALL, "--workdir={base}/run")
    for file, damage in itertools.product(files("run"), damages):
        yield Case("damaged workdir", TRAIN, same, "run", f"{damage} of {file}")
        yield Case(
            "damaged workdir", EVALUATE, ("--workdir={base}/run", "--out={base}/out"), "run", f"{damage} of {file}"
        )
    grown = (*SMALL, "--widths=8,8,8,8", "--workdir={base}/new", "--grow_from={base}/run", "--dry_run")
    for file, damage in itertools.product(files("run"), damages):
        yield Case("damaged workdir", TRAIN, grown, "run", f"{damage} of {file}")


def evaluations() -> Iterator[Case]:
    """Flags of `evaluate`."""
    flags: tuple[str, ...]
    for value in ("", "nan", "inf", "a", "-1", "0.5,,", "2", "0.5,0.5"):
        flags = ("--workdir={base}/run", "--noexits", "--anytime", f"--thresholds={value}")
        yield Case("evaluate", EVALUATE, flags, "run", nonsense=value in ("", "nan", "a", "0.5,,"))
    for flags in (("--workdir=",), (), ("--workdir={base}/gone",), ("--workdir={base}/run,{base}/run",),
                  ("--workdir=,",),
                  ("--workdir={base}/run", "--out=/proc/x/y"),
                  ("--workdir={base}/run", "--out={base}/run/config.json/x"),
                  ("--workdir={base}/run/config.json",), ("--workdir={base}/run", "more"), ("--workdir=/dev/null",),
                  ("--workdir={base}/run", "--out="), ("--workdir={base}/run", "--nosuch"),
                  ("--workdir=" + "x" * 300,), ("--workdir=~nobody_here/x",)):  # fmt: skip
        yield Case("evaluate", EVALUATE, flags, "run", nonsense=flags[-1:] != ("--out=",))


def others() -> Iterator[Case]:
    """The program of the data, a study, and flags of several processes."""
    words: tuple[str, ...]
    flags: tuple[str, ...]
    for words in ((), ("prepare",), ("prepare", ""), ("prepare", "nosuch"), ("prepare", ".."), ("fetch", "mnist"),
                  ("prepare", "mnist", "more"), ("prepare", "é"), ("prepare", "movie_snippets", "--data_dir=/dev/null"),
                  ("prepare", "wordnet_gloss/none", "--data_dir=/proc/x"), ("prepare", "a b/c:d"), ("--nosuch",),
                  ("prepare", "mnist:x"), ("prepare", "x" * 300), ("prepare", "digits")):  # fmt: skip
        yield Case("data program", DATA, words, nonsense=True)
    study = ("--smoke", "--workdir={base}/rows", "--out={base}/results")
    for flags in ((), ("--rows=",), ("--rows=nosuch",), ("--rows=,",), ("--trials=0",),
                  ("--trials=-1",), ("--trials=x",),
                  ("--trials=99999999999",), ("--workdir={base}/place",), ("--out={base}/place",), ("--nosuch",),
                  ("--out=/proc/x",)):  # fmt: skip
        if flags:
            yield Case("study", STUDY, (*study, *flags), "place", "file", nonsense=True)
    for file, damage in itertools.product(("al_depth.json",), ("cut", "noise", "empty", "list", "null", "number")):
        yield Case("study", STUDY, (*study, "--rows=2", "--out={base}"), "table", f"{damage} of {file}", nonsense=True)
    for flags in (("--num_processes=2",), ("--process_id=0",), ("--coordinator=",), ("--coordinator=x",),
                  ("--coordinator=auto",),
                  ("--patience=nan", "--coordinator=localhost:1", "--num_processes=1", "--process_id=0"),
                  ("--coordinator=localhost:0", "--num_processes=0", "--process_id=0"),
                  ("--coordinator=localhost:99999", "--num_processes=1", "--process_id=0"),
                  ("--coordinator=no.such.host.here:7", "--num_processes=2", "--process_id=1", "--patience=1"),
                  ("--coordinator=localhost:-1", "--num_processes=2", "--process_id=1", "--patience=1")):  # fmt: skip
        yield Case("processes", TRAIN, (*SMALL, *PLAN, *flags), nonsense=True, alone=True)


def huge() -> Iterator[Case]:
    """Real runs of what no machine holds."""
    for flags in (("--widths=1000000000",), ("--target_width=2000000000",), ("--net=cnn", "--widths=3000000"),
                  ("--method=bp", "--widths=8", "--method_options=hidden=(2000000000,)"), ("--trials=100000000",),
                  ("--method=dkp", "--widths=9000000,9000000")):  # fmt: skip
        other = any(flag.startswith("--method=") for flag in flags)
        given = [flag for flag in SMALL if not (other and "target" in flag)]
        yield Case("huge", TRAIN, (*given, "--workdir={base}/run", *flags), nonsense=True)
    for flags in (("--stages=1000000000",), ("--data_parallel=100000",)):
        yield Case("huge", TRAIN, (*SMALL, *PLAN, *flags), nonsense=True, alone=True)


def cases(seed: int, files: Callable[[str], Sequence[str]], damages: Sequence[str], pairs: int = 90) -> list[Case]:
    """All cases, in a fixed order of kinds."""
    rng = random.Random(seed)
    return [
        *numbers(), *lists(), *names(), *options(rng), *combinations(rng, pairs), *paths(),
        *damaged_files(files, damages), *evaluations(), *others(), *huge(),
    ]  # fmt: skip


def _train(kind: str, flags: Sequence[str], **more: Any) -> Case:
    return Case(kind, TRAIN, (*SMALL, *PLAN, *flags), **more)
