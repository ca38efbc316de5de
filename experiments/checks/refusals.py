"""Makes mistakes of every kind, as users do, and counts what becomes of them: a traceback or a hang is a fault.

Cases are drawn from a seed (`checks.mistakes`): numbers at and beyond their ends, wrong types, combinations,
damaged files and workdirs, for `train`, `evaluate`, a study and the program of the data.  Each ends as one of

    refused    a message and a status that is not 0
    accepted   status 0, and what it means is not nonsense by the case's own rule; its losses are finite
    nonsense   accepted, and should not have been
    traceback  an exception that nobody turned into a message; or the process died
    hang       more than `--patience` seconds of a processor, or ten times that by the clock

    python -m experiments.checks.refusals --cases=560

Expect no traceback, hang or nonsense; a quarter of an hour on two cores.  `--only=NUMBER` repeats one case.
Most cases run one after another in a few processes, with flags parsed anew; a case that needs its own process gets it.
"""

import argparse
import collections
import contextlib
import importlib
import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.checks import damaged_files, mistakes
from experiments.checks.mistakes import Case

FAULTS = ("traceback", "hang", "nonsense")
_START = 240  # seconds for a worker to begin, on a busy machine


class Hang(BaseException):
    """A case took too long."""


def chosen(seed: int, count: int, kinds: Sequence[str] = ()) -> dict[int, Case]:
    """About so many cases by number, of every kind in proportion to what there is, and more of small kinds."""
    every = list(enumerate(mistakes.cases(seed, damaged_files.files, tuple(damaged_files.DAMAGES))))
    by_kind: dict[str, list[tuple[int, Case]]] = collections.defaultdict(list)
    for number, case in every:
        if not kinds or case.kind in kinds:
            by_kind[case.kind].append((number, case))
    rng = random.Random(seed)
    picked: dict[int, Case] = {}
    share = min(1.0, count / sum(map(len, by_kind.values())))
    least = min(8, count // len(by_kind))
    for those in by_kind.values():
        picked |= dict(rng.sample(those, min(len(those), max(least, round(share * len(those))))))
    return dict(sorted(picked.items()))


def judge(case: Case, status: Any, out: str, err: str, base: Path) -> tuple[str, str]:
    """What a case ended as, and the line that says why."""
    if "Traceback (most recent call last)" in err:
        return "traceback", err.strip().splitlines()[-1][:300]
    if isinstance(status, int) and status < 0:
        return "traceback", f"died of signal {-status}"
    if status not in (0, None):
        lines = [line for line in err.splitlines() if "error:" in line or "FATAL" in line] or err.strip().splitlines()
        return ("refused", lines[-1][:300]) if lines else ("traceback", f"status {status} and no word")
    if case.nonsense:
        return "nonsense", "accepted"
    summary = base / "run" / "summary.json"
    trained = case.program == mistakes.TRAIN and "--dry_run" not in case.flags and summary.is_file()
    if trained and re.search(r"NaN|Infinity", summary.read_text()):
        return "nonsense", "its summary is not finite"
    return ("nonsense", "the plan is not finite") if re.search(r"\b(nan|inf)\b", out) else ("accepted", "")


def call(program: Any, case: Case, base: Path, patience: float) -> tuple[Any, str, str]:
    """Calls a program's `main` in this process: status, output, errors."""
    import jax
    from absl import app, flags

    arguments = [flag.replace("{base}", str(base)) for flag in case.flags]
    out, err = io.StringIO(), io.StringIO()

    def late(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, late)  # by the processor's time: a busy machine is no hang
    signal.setitimer(signal.ITIMER_PROF, patience)
    status: Any = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                if case.program == mistakes.DATA:
                    status = program.main(arguments)
                else:
                    flags.FLAGS.unparse_flags()
                    for name in list(flags.FLAGS):
                        flags.FLAGS[name].unparse()
                    sys.argv = [case.program, *arguments]
                    status = program.main(flags.FLAGS(sys.argv))
            except flags.Error as error:
                print(f"FATAL Flags parsing error: {error}", file=err)
                status = 1
            except app.UsageError as error:
                print(f"error: {error}", file=err)
                status = 1
            except SystemExit as stop:
                status = stop.code
            except Hang:
                return "hang", out.getvalue(), "Hang\n"
            except BaseException:
                traceback.print_exc()
                status = 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        jax.config.update("jax_enable_x64", False)
    return status, out.getvalue(), err.getvalue()


def alone(case: Case, base: Path, patience: float) -> tuple[Any, str, str]:
    """Runs a case in a process of its own."""
    flags = [flag.replace("{base}", str(base)) for flag in case.flags]
    line = [sys.executable, "-m", case.program, *flags]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=9 * patience, check=False)
    except subprocess.TimeoutExpired:
        return "hang", "", "Hang\n"
    return done.returncode, done.stdout, done.stderr


