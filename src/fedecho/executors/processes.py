"""Worker processes that compute jobs ahead of when their results are needed.

What passes between them lies in shared memory (`arena.py`):

    job table    a few numbers for each slot and worker: the slot's state, when its result is needed, who works at it
    slots        a task on the way out, its answer on the way back
    models       the versions that tasks in the slots start from

Each worker takes the job whose result is needed soonest, so none idles while this process aggregates, distils or
evaluates. A pipe to each worker (its wake-up pipe) wakes it, and tells this process of an answer.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, ClassVar

from ..core.errors import WorkerLost
from ..core.messages import Model, Task, TrainResult
from .arena import Lock, SharedArena
from .base import Executor, ExecutorContext, Resources, Trainer
from .queue import AHEAD, Answer, JobQueue, WorkerDeaths, answer, ignoring_interrupts

SLOTS = 2 * AHEAD
"""Slots for each worker: twice AHEAD, for answers that later and more urgent jobs have overtaken."""

_FREE, _READY, _TAKEN, _DONE = range(4)


def _context() -> Any:
    """How workers are started: forked from a process that has imported everything but started no thread."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload(["fedecho.experiment.build"])
    return context


def prepare() -> None:
    """Begin to import what workers need, in a process beside this one."""
    if _context().get_start_method() == "forkserver":
        with ignoring_interrupts():
            forkserver.ensure_running()


class JobTable:
    """The state of each slot and worker. Everything is read and written under the lock."""

    def __init__(self, slots: int, workers: int) -> None:
        self.slots, self.workers = slots, workers
        self._memory, self.lock = SharedArena(6), Lock()
        self._open()

    def _open(self) -> None:
        self.state = self._memory.array(0, self.slots, int)
        self.needed_at_s = self._memory.array(1, self.slots, float)
        self.model = self._memory.array(2, self.slots, int)
        self.owner = self._memory.array(3, self.slots, int)
        self.asleep = self._memory.array(4, self.workers, int)
        self.waiting = self._memory.array(5, 1, int)

    def __getstate__(self) -> tuple[Any, ...]:
        return self.slots, self.workers, self._memory, self.lock

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.slots, self.workers, self._memory, self.lock = state
        self._open()

    def done(self, slot: int) -> bool:
        """Note that the slot's answer is ready; whether the server waits for one."""
        with self.lock:
            self.state[slot] = _DONE
            waiting = bool(self.waiting[0])
            self.waiting[0] = 0
            return waiting

    def is_done(self, slot: int | None) -> bool:
        """Whether the slot's answer is ready; if not, note that the server waits from now on."""
        with self.lock:
            done = slot is not None and bool(self.state[slot] == _DONE)
            self.waiting[0] = not done
            return done

    def take(self, worker: int) -> int | None:
        """The slot whose answer is needed soonest; where no job is ready the worker is noted as asleep."""
        with self.lock:
            ready = (self.state == _READY).nonzero()[0]
            if not len(ready):
                self.asleep[worker] = 1
                return None
            slot = int(ready[self.needed_at_s[ready].argmin()])
            self.owner[slot] = worker
            self.state[slot] = _TAKEN
            return slot


