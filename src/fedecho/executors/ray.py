"""Ray actors that compute jobs ahead of when their results are needed, on this machine or on several.

The data go into Ray's object store once, and each model version once, when the first job that starts from it is handed
out. Every machine fetches them once, and an actor keeps the versions it used last. An actor has one job in work and one
waiting, so it does not idle while the server hands out the next.
"""

from __future__ import annotations

import io
import logging
import math
import os
import pickle
import shutil
import sys
import tempfile
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError, MissingExtra, WorkerLost
from ..core.messages import Model, Task, TrainResult
from .arena import in_logical_order, in_memory_order
from .base import Executor, ExecutorContext, Trainer
from .queue import AHEAD, Answer, JobQueue, WorkerDeaths, answer, ignoring_interrupts

QUEUED = 2
"""Jobs with an actor at once: the one in work and the next."""

VERSIONS = 8
"""Model versions that an actor keeps."""

_ALIGNED = 64  # as torch's own tensors are: vectorized code then takes the same path, to the same bits


def _ray() -> Any:
    # Ray sends no usage statistics, and leaves CUDA_VISIBLE_DEVICES alone where an actor has no GPU (it would warn).
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtra("executor.name 'ray'", "ray") from None
    return ray


@dataclass(frozen=True)
class Parcel:
    """A value: everything but its tensors, pickled, and the tensors as bytes."""

    skeleton: bytes
    arrays: list[np.ndarray[Any, Any]]

    @classmethod
    def of(cls, value: Any) -> Parcel:
        file = io.BytesIO()
        packer = _Packer(file)
        packer.dump(value)
        return cls(file.getvalue(), packer.arrays)

    def open(self, copy: bool = True) -> Any:
        """The value; without `copy` its tensors are the shared memory itself where that is aligned: only to be read."""
        return _Opener(self, copy).load()


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.arrays: list[np.ndarray[Any, Any]] = []

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        order, stored = in_memory_order(value.detach().cpu())
        self.arrays.append(stored.view(-1).view(torch.uint8).numpy() if stored.numel() else np.zeros(0, np.uint8))
        return len(self.arrays) - 1, stored.dtype, tuple(stored.shape), order, str(value.device)


class _Opener(pickle.Unpickler):
    def __init__(self, parcel: Parcel, copy: bool) -> None:
        super().__init__(io.BytesIO(parcel.skeleton))
        self._arrays, self._copy = parcel.arrays, copy

    def persistent_load(self, place: Any) -> Tensor:
        index, dtype, shape, order, device = place
        stored = torch.empty(shape, dtype=dtype)
        if math.prod(shape):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the memory is read-only, and nobody writes to it
                received = torch.from_numpy(self._arrays[index])
            if self._copy or received.data_ptr() % _ALIGNED:
                stored.view(-1).view(torch.uint8).copy_(received)
            else:
                stored = received.view(dtype).view(shape)
        return in_logical_order(stored, order).to(device)


class Actor:
    """Holds a trainer."""

    def __init__(self) -> None:
        self._trainer: Trainer
        self._models: OrderedDict[int, Model] = OrderedDict()

    def begin(self, factory: Parcel, path: list[str]) -> str | None:
        """Make the trainer, with modules looked for on the server's `path`; returns why it cannot be made, or None."""
        sys.path += [folder for folder in path if folder not in sys.path]
        try:
            self._trainer = factory.open(copy=False)()
        except Exception as fault:
            return f"{type(fault).__name__}: {fault}"
        return None

    def train(self, task: Parcel, version: int, model: list[Any]) -> Parcel:
        """Do a job. The model is fetched only if this actor does not have the version: Ray passes the reference."""
        if version not in self._models:
            self._models[version] = _ray().get(model[0]).open()
            while len(self._models) > VERSIONS:
                self._models.popitem(last=False)
        self._models.move_to_end(version)
        result = answer(self._trainer, task.open(), self._models[version])
        try:
            return Parcel.of(result)
        except Exception as fault:  # what a user's rule reports may be anything
            return Parcel.of(Answer.failed(fault))