def work(numbers: list[int], cases: dict[int, Case], options: argparse.Namespace, scratch: Path, out: Path) -> None:
    """Runs cases of one program, and writes a line as each begins and ends: a process may die of one."""
    import jax

    from localgrad.cli import shell

    jax.config.update("jax_num_cpu_devices", 8)
    jax.devices()
    real = shell.devices, shell.own_devices

    def own_devices(count: int, *, x64: bool = False) -> None:
        """Those of this process are there already."""
        if count > 8:
            raise ValueError(f"{count} devices in a process that has 8 (the case wants one of its own).")
        if x64:
            jax.config.update("jax_enable_x64", True)

    def devices(count: int, *, x64: bool = False) -> None:
        """The same, of a program that may be several processes."""
        own_devices(9 if shell.FLAGS.coordinator is not None else count, x64=x64)

    shell.devices, shell.own_devices = devices, own_devices
    program = importlib.import_module(cases[numbers[0]].program)
    getattr(program, "define_flags", lambda: None)()  # a study defines its own with its import
    with out.open("a") as file:
        for number in numbers:
            case, base = cases[number], scratch / f"case{number}"
            print(json.dumps({"number": number, "begin": time.time()}), file=file, flush=True)
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir()
            damaged_files.setting(base, case.setting, case.damage, scratch / "good")
            begun = time.monotonic()
            if case.alone:
                status, said, err = alone(case, base, options.patience)
            else:
                status, said, err = call(program, case, base, options.patience)
            kind, why = ("hang", "") if status == "hang" else judge(case, status, said, err, base)
            seconds = round(time.monotonic() - begun, 2)
            found = {"number": number, "ended": kind, "why": why, "status": status, "seconds": seconds}
            if kind in FAULTS:
                found |= {"end": err.strip().splitlines()[-12:]}
            if options.only is not None:
                print(said, err, sep="\n")
            print(json.dumps(found), file=file, flush=True)
            shutil.rmtree(base, ignore_errors=True)
    shell.devices, shell.own_devices = real


def watch(numbers: list[int], options: argparse.Namespace, scratch: Path, worker: int) -> subprocess.Popen:
    """Starts a worker."""
    line = [sys.executable, "-m", "experiments.checks.refusals", f"--seed={options.seed}", f"--cases={options.cases}",
            f"--patience={options.patience}", f"--scratch={scratch}", f"--work={worker}"]  # fmt: skip
    line += ["--kinds", *options.kinds]
    if options.only is not None:
        line.append(f"--only={options.only}")
    (scratch / f"{worker}.todo").write_text(json.dumps(numbers))
    places = {"LOCALGRAD_PREPARED": str(scratch / "prepared"), "PYTHONPATH": str(Path(__file__).parents[2])}
    environment = {**os.environ, **places, "MPLBACKEND": "Agg"}
    stream = None if options.only is not None else (scratch / f"{worker}.log").open("a")
    return subprocess.Popen(line, env=environment, stdout=stream, stderr=stream, cwd=scratch)


def ended(scratch: Path, worker: int) -> tuple[dict[int, dict[str, Any]], dict[int, float]]:
    """What a worker has told so far: cases that ended, and when those that did not began."""
    path, done, begun = scratch / f"{worker}.jsonl", {}, {}
    for line in path.read_text().splitlines() if path.exists() else []:
        found = json.loads(line)
        if "begin" in found:
            begun[found["number"]] = found["begin"]
        else:
            done[found["number"]] = found
    return done, {number: when for number, when in begun.items() if number not in done}