def _work(
    number: int,
    factory: Callable[[], Trainer],
    table: JobTable,
    slots: SharedArena,
    models: SharedArena,
    wakeup: Connection,
) -> None:
    """The main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where the forkserver was started by somebody else
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            trainer = factory()
        except Exception as fault:
            wakeup.send(f"{type(fault).__name__}: {fault}")
            return
        wakeup.send(None)
        while True:  # until the pipe breaks: the server closed it, or died
            slot = table.take(number)
            if slot is None:
                wakeup.recv_bytes()
                continue
            result = answer(trainer, slots.read(slot), models.read(int(table.model[slot]), copy=False))
            try:
                slots.write(slot, result)
            except Exception as fault:  # what a user's rule reports may be anything
                slots.write(slot, Answer.failed(fault))
            if table.done(slot):
                wakeup.send_bytes(b"done")


@dataclass
class _Worker:
    process: BaseProcess
    wakeup: Connection
    ready: bool = False


class Processes(Executor):
    """Computes jobs in worker processes, ahead of when they are needed; the same bits as inline.

    The jobs computed ahead are those needed soonest, AHEAD for each worker and no more than results are still wanted.

    Args:
        factory: makes a worker's trainer, in the worker: it must be picklable.
        workers: how many.
        wanted: how many results can still be wanted before the run ends.
    """

    name: ClassVar[str] = "processes"
    seconds: dict[str, float]

    def __init__(
        self, factory: Callable[[], Trainer], workers: int, wanted: Callable[[], float] = lambda: math.inf
    ) -> None:
        self.seconds = {"wait_s": 0.0}
        self._factory, self._wanted = factory, wanted
        self._ahead = AHEAD * workers
        self._table, self._slots = JobTable(SLOTS * workers, workers), SharedArena(SLOTS * workers)
        self._models = SharedArena(SLOTS * workers)
        self._workers: list[_Worker] = []
        self._queue = JobQueue()
        self._slot_of: dict[int, int] = {}
        self._task_at: dict[int, int] = {}
        self._dropped: set[int] = set()  # slots of cancelled jobs that a worker is still at
        self._version_in: dict[int, int] = {}  # region of `models` to the version in it
        self._deaths = WorkerDeaths("worker processes")

    @classmethod
    def create(cls, context: ExecutorContext) -> Processes:
        assert context.shared_factory is not None, "`local_workers` asks for at least one"
        return cls(context.shared_factory, context.workers, context.wanted)

    @classmethod
    def local_workers(cls, resources: Resources) -> int:
        return resources.workers

    # -- the interface

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        self._queue.add(task, model, needed_at_s)
        self._place_jobs()

    def result(self, task: int) -> TrainResult:
        began = time.perf_counter()
        while not self._table.is_done(self._slot_of.get(task)):
            self._place_jobs(task)
            self._wait()
        self.seconds["wait_s"] += time.perf_counter() - began
        answered: Answer = self._slots.read(self._slot_of[task])
        self._forget(task)
        self._deaths.clear()
        self._place_jobs()
        return answered.read(self.seconds)

    def cancel(self, task: int) -> None:
        if task in self._queue.jobs:
            self._forget(task)
            self._place_jobs()

    def start(self) -> None:
        """Start the workers and wait until they are ready. Without this call the first job starts them."""
        self._start_workers()
        while not all(worker.ready for worker in self._workers):
            self._wait()

    def close(self) -> None:
        for worker in self._workers:
            worker.wakeup.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.process.close()
        self._workers.clear()
        self._queue.clear()

    # -- placing jobs

    def _forget(self, task: int) -> None:
        """The job is over, or not wanted any more."""
        self._queue.remove(task)
        if task in self._slot_of:
            self._clear(task)

    def _clear(self, task: int) -> None:
        """Free the job's slot; a worker that is at it keeps it until it is done."""
        slot, table = self._slot_of.pop(task), self._table
        with table.lock:
            if table.state[slot] == _TAKEN:
                self._dropped.add(slot)
            else:
                table.state[slot] = _FREE
                del self._task_at[slot]

    def _place_jobs(self, awaited: int | None = None) -> None:
        """Put the jobs needed soonest into slots, the awaited one first, and wake sleeping workers."""
        if self._queue.jobs:
            self._start_workers()
        soonest = self._queue.first(self._ahead, self._wanted())
        tasks = [task for task in soonest if task not in self._slot_of]
        if awaited is not None and awaited not in self._slot_of:
            tasks = [awaited, *(task for task in tasks if task != awaited)]
        if tasks:
            free = self._free(make_room_for=awaited)
            for task, slot in zip(tasks, free, strict=False):
                self._put(task, slot, -math.inf if task == awaited else self._queue.jobs[task][2])
        self._wake()

    def _free(self, make_room_for: int | None) -> list[int]:
        """Slots without a job. For the awaited job the answer needed last makes room: it can be computed again."""
        table = self._table
        with table.lock:
            for slot in [slot for slot in self._dropped if table.state[slot] == _DONE]:
                self._dropped.remove(slot)
                del self._task_at[slot]
                table.state[slot] = _FREE
            free = [slot for slot in range(table.slots) if table.state[slot] == _FREE]
            idle = [slot for slot in self._task_at if table.state[slot] != _TAKEN]
        if not free and make_room_for is not None and make_room_for not in self._slot_of and idle:
            last = max(idle, key=lambda slot: float(table.needed_at_s[slot]))
            self._clear(self._task_at[last])
            return self._free(None)
        return free

    def _put(self, task: int, slot: int, needed_at_s: float) -> None:
        table, (job, model, _) = self._table, self._queue.jobs[task]
        table.model[slot], table.needed_at_s[slot] = self._region_of(model), needed_at_s
        self._slot_of[task], self._task_at[slot] = slot, task
        self._slots.write(slot, job)
        with table.lock:
            table.state[slot] = _READY

    def _region_of(self, model: Model) -> int:
        """The region of `models` that holds the version; it is written if need be, over one that no slot needs."""
        for region, version in self._version_in.items():
            if version == model.version:
                return region
        in_use = {int(self._table.model[slot]) for slot in self._task_at}
        region = next(region for region in range(self._models.regions) if region not in in_use)
        self._models.write(region, model)
        self._version_in[region] = model.version
        return region

    def _wake(self) -> None:
        table = self._table
        with table.lock:
            ready = int((table.state == _READY).sum())
            sleeping = [int(number) for number in table.asleep.nonzero()[0][:ready]]
            table.asleep[sleeping] = 0
        for number in sleeping:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its death is noticed in `_wait`
                self._workers[number].wakeup.send_bytes(b"wake")

    # -- starting and replacing workers

    def _start_workers(self) -> None:
        """Start the workers, unless there are some."""
        if self._workers:
            return
        began = time.perf_counter()
        self._workers = [self._start_worker(number) for number in range(self._table.workers)]
        self.seconds["wait_s"] += time.perf_counter() - began

    def _start_worker(self, number: int) -> _Worker:
        context = _context()
        own_end, worker_end = context.Pipe()
        arguments = (number, self._factory, self._table, self._slots, self._models, worker_end)
        process = context.Process(target=_work, args=arguments, name=f"fedecho worker {number}", daemon=True)
        with ignoring_interrupts():
            process.start()
        worker_end.close()
        return _Worker(process, own_end)

    def _wait(self) -> None:
        """Wait until a worker sends something, or dies."""
        wakeups: dict[Any, int] = {worker.wakeup: number for number, worker in enumerate(self._workers)}
        ends: dict[Any, int] = {worker.process.sentinel: number for number, worker in enumerate(self._workers)}
        ready = wait([*wakeups, *ends])
        dead = {ends[handle] for handle in ready if handle in ends}
        for number in {wakeups[handle] for handle in ready if handle in wakeups} - dead:
            with contextlib.suppress(EOFError, ConnectionResetError):
                self._receive(self._workers[number])
        for number in sorted(dead):
            self._replace(number)

    def _receive(self, worker: _Worker) -> None:
        """A worker's first message is None, or why it cannot begin; every other says that an answer is ready."""
        if worker.ready:
            worker.wakeup.recv_bytes()
        elif (fault := worker.wakeup.recv()) is None:
            worker.ready = True
        else:
            raise WorkerLost(f"a worker process cannot begin: {fault}")

    def _replace(self, number: int) -> None:
        """A worker died: another one computes its job again.

        Raises:
            WorkerLost: when it never began, or a job has cost too many.
        """
        worker, table = self._workers[number], self._table
        worker.process.join()
        code = worker.process.exitcode or 0
        cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        with contextlib.suppress(EOFError, ConnectionResetError):
            if not worker.ready and worker.wakeup.poll():
                self._receive(worker)
        worker.wakeup.close()
        worker.process.close()
        if not worker.ready:
            del self._workers[number]
            raise WorkerLost(
                f"a worker process ended before it could begin ({cause}); a script that runs experiments does so under "
                "`if __name__ == '__main__':`, because workers import it"
            )
        with table.lock:
            table.asleep[number] = 0
            at_work = (table.state == _TAKEN) & (table.owner == number)
            taken = [int(slot) for slot in at_work.nonzero()[0]]
            for slot in taken:
                table.state[slot] = _DONE if slot in self._dropped else _READY
        try:
            self._deaths.count([self._task_at[slot] for slot in taken], cause, table.workers)
        except WorkerLost:
            del self._workers[number]
            raise
        self._workers[number] = self._start_worker(number)
