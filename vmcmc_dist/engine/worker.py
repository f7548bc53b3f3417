"""The worker: an ordinary function, the same under Ray, under torchrun, and alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from typing import Any

import torch
import torch.distributed as dist

from vmcmc_dist.config import Config, config_from_dict
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.engine.context import Restart, WorkerContext
from vmcmc_dist.engine.resources import check_precision
from vmcmc_dist.engine.trainer import Trainer
from vmcmc_dist.errors import DivergenceError, ResourceError
from vmcmc_dist.langevin import keep_freed_memory

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def train_worker(
    values: dict[str, Any], manifest: Manifest, context: WorkerContext, threads: int = 0
) -> dict[str, float]:
    """Train as worker ``context.rank`` of ``context.world_size``; a process group must be up.

    Returns:
        The last interval's means, ``images``, ``seconds``, and ``already`` if nothing was left
        to do.

    Args and errors as :func:`train_in_steps`.
    """
    steps = train_in_steps(values, manifest, context, threads)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def train_in_steps(
    values: dict[str, Any], manifest: Manifest, context: WorkerContext, threads: int = 0
) -> Generator[Trainer, None, dict[str, float]]:
    """The same, an iteration at a time: see :meth:`Trainer.run`. Closed early, it lets go of all.

    Args:
        values: the resolved config as nested dictionaries.
        manifest: of the prepared data.
        threads: of torch on the CPU; 0 leaves them.

    Raises:
        DivergenceError: a guard fired and may not, or no longer, roll back.
        CheckpointError, ResourceError: no room on the disk; a GPU without bf16.
    """
    config = config_from_dict(values)
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    if context.device.type != "cpu":
        torch.cuda.set_device(context.device)
        check_precision(config.train.precision, context.device)
        torch.backends.cudnn.benchmark = True
    restart = Restart()
    while True:
        trainer = Trainer(config, context, manifest, restart)
        try:
            return (yield from trainer.run())
        except DivergenceError as error:
            restart = roll_back(config, trainer, error)
        except KeyboardInterrupt:
            trainer.saver.abandon()
            raise
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise ResourceError(
                f"{trainer.folder.path} cannot be written ({error.strerror}). The run is safe up "
                "to its last checkpoint; make room and run the same command again."
            ) from None
        finally:
            trainer.close()


def roll_back(config: Config, trainer: Trainer, error: DivergenceError) -> Restart:
    """Go back to the last good checkpoint (or the start), with other noise and lower rates.

    Raises the error itself where the guard may not, or has done so often enough.
    """
    before, guard = trainer.restart, config.guard
    if guard.action != "rollback":
        raise error
    if before.rollbacks >= guard.max_rollbacks:
        raise DivergenceError(f"{error} Given up after {before.rollbacks} rollbacks.") from None
    after = Restart(before.rollbacks + 1, before.lr_scale * guard.lr_factor)
    if trainer.context.rank == 0:
        folder = trainer.folder
        images = trainer.drop_after_last_good()
        folder.truncate_metrics(images)
        folder.append(
            {
                "kind": "rollback",
                "images": images,
                "from_images": trainer.images,
                "lr_scale": after.lr_scale,
                "reason": str(error),
            }
        )
    if trainer.context.world_size > 1:
        dist.barrier()
    return after


def join_alone() -> None:
    """A process group of one, in this process, without a port: DeepSpeed asks for one."""
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("RANK", "0")
    os.environ.setdefault("WORLD_SIZE", "1")
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