def run_all(cases: dict[int, Case], options: argparse.Namespace, scratch: Path) -> dict[int, dict[str, Any]]:
    """Runs all cases in some processes; one that dies or hangs is told of, and another goes on behind it."""
    by_program = collections.defaultdict(list)
    for number, case in cases.items():
        by_program[case.program].append(number)
    queues = [those[i::parts] for those in by_program.values() for parts in [min(options.workers, len(those) // 40 + 1)]
              for i in range(parts)]  # fmt: skip
    running = {i: watch(queue, options, scratch, i) for i, queue in enumerate(queues)}
    results: dict[int, dict[str, Any]] = {}
    while running:
        time.sleep(1)
        for i, process in list(running.items()):
            over = process.poll() is not None  # before what it told is read: it may tell its last in between
            done, open_ = ended(scratch, i)
            results |= done
            late = any(time.time() - when > 10 * options.patience for when in open_.values())
            if not over and not late:
                continue
            if not over:
                process.kill()
                process.wait()
            for number in open_:
                results[number] = {"number": number, "ended": "hang" if late else "traceback",
                                   "why": f"the process ended with {process.returncode}"}  # fmt: skip
            left = [number for number in queues[i] if number not in results]
            if left and (open_ or done):
                running[i] = watch(left, options, scratch, i)
            elif left:
                raise RuntimeError(f"worker {i} does not begin; see {scratch / f'{i}.log'}")
            else:
                del running[i]
    return results


def command(number: int, case: Case, options: argparse.Namespace) -> str:
    """How to see a case again."""
    again = f"python -m experiments.checks.refusals --seed={options.seed} --only={number}"
    line = shlex.join(["python", "-m", case.program, *case.flags])
    return again if len(line) > 500 or case.setting else f"{line}  # or {again}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=560, help="about how many")
    parser.add_argument("--kinds", nargs="*", default=(), help="these only, for example number list")
    parser.add_argument("--seed", type=int, default=0, help="seeds them")
    parser.add_argument("--only", type=int, help="the number of one case, to be shown")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds of a processor that a case may take; ten times that by the clock",
    )
    parser.add_argument("--workers", type=int, default=4, help="processes of `train`")
    parser.add_argument("--out", default="experiments/results/check_refusals.json", help="file to write")
    parser.add_argument(
        "--scratch", help="folder to work in, which is kept: a later call finds the run and the set there"
    )
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = chosen(options.seed, options.cases if options.only is None else 10**6, options.kinds)
    if options.work is not None:
        scratch = Path(options.scratch)
        numbers = json.loads((scratch / f"{options.work}.todo").read_text())
        work(numbers, cases, options, scratch, scratch / f"{options.work}.jsonl")
        return 0
    if options.only is not None:
        cases = {options.only: cases[options.only]}
    with contextlib.ExitStack() as stack:
        scratch = Path(options.scratch or stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        scratch.mkdir(exist_ok=True)
        for old in scratch.glob("*.jsonl"):
            old.unlink()
        good = [sys.executable, "-m", mistakes.TRAIN, *mistakes.SMALL, f"--workdir={scratch / 'good'}"]
        if any(case.setting == "run" for case in cases.values()):
            subprocess.run(good, check=True, capture_output=True)  # or a finished one, which costs nothing
        if any(case.setting == "prepared" for case in cases.values()):
            os.environ["LOCALGRAD_PREPARED"] = str(scratch / "prepared")
            with tempfile.TemporaryDirectory(dir=scratch) as first:
                damaged_files.setting(Path(first), "prepared", "", scratch / "good")
        results = run_all(cases, options, scratch)
    return report(cases, results, options)


def report(cases: dict[int, Case], results: dict[int, dict[str, Any]], options: argparse.Namespace) -> int:
    """Counts by kind, every fault with its reproduction; the exit status."""
    counts: dict[str, dict[str, int]] = {}
    for number, case in cases.items():
        row = counts.setdefault(case.kind, dict.fromkeys(("refused", "accepted", *FAULTS), 0))
        row[results[number]["ended"]] += 1
    faults = [
        {"kind": cases[number].kind, **found, "again": command(number, cases[number], options),
         **({"setting": cases[number].setting, "damage": cases[number].damage} if cases[number].setting else {})}
        for number, found in sorted(results.items()) if found["ended"] in FAULTS
    ]  # fmt: skip
    total = {key: sum(row[key] for row in counts.values()) for key in ("refused", "accepted", *FAULTS)}
    for fault in faults:
        print(f"{fault['ended']:9} {fault['kind']}: {fault['why']}\n    {fault['again']}")
    print(f"{len(cases)} cases: " + ", ".join(f"{value} {key}" for key, value in total.items()))
    if options.only is None:
        told = {kind: next((results[n]["why"] for n, c in cases.items() if c.kind == kind
                            and results[n]["ended"] == "refused"), "") for kind in counts}  # fmt: skip
        line = f"python -m experiments.checks.refusals --cases={options.cases} --seed={options.seed}"
        result = {
            "command": line,
            "cases": len(cases),
            **total,
            "by_kind": counts,
            "a_refusal_of_each": told,
            "faults": faults,
        }
        Path(options.out).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        print(f"wrote {options.out}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
