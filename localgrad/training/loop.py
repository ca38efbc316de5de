"""The one loop: calls of the engine, evaluation, records, checkpoints, and how each of them survives a kill."""

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from localgrad import processes
from localgrad.base import Batches, BlockState, DivergedError, PyTree
from localgrad.evaluation.accuracy import make_evaluator
from localgrad.keys import fold_in
from localgrad.methods import trial_keys
from localgrad.pipeline import hand_over, pipeline_state, specs
from localgrad.report import draw_curves, params_sha256
from localgrad.training import config_file, workdir
from localgrad.training.job import Job, check_still, checkpoints_of
from localgrad.training.lock import owned
from localgrad.training.meter import Meter

_ONE_STOP = 3.0  # seconds in which several signals ask for the same stop
_INIT, _TRAIN = 0, 1  # what `fold_in` makes of the seed's key


class Interrupted(Exception):  # noqa: N818  # not an error: the run was asked to stop, and did
    """SIGTERM or Ctrl-C came; everything up to `step` is saved."""

    def __init__(self, step: int, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} after batch {step}")
        self.step, self.signum = step, signum


class Outcome(NamedTuple):
    """A finished run: the states of its blocks, its records, the rate of training, and what made its last states."""

    states: tuple[BlockState, ...]
    records: list[dict[str, Any]]
    examples_per_sec: float
    made_on: dict[str, Any]  # stages and versions, as the last checkpoint has them


class _Position(NamedTuple):
    """Where training stands: `engine_state` has been fed `step` batches, the last of them `batches`."""

    step: int
    engine_state: PyTree
    meter: Meter
    batches: Batches | None = None


def fit(job: Job, log: Callable[[str], None] = print) -> Outcome:
    """Trains to the end, from the newest sound checkpoint of the workdir if there is one.

    Args:
      job: the run.
      log: takes a line of text for the user.

    Returns:
      An `Outcome`.

    Raises:
      Interrupted: after a SIGTERM or Ctrl-C, with everything saved; signals reach the main thread only.
      DivergedError: if a loss is not finite, with the state before that batch saved.
      InUseError: if another process trains in the workdir.
      SaveError, OSError: if something cannot be written; what was saved is as it was, and the same call goes on.
    """
    folder = workdir.folder_of(job.config.workdir)
    workdir.check_folder(folder)
    if jax.process_index() != 0:
        return train(job, log)
    workdir.make_folder(folder)
    with owned(folder):
        check_still(job.config, [job])
        return train(job, log)


