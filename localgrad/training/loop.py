"""The one loop: calls of the engine, evaluation, records, checkpoints, and where it begins and ends."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from localgrad import processes
from localgrad.base import Batches, BlockState, DivergedError, Metrics, PyTree
from localgrad.evaluation import make_scorer
from localgrad.keys import fold_in
from localgrad.methods import trial_keys
from localgrad.pipeline import hand_over, pipeline_state
from localgrad.report import goodness, params_sha256
from localgrad.training import workdir
from localgrad.training.job import EpochEnd, Job, checkpoints_of
from localgrad.training.meter import Meter
from localgrad.training.records import (
    by_trial,
    epoch_line,
    epoch_postfix,
    epoch_records,
    past_its_best,
)
from localgrad.training.run_config import INIT_KEY, TRAIN_KEY
from localgrad.training.stopping import Interrupted, stop_signals
from localgrad.training.telling import Telling


class _Position(NamedTuple):
    """Where training stands: `engine_state` has been fed `step` batches, the last of them `batches`."""

    step: int
    engine_state: PyTree
    meter: Meter
    batches: Batches | None = None


class Loop:
    """A job under way: what stays the same while it trains, and its records.

    Args:
      job: the run.
      log: takes a line of text for the user; of several processes only the first says anything.
    """

    def __init__(self, job: Job, log: Callable[[str], None]):
        self.job, self.log = job, log
        self.records: list[dict[str, Any]] = []
        self.records_path = workdir.folder_of(job.config.workdir) / "metrics.jsonl"
        self.facts = {"config": job.config.to_json(), "versions": versions(), "data": dict(job.data())}
        self.checkpoints = checkpoints_of(job.config, log)
        self._keys = trial_keys(job.config.seed, job.model.trials)
        late = any(job.engine.plan.schedule.delays)
        # batches in flight, or in buffers, are part of such a run: its checkpoints hold the engine's own state
        self._late = late or job.config.replay is not None
        self._evaluate = make_scorer(job.model)
        self.telling = Telling(job, log)
        self._enough = False  # a callback asked for an end

    def close(self) -> None:
        """Lets go of checkpoints and trackers."""
        try:
            self.checkpoints.close()
        finally:
            self.telling.close()

    def start(self, before: int | None = None) -> tuple[_Position, dict[str, Any], dict[str, Any]]:
        """The newest sound position (at or before a step), or the very first one; its JSON object and its manifest."""
        config, model, engine = self.job.config, self.job.model, self.job.engine
        names = [block.name for block in model.blocks]
        own_key = fold_in(self._keys, TRAIN_KEY)
        fresh = lambda: engine.load(self.job.begin.draw(fold_in(self._keys, INIT_KEY)), own_key)
        found = self.checkpoints.find(before)
        if found is None:
            processes.agree(lambda: {"the checkpoint": None})
            return _Position(0, fresh(), Meter(names, 0)), {}, self.facts
        step = found["step"]
        crosses = found["config"]["engine"] != config.engine
        if not self._late or (config.new_delays and config.replay is None):
            saved = self.checkpoints.load(step, self.job.specs)
            state = engine.load(saved.states, own_key)
        elif crosses:  # from the pipeline to the sequential engine; the other way is refused
            assert config.cuts is not None  # as of all that are late
            weights = config.asynchronous or "stashed"
            saved = self.checkpoints.load(step, self.job.specs, pipeline_state(model, config.cuts, weights))
            state = hand_over(model, config.cuts, saved.live, step, weights)
        else:
            saved = self.checkpoints.load(step, self.job.specs, fresh())
            state = saved.live
        processes.agree(lambda: {"the checkpoint": [step, params_sha256(saved.states)]})
        return _Position(step, state, Meter(names, step, saved.meta["sums"])), saved.meta, found

    def save(self, position: _Position, states: tuple[BlockState, ...], seconds: float, good: float | None) -> None:
        """Saves a position, whose states are given; `seconds` have been spent in the epoch under way."""
        meta = {"sums": position.meter.to_json(), "seconds": seconds, "records": [*self.records]}
        trials = self.job.model.trials
        digest = lambda states: [params_sha256(one) for one in by_trial(states, trials)]
        live = position.engine_state if self._late else None
        self.checkpoints.save(position.step, states, meta, good, live, digest, **self.facts, ended=self._enough)

    def advance(self, position: _Position, stop_at: int, stopped: Callable[[], int], bar: tqdm) -> _Position:
        """Trains up to `stop_at`, or to the end of the call in which a stop was asked for."""
        step, state, meter, batches = position
        self.telling.begin(step)
        waiting: Metrics | None = None  # of the call before, read only once the next call is under way
        while step < stop_at and not stopped():
            count = min(self.job.config.batches_per_call, stop_at - step)
            batches = self.job.source.batches(step, count)
            self.telling.before(step, count)
            state, metrics = self.job.engine.run(state, batches)
            if waiting is not None:
                self._take(meter, step, waiting)
            waiting, step = metrics, step + count
            self.telling.after(step, metrics)
            bar.update(count)
        if waiting is not None:
            self._take(meter, step, waiting)
        return _Position(step, state, meter, batches)

    def _take(self, meter: Meter, step: int, metrics: Metrics) -> None:
        """Adds up the metrics of a call, and tells of them; `step` batches had been fed with it."""
        host = jax.device_get(metrics)
        meter.add(host)
        self.telling.call(step, host)

    def settle(self, position: _Position) -> tuple[BlockState, ...]:
        """The blocks' states after all batches fed; completes the meter."""
        states, metrics = self.job.engine.drain(position.engine_state, position.batches)
        position.meter.add(jax.device_get(metrics))
        return states

    def to_the_end(self, position: _Position, seconds: float) -> tuple[_Position, tuple[BlockState, ...] | None]:
        """Trains, evaluates after each epoch, and saves; `seconds` were spent in the epoch under way before.

        Returns:
          The last position and the states there, None if there was nothing left to train.

        Raises:
          Interrupted: a signal came; all is saved.
        """
        config, total, epoch = self.job.config, self.job.total_steps, self.job.source.steps_per_epoch
        quiet = None if jax.process_index() == 0 else True
        states = None
        with (
            stop_signals() as stopped,
            tqdm(total=total, initial=position.step, unit="batch", disable=quiet, leave=False) as bar,
        ):
            while position.step < total and not self._over():
                epoch_end = (position.step // epoch + 1) * epoch
                stop_at = _next_stop(position.step, config.checkpoint_every_steps, epoch_end)
                began = time.perf_counter()
                position = self.advance(position, stop_at, stopped, bar)
                states = self.settle(position)
                seconds += time.perf_counter() - began
                good = None
                if position.step == epoch_end:
                    good, seconds = self._end_epoch(position, states, seconds, bar), 0.0
                self.save(position, states, seconds, good)
                if stopped() and position.step < total and not self._over():
                    raise Interrupted(position.step, stopped())
        return position, states

    def _over(self) -> bool:
        """Whether training ends before its last epoch."""
        return self._enough or past_its_best(self.records, self.job.config.stop_after)

    def _end_epoch(
        self, position: _Position, states: tuple[BlockState, ...], seconds: float, bar: tqdm
    ) -> float | None:
        """Evaluates, writes the epoch down and forgets its sums; returns how good it is on validation, if any."""
        rate = self.job.source.steps_per_epoch * self.job.config.batch_size / seconds
        fresh = epoch_records(self.job, position.step, position.meter, rate, states, self._evaluate)
        position.meter.reset()
        self.records += fresh
        if jax.process_index() == 0:
            workdir.append_records(self.records_path, fresh)
            with bar.external_write_mode():
                left = seconds * (self.job.total_steps - position.step) / self.job.source.steps_per_epoch
                self.log(epoch_line(fresh, self.job.config.epochs, self.job.model.task, left))
        self.telling.epoch(fresh, states)
        ended = EpochEnd(fresh[0]["epoch"], position.step, fresh, states)
        answers = [callback(ended) for callback in self.job.callbacks]
        # NumPy's True and jax's are no instances of bool.
        self._enough = any(
            (isinstance(answer, bool) or getattr(answer, "dtype", None) == np.bool_) and answer for answer in answers
        )
        bar.set_postfix_str(epoch_postfix(fresh, self.job.model.task), refresh=False)
        return next((goodness(record) for record in fresh if record["split"] == "validation"), None)

    def rescue(self, error: DivergedError) -> DivergedError:
        """Trains again up to the batch that failed, from the last checkpoint, and saves the state before it."""
        position, *_ = self.start(before=error.batch)
        self.telling.close()  # they know these batches already
        with tqdm(disable=True) as bar:
            position = self.advance(position, error.batch, lambda: 0, bar)
        states = self.settle(position)
        self.save(position, states, 0.0, None)
        error.add_note(
            f"No block was updated from there on, and the state before it is saved as step {position.step} in "
            f"{self.records_path.parent / 'checkpoints'}. Lower --learning_rate or set --clip_norm, with another "
            "--workdir."
        )
        return error


def versions() -> dict[str, str]:
    """What a run's numbers depend on besides its configuration."""
    return {"jax": jax.__version__, "backend": jax.default_backend()}


def _next_stop(step: int, every: int, epoch_end: int) -> int:
    return min(epoch_end, (step // every + 1) * every) if every else epoch_end