@dataclass
class _Worker:
    actor: Any
    ready: bool = False
    tasks: list[int] = field(default_factory=list)  # in the order in which they are computed


class Ray(Executor):
    """Computes jobs in Ray actors, on one machine or several, ahead of when they are needed (extra `ray`).

    On one machine with one thread an actor, the bits are those of inline.

    Args:
        factory: makes a worker's trainer, in the worker: it must be picklable.
        workers: how many; None is as many as the cluster has GPUs where these are used, else cores for their threads.
        wanted: how many results can still be wanted before the run ends.
        address: of a cluster to join, as `ray.init` takes it; None starts one on this machine, and ends it.
        threads: cores that an actor takes.
        gpu: whether actors compute on GPUs; where these are fewer than actors, they share them.

    Raises:
        MissingExtra: without Ray.
    """

    name: ClassVar[str] = "ray"
    seconds: dict[str, float]

    def __init__(
        self,
        factory: Callable[[], Trainer],
        workers: int | None,
        wanted: Callable[[], float] = lambda: math.inf,
        address: str | None = None,
        threads: int = 1,
        gpu: bool = False,
    ) -> None:
        self._ray = _ray()
        self.seconds = {"wait_s": 0.0}
        self._factory: Any = factory
        self._count, self._wanted = workers, wanted
        self._address, self._threads, self._gpu = address, threads, gpu
        self._started = False
        self._joined = False  # the connection is this executor's, to be closed with it
        self._folder: str | None = None  # of the cluster that it started
        self._options: dict[str, Any] = {}
        self._workers: list[_Worker] = []
        self._queue = JobQueue()
        self._answers: dict[int, Answer] = {}
        self._awaited: dict[Any, tuple[_Worker, int | None]] = {}  # Ray's reference to worker and task; None: its start
        self._models: dict[int, Any] = {}  # version to its reference in the object store
        self._deaths = WorkerDeaths("Ray workers")

    @classmethod
    def create(cls, context: ExecutorContext) -> Ray:
        settings, gpu = context.settings, context.device != "cpu"
        factory = context.portable_factory()
        return cls(factory, settings.workers, context.wanted, settings.address, settings.threads, gpu)

    # -- the interface

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        self._queue.add(task, model, needed_at_s)
        self._hand_out()

    def result(self, task: int) -> TrainResult:
        began = time.perf_counter()
        while task not in self._answers:
            self._hand_out(task)
            self._receive(timeout_s=None)
        self.seconds["wait_s"] += time.perf_counter() - began
        answered = self._answers[task]
        self._forget(task)
        self._deaths.clear()
        self._hand_out()
        return answered.read(self.seconds)

    def cancel(self, task: int) -> None:
        if task in self._queue.jobs:
            self._forget(task)
            self._hand_out()

    def close(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers.clear()
        self._awaited.clear()
        self._models.clear()
        self._answers.clear()
        self._queue.clear()
        self._factory = None
        if self._joined:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                self._ray.shutdown()
            self._joined = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # -- handing out jobs

    def _forget(self, task: int) -> None:
        """The job is over, or not wanted any more. An actor that is at it goes on until it is done."""
        self._queue.remove(task)
        self._answers.pop(task, None)
        needed = {model.version for _, model, _ in self._queue.jobs.values()}
        self._models = {version: reference for version, reference in self._models.items() if version in needed}

    def _hand_out(self, awaited: int | None = None) -> None:
        """Give the jobs needed soonest, the awaited one first, to actors with less than QUEUED jobs."""
        if not self._started:
            began = time.perf_counter()
            self._start()
            self.seconds["wait_s"] += time.perf_counter() - began
        self._receive(timeout_s=0)
        soonest = self._queue.first(AHEAD * len(self._workers), self._wanted())
        if awaited is not None:
            soonest = [awaited, *(task for task in soonest if task != awaited)]
        at_work = {task for worker in self._workers for task in worker.tasks}
        for task in soonest:
            if task not in at_work and task not in self._answers:
                worker = min(self._workers, key=lambda worker: len(worker.tasks))
                if len(worker.tasks) >= QUEUED:
                    break
                self._give(task, worker)

    def _give(self, task: int, worker: _Worker) -> None:
        job, model, _ = self._queue.jobs[task]
        if model.version not in self._models:
            self._models[model.version] = self._ray.put(Parcel.of(model))
        reference = self._models[model.version]
        self._awaited[worker.actor.train.remote(Parcel.of(job), model.version, [reference])] = worker, task
        worker.tasks.append(task)

    def _receive(self, timeout_s: float | None) -> None:
        """Take what actors have answered; without a time limit, wait for one answer."""
        if not self._awaited:
            return
        many = 1 if timeout_s is None else len(self._awaited)
        done, _ = self._ray.wait(list(self._awaited), num_returns=many, timeout=timeout_s)
        for reference in done:
            if reference not in self._awaited:  # its actor was replaced just now
                continue
            worker, task = self._awaited[reference]
            try:
                answered = self._ray.get(reference)
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as fault:
                self._replace(worker, str(fault).strip().splitlines()[0])
                continue
            del self._awaited[reference]
            if task is None:
                if answered is not None:
                    raise WorkerLost(f"a Ray worker cannot begin: {answered}")
                worker.ready = True
                continue
            worker.tasks.remove(task)
            if task in self._queue.jobs:  # else it was cancelled
                self._answers[task] = answered.open()

    # -- starting and replacing actors

    def _start(self) -> None:
        """Join the cluster, or start one that only this machine can reach; and the actors.

        Raises:
            ConfigError: when there is no such cluster, or it has too little.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves files open
            self._join()
        self._started = True
        resources = self._ray.cluster_resources()
        cores, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
        count = self._count or max(1, int(gpus) if self._gpu else cores // self._threads)
        if cores < count * self._threads or (self._gpu and not gpus):
            raise ConfigError(
                f"{count} Ray workers of {self._threads} threads need {count * self._threads} cores"
                f"{' and a GPU' if self._gpu else ''}; the cluster has {cores} and {gpus:g} GPUs: lower "
                "executor.workers or executor.threads"
            )
        self._options = {"num_cpus": self._threads, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        if self._gpu:
            self._options["num_gpus"] = min(1.0, math.floor(1000 * gpus / count) / 1000)
        self._factory = self._ray.put(Parcel.of(self._factory))
        self._workers = [self._start_worker() for _ in range(count)]

    def _join(self) -> None:
        ray = self._ray
        if not ray.is_initialized():
            quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
            if self._address is not None:
                try:
                    ray.init(address=self._address, **quiet)
                except (ConnectionError, ValueError, RuntimeError) as fault:
                    why = str(fault).strip().splitlines()[0]
                    raise ConfigError(f"executor.address {self._address!r} cannot be joined: {why}") from None
            else:
                cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
                cores = self._count * self._threads if self._count is not None else max(cores, self._threads)
                self._folder = tempfile.mkdtemp(prefix="fedecho-ray-")
                with ignoring_interrupts():
                    ray.init(
                        address="local", num_cpus=cores, include_dashboard=False, _node_ip_address="127.0.0.1",
                        _temp_dir=self._folder, **quiet,
                    )  # fmt: skip
            self._joined = True

    def _start_worker(self) -> _Worker:
        worker = _Worker(self._ray.remote(**self._options)(Actor).remote())
        self._awaited[worker.actor.begin.remote(self._factory, sys.path)] = worker, None
        return worker

    def _replace(self, worker: _Worker, cause: str) -> None:
        """An actor died: another one computes its jobs again.

        Raises:
            WorkerLost: when it never began, or a job has cost too many.
        """
        self._awaited = {reference: of for reference, of in self._awaited.items() if of[0] is not worker}
        place = self._workers.index(worker)
        self._ray.kill(worker.actor)
        if not worker.ready:
            del self._workers[place]
            raise WorkerLost(f"a Ray worker ended before it could begin: {cause}")
        try:
            self._deaths.count(worker.tasks[:1], cause.rstrip("."), len(self._workers))
        except WorkerLost:
            del self._workers[place]
            raise
        self._workers[place] = self._start_worker()