def train(job: Job, log: Callable[[str], None]) -> Outcome:
    """`fit`, in a workdir that is this run's own."""
    config, model, engine = job.config, job.model, job.engine
    folder = workdir.folder_of(config.workdir)
    main = jax.process_index() == 0
    told = config_file.replace(folder, config.to_json()) if main else ""
    records_path = folder / "metrics.jsonl"
    steps_per_epoch = job.source.steps_per_epoch
    keys = trial_keys(config.seed, model.trials)
    names = [block.name for block in model.blocks]
    like = specs(model)[0]
    late = any(engine.plan.schedule.delays)  # what is in flight belongs to the run
    facts = {"config": config.to_json(), "versions": versions()}
    checkpoints = checkpoints_of(config, log if main else lambda line: None)
    evaluate = make_evaluator(model)
    records: list[dict[str, Any]] = []

    def start(before: int | None = None) -> tuple[_Position, dict[str, Any], dict[str, Any]]:
        """The newest sound position (at or before a step), or the very first one; its JSON object and its manifest."""
        own_key = fold_in(keys, _TRAIN)
        fresh = lambda: engine.load(job.begin(fold_in(keys, _INIT)), own_key)
        found = checkpoints.find(before)
        if found is None:
            processes.agree(lambda: {"the checkpoint": None})
            return _Position(0, fresh(), Meter(names, 0)), {}, facts
        step = found["step"]
        crosses = found["config"]["engine"] != config.engine
        if not late or config.new_delays:
            saved = checkpoints.load(step, like)
            state = engine.load(saved.states, own_key)
        elif crosses:  # from the pipeline to the sequential engine; the other way is refused
            assert config.cuts is not None  # as of all that are late
            saved = checkpoints.load(step, like, pipeline_state(model, config.cuts))
            state = hand_over(model, config.cuts, saved.live, step)
        else:
            saved = checkpoints.load(step, like, fresh())
            state = saved.live
        processes.agree(lambda: {"the checkpoint": [step, params_sha256(saved.states)]})
        return _Position(step, state, Meter(names, step, saved.meta["sums"])), saved.meta, found

    def save(position: _Position, states: tuple[BlockState, ...], seconds: float, accuracy: float | None) -> None:
        meta = {"sums": position.meter.to_json(), "seconds": seconds, "records": [*records]}
        digest = lambda states: [params_sha256(one) for one in by_trial(states, model.trials)]
        live = position.engine_state if late else None
        checkpoints.save(position.step, states, meta, accuracy, live, digest, **facts)

    def advance(position: _Position, stop_at: int, stopped: Callable[[], int], bar: tqdm) -> _Position:
        """Trains up to `stop_at`, or to the end of the call in which a stop was asked for."""
        step, state, meter, batches = position
        waiting = None  # the metrics of the call before, read only once the next call is under way
        while step < stop_at and not stopped():
            count = min(config.batches_per_call, stop_at - step)
            batches = job.source.batches(step, count)
            state, metrics = engine.run(state, batches)
            if waiting is not None:
                meter.add(jax.device_get(waiting))
            waiting, step = metrics, step + count
            bar.update(count)
        if waiting is not None:
            meter.add(jax.device_get(waiting))
        return _Position(step, state, meter, batches)

    def settle(position: _Position) -> tuple[BlockState, ...]:
        """The blocks' states after all batches fed; completes the meter."""
        states, metrics = engine.drain(position.engine_state, position.batches)
        position.meter.add(jax.device_get(metrics))
        return states

    def rescue(error: DivergedError) -> DivergedError:
        """Trains anew up to the batch that failed, from the last checkpoint, and saves the state before it."""
        position, *_ = start(before=error.batch)
        with tqdm(disable=True) as bar:
            position = advance(position, error.batch, lambda: 0, bar)
        states = settle(position)
        save(position, states, 0.0, None)
        error.add_note(
            f"No block was updated from there on, and the state before it is saved as step {position.step} in "
            f"{folder / 'checkpoints'}. Lower --learning_rate or set --clip_norm, with another --workdir."
        )
        return error

    try:
        position, meta, found = start()
        records += meta.get("records", [])
        if position.step:
            log(f"resuming {folder} at batch {position.step} of {job.total_steps}")
        elif checkpoints.steps():
            log(f"beginning {folder} again at batch 0")
        if main:
            checkpoints.review(position.step)
            if told:
                log(told)
            workdir.restore_records(records_path, records, log)
        with (
            _stop_signals() as stopped,
            tqdm(
                total=job.total_steps, initial=position.step, unit="batch", disable=None if main else True, leave=False
            ) as bar,
        ):
            states = None
            seconds = meta.get("seconds", 0.0)  # spent in the epoch under way
            while position.step < job.total_steps:
                epoch_end = (position.step // steps_per_epoch + 1) * steps_per_epoch
                stop_at = _next_stop(position.step, config.checkpoint_every_steps, epoch_end)
                began = time.perf_counter()
                position = advance(position, stop_at, stopped, bar)
                states, found = settle(position), facts
                seconds += time.perf_counter() - began
                accuracy = None
                if position.step == epoch_end:
                    rate = steps_per_epoch * config.batch_size / seconds
                    fresh = _epoch_records(job, position, rate, states, evaluate)
                    accuracy = float(np.mean(fresh[1]["accuracy"]))
                    position.meter.reset()
                    seconds = 0.0
                    records += fresh
                    if main:
                        workdir.append_records(records_path, fresh)
                        log(_line(fresh, config.epochs))
                    bar.set_postfix_str(_postfix(fresh), refresh=False)
                save(position, states, seconds, accuracy)
                if stopped() and position.step < job.total_steps:
                    raise Interrupted(position.step, stopped())
            if states is None:  # killed between the last checkpoint and the summary
                states = settle(position)
    except DivergedError as error:
        raise rescue(error) from None
    finally:
        checkpoints.close()
    if main:
        workdir.write_bytes(folder / "curves.png", curves(records))
    return Outcome(states, records, steady_rate(records), made_on(found))


def curves(records: Sequence[dict[str, Any]]) -> bytes:
    """The content of `curves.png`."""
    drawn = io.BytesIO()
    draw_curves(records, drawn)
    return drawn.getvalue()


def steady_rate(records: Sequence[dict[str, Any]]) -> float:
    """Examples a second, the median over the epochs; the first compiles."""
    rates = [record["examples_per_sec"] for record in records if record["split"] == "train"]
    return float(np.median(rates[1:] or rates)) if rates else 0.0


def made_on(found: dict[str, Any]) -> dict[str, Any]:
    """On how many stages, and by which versions, a checkpoint was made, by its manifest."""
    return {"stages": found["config"]["stages"], "versions": found["versions"]}


def by_trial(states: PyTree, trials: int | None) -> list[PyTree]:
    """The states of each trial of a batched model, or those of the one that there is."""
    return [states] if trials is None else [jax.tree.map(lambda x, t=t: x[t], states) for t in range(trials)]


def versions() -> dict[str, str]:
    """What a run's numbers depend on besides its configuration."""
    return {"jax": jax.__version__, "backend": jax.default_backend()}


def _next_stop(step: int, every: int, epoch_end: int) -> int:
    return min(epoch_end, (step // every + 1) * every) if every else epoch_end


def _epoch_records(
    job: Job, position: _Position, rate: float, states: tuple[BlockState, ...], evaluate: Callable
) -> list[dict[str, Any]]:
    """One record of training and one of each evaluation; with trials each figure is a list over them."""
    means = position.meter.means(job.source.steps_per_epoch)
    where = {"step": position.step, "epoch": position.step // job.source.steps_per_epoch}
    keys = dict.fromkeys(key for block in means for key in block if key != "loss")  # blocks may report different ones
    details = {key: [block[key].tolist() if key in block else None for block in means] for key in keys}
    losses = [block["loss"].tolist() for block in means]
    records = [{**where, "split": "train", "block_loss": losses, **details, "examples_per_sec": rate}]
    for split in ("validation", "test"):
        by_exit = evaluate(states, job.eval_batches(split)).tolist()
        records.append({**where, "split": split, "accuracy": by_exit[-1], "exit_accuracy": by_exit})
    return records


def _line(records: list[dict[str, Any]], epochs: int) -> str:
    train, validation, test = records
    losses = " ".join(f"{np.mean(loss):.3g}" for loss in train["block_loss"])
    return (
        f"epoch {train['epoch']}/{epochs}  loss by block {losses}  validation {np.mean(validation['accuracy']):.2f} %  "
        f"test {np.mean(test['accuracy']):.2f} %  {train['examples_per_sec']:,.0f} examples/s"
    )


def _postfix(records: list[dict[str, Any]]) -> str:
    train, validation, _ = records
    losses = ", ".join(f"{np.mean(loss):.2g}" for loss in train["block_loss"])
    return f"{train['examples_per_sec']:,.0f} ex/s, loss {losses}, val {np.mean(validation['accuracy']):.1f} %"


@contextmanager
def _stop_signals() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the signal that asked for a stop, or 0; a later second signal stops at once.

    A terminal, a cluster or a service manager signals all processes of a run, and a launcher among them hands it on: a
    process then hears of one stop more than once, at about the same time.
    """
    caught, first = [0], [0.0]

    def catch(signum: int, frame: Any) -> None:
        if not caught[0]:
            caught[0], first[0] = signum, time.monotonic()
        elif time.monotonic() - first[0] > _ONE_STOP:
            signal.signal(signum, before[signum])
            signal.raise_signal(signum)

    before: dict[int, Any] = {}
    in_main = threading.current_thread() is threading.main_thread()  # elsewhere Python lets nobody catch signals
    for wanted in (signal.SIGINT, signal.SIGTERM) if in_main else ():
        before[wanted] = signal.signal(wanted, catch)

    def stopped() -> int:
        if jax.process_count() == 1:
            return caught[0]
        from jax.experimental import multihost_utils  # all processes must stop at the same batch

        return int(jnp.max(multihost_utils.process_allgather(np.int32(caught[0]))))

    try:
        yield stopped
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
