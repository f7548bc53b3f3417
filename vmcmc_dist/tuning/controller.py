"""Ray Tune's loop over the trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import PlacementGroupFactory
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial

from vmcmc_dist.tuning.ledger import Ledger
from vmcmc_dist.tuning.queue import TrialQueue
from vmcmc_dist.tuning.trial import TrainingTrial


class Controller(TuneController):
    """Ray Tune's, which keeps no state of its own on the disk.

    Its file would hold every result of every trial and be written again and again; the table of
    trials is shorter, only grows at its end, and is what a search is read back from.
    """

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Nothing to be written."""

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        """As Ray Tune's, but a trial whose own process is on its way waits for it.

        Given a warm process instead, its own would be thrown away half started; with trials
        shorter than the start of a process, all but the first place would stay empty for ever.
        """
        own = self._trial_to_actor.get(trial)
        if own is not None and self._actor_manager.is_actor_started(own):
            return False
        return super()._maybe_reuse_cached_actor(trial)

    def _actor_failed(self, tracked_actor: Any, exception: Exception) -> None:
        """As Ray Tune's, but a trial whose warm process died idle is tried again.

        Ray Tune would tell of this death twice, and give the trial up at the second; and would
        wait for ever for that process to be ready.
        """
        trial = self._actor_to_trial.get(tracked_actor)
        if trial in self._resetting_trials:
            self._resetting_trials.discard(trial)
            self._unstage_trial_with_resources(trial)
            self._set_trial_status(trial, Trial.RUNNING)  # its task's failure does the rest
        super()._actor_failed(tracked_actor, exception)

    def keep_warm(self, places: PlacementGroupFactory, count: int) -> None:
        """Keep up to so many idle processes of these places; Ray Tune would keep one."""
        self._actor_cache.increase_max(places, by=count)

    def forget_ended(self) -> None:
        """Let go of trials that are over: a search of thousands stays as small as one of ten."""
        ended = self._stopped_trials | self._failed_trials
        for trial in ended - set(self._trial_to_actor):
            self._trials.remove(trial)
            self._live_trials.discard(trial)
            self._stopped_trials.discard(trial)
            self._failed_trials.discard(trial)
            self._trials_to_cache.discard(trial)
            self._queued_trial_decisions.pop(trial.trial_id, None)


def run_trials(
    queue: TrialQueue,
    scheduler: Any,
    ledger: Ledger,
    storage: Path,
    stop_now: Callable[[], bool],
    trainable: type = TrainingTrial,
) -> None:
    """Run the queue's trials to their end, or until ``stop_now``.

    Args:
        storage: folder that Ray Tune asks for; nothing that a trial needs is kept there.
    """
    experiment = Experiment("tune", trainable, storage_path=str(storage))
    controller = Controller(
        search_alg=queue,
        scheduler=scheduler,
        callbacks=[ledger],
        storage=experiment.storage,
        reuse_actors=True,
    )
    queue.add_configurations([experiment])
    controller.keep_warm(queue.places, queue.keep_warm)
    controller.update_max_pending_trials(queue.most_pending)
    controller.setup_experiments([experiment], queue.total_samples)
    try:
        while not controller.is_finished() and not stop_now():
            controller.step()
            controller.forget_ended()
    finally:
        controller.cleanup()
