"""Worker processes that compute jobs ahead of when their results are needed.

What passes between them lies in shared memory (`memory.py`):

    board     a few numbers for each desk and worker: what is to be done, until when, who is at it
    desks     a task on the way out, its answer on the way back
    models    the versions that tasks on the desks start from

Workers help themselves: each takes the job whose result is needed soonest, so none idles while this process aggregates,
distils or evaluates. A pipe to each worker wakes it, and tells this process of an answer.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ..core.errors import WorkerLost
from ..core.messages import Model, Task, TrainResult
from .arena import Lock, SharedArena
from .inline import Trainer
from .queue import AHEAD, TRIES, Answer, JobQueue, answer, ignoring_interrupts

SLOTS = 2 * AHEAD
"""For each worker: as many again, for answers that later and more urgent jobs have overtaken."""


_FREE, _READY, _TAKEN, _DONE = range(4)


def _context() -> Any:
    """How workers are started: forked from a process that has imported everything but started no thread."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    found = multiprocessing.get_context(kind)
    if kind == "forkserver":
        found.set_forkserver_preload(["fedecho.experiment.build"])
    return found


def prepare() -> None:
    """Begin to import what workers need, beside whatever this process does meanwhile."""
    if _context().get_start_method() == "forkserver":
        with ignoring_interrupts():
            forkserver.ensure_running()


class JobTable:
    """Who does what; all of it under the lock."""

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
        """The desk's answer is there; is somebody waiting?"""
        with self.lock:
            self.state[slot] = _DONE
            waiting = bool(self.waiting[0])
            self.waiting[0] = 0
            return waiting

    def is_done(self, slot: int | None) -> bool:
        """Is the answer there? If not, somebody waits from now on."""
        with self.lock:
            done = slot is not None and bool(self.state[slot] == _DONE)
            self.waiting[0] = not done
            return done

    def take(self, worker: int) -> int | None:
        """The desk whose answer is needed soonest; without one the worker is noted as asleep."""
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
    me: int, make: Callable[[], Trainer], board: JobTable, slots: SharedArena, models: SharedArena, wakeup: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where the forkserver was started by somebody else
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            trainer = make()
        except Exception as fault:
            wakeup.send(f"{type(fault).__name__}: {fault}")
            return
        wakeup.send(None)
        while True:  # until the pipe breaks: the server closed it, or died
            slot = board.take(me)
            if slot is None:
                wakeup.recv_bytes()
                continue
            done = answer(trainer, slots.read(slot), models.read(int(board.model[slot]), copy=False))
            try:
                slots.write(slot, done)
            except Exception as fault:  # what a user's rule reports may be anything
                slots.write(slot, Answer.failed(fault))
            if board.done(slot):
                wakeup.send_bytes(b"done")


@dataclass
class _Worker:
    process: BaseProcess
    wakeup: Connection
    ready: bool = False


class Processes:
    """Computes jobs in worker processes, ahead of when they are needed; the same bits as inline.

    The jobs computed ahead are those needed soonest, AHEAD for each worker and no more than results are still wanted.

    Args:
        make: makes a worker's trainer, in the worker: it must be picklable.
        workers: how many.
        wanted: how many results can still be wanted before the run ends.
    """

    def __init__(
        self, make: Callable[[], Trainer], workers: int, wanted: Callable[[], float] = lambda: math.inf
    ) -> None:
        self.seconds = {"wait_s": 0.0}
        self._make, self._wanted = make, wanted
        self._ahead = AHEAD * workers
        self._board, self._desks = JobTable(SLOTS * workers, workers), SharedArena(SLOTS * workers)
        self._models = SharedArena(SLOTS * workers)
        self._workers: list[_Worker] = []
        self._line = JobQueue()
        self._desk_of: dict[int, int] = {}
        self._task_at: dict[int, int] = {}
        self._dropped: set[int] = set()  # desks at which somebody works for nothing
        self._version_in: dict[int, int] = {}  # room of `models` to the version in it
        self._lost: Counter[int | None] = Counter()

    # -- the interface

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        self._line.add(task, model, needed_at_s)
        self._set_out()

    def result(self, task: int) -> TrainResult:
        began = time.perf_counter()
        while not self._board.is_done(self._desk_of.get(task)):
            self._set_out(task)
            self._wait()
        self.seconds["wait_s"] += time.perf_counter() - began
        answered: Answer = self._desks.read(self._desk_of[task])
        self._forget(task)
        self._lost.clear()
        self._set_out()
        return answered.read(self.seconds)

    def cancel(self, task: int) -> None:
        if task in self._line.jobs:
            self._forget(task)
            self._set_out()

    def start(self) -> None:
        """Have the workers ready; else they are started with the first job. For whoever times what follows."""
        self._hire()
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
        self._line.clear()

    # -- setting jobs out

    def _forget(self, task: int) -> None:
        """The job is over, or not wanted any more."""
        self._line.remove(task)
        if task in self._desk_of:
            self._clear(task)

    def _clear(self, task: int) -> None:
        """Take the job off its desk; what somebody is working at is left to him until he is done."""
        slot, board = self._desk_of.pop(task), self._board
        with board.lock:
            if board.state[slot] == _TAKEN:
                self._dropped.add(slot)
            else:
                board.state[slot] = _FREE
                del self._task_at[slot]

    def _set_out(self, awaited: int | None = None) -> None:
        """Put the jobs needed soonest on desks, the awaited one first, and wake who sleeps."""
        if self._line.jobs:
            self._hire()
        near = self._line.first(self._ahead, self._wanted())
        tasks = [task for task in near if task not in self._desk_of]
        if awaited is not None and awaited not in self._desk_of:
            tasks = [awaited, *(task for task in tasks if task != awaited)]
        if tasks:
            free = self._free(room_for=awaited)
            for task, slot in zip(tasks, free, strict=False):
                self._put(task, slot, -math.inf if task == awaited else self._line.jobs[task][2])
        self._wake()

    def _free(self, room_for: int | None) -> list[int]:
        """Desks without a job. For the awaited one the answer needed last makes room: it can be computed again."""
        board = self._board
        with board.lock:
            for slot in [slot for slot in self._dropped if board.state[slot] == _DONE]:
                self._dropped.remove(slot)
                del self._task_at[slot]
                board.state[slot] = _FREE
            free = [slot for slot in range(board.slots) if board.state[slot] == _FREE]
            idle = [slot for slot in self._task_at if board.state[slot] != _TAKEN]
        if not free and room_for is not None and room_for not in self._desk_of and idle:
            last = max(idle, key=lambda slot: float(board.needed_at_s[slot]))
            self._clear(self._task_at[last])
            return self._free(None)
        return free

    def _put(self, task: int, slot: int, needed_at_s: float) -> None:
        board, (job, model, _) = self._board, self._line.jobs[task]
        board.model[slot], board.needed_at_s[slot] = self._room_of(model), needed_at_s
        self._desk_of[task], self._task_at[slot] = slot, task
        self._desks.write(slot, job)
        with board.lock:
            board.state[slot] = _READY

    def _room_of(self, model: Model) -> int:
        """Where the version lies in `models`; it is put there if need be, in place of one that no desk needs."""
        for room, version in self._version_in.items():
            if version == model.version:
                return room
        in_use = {int(self._board.model[slot]) for slot in self._task_at}
        room = next(room for room in range(self._models.rooms) if room not in in_use)
        self._models.write(room, model)
        self._version_in[room] = model.version
        return room

    def _wake(self) -> None:
        board = self._board
        with board.lock:
            ready = int((board.state == _READY).sum())
            sleepers = [int(place) for place in board.asleep.nonzero()[0][:ready]]
            board.asleep[sleepers] = 0
        for place in sleepers:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its death is noticed in `_wait`
                self._workers[place].wakeup.send_bytes(b"wake")

    # -- the workers' lives

    def _hire(self) -> None:
        """Start the workers, unless there are some."""
        if self._workers:
            return
        began = time.perf_counter()
        self._workers = [self._start(place) for place in range(self._board.workers)]
        self.seconds["wait_s"] += time.perf_counter() - began

    def _start(self, place: int) -> _Worker:
        there = _context()
        here, theirs = there.Pipe()
        what = (place, self._make, self._board, self._desks, self._models, theirs)
        process = there.Process(target=_work, args=what, name=f"fedecho worker {place}", daemon=True)
        with ignoring_interrupts():
            process.start()
        theirs.close()
        return _Worker(process, here)

    def _wait(self) -> None:
        """Until a worker says something, or dies."""
        wakeups: dict[Any, int] = {worker.wakeup: place for place, worker in enumerate(self._workers)}
        ends: dict[Any, int] = {worker.process.sentinel: place for place, worker in enumerate(self._workers)}
        heard = wait([*wakeups, *ends])
        for place in {wakeups[it] for it in heard if it in wakeups} - {ends[it] for it in heard if it in ends}:
            worker = self._workers[place]
            with contextlib.suppress(EOFError, ConnectionResetError):
                self._hear(worker)
        for place in sorted(ends[it] for it in heard if it in ends):
            self._replace(place)

    def _hear(self, worker: _Worker) -> None:
        """The first thing that a worker says is why it cannot begin, or nothing; then only that there is an answer."""
        if worker.ready:
            worker.wakeup.recv_bytes()
        elif (fault := worker.wakeup.recv()) is None:
            worker.ready = True
        else:
            raise WorkerLost(f"a worker process cannot begin: {fault}")

    def _replace(self, place: int) -> None:
        """A worker died: somebody else does its job again.

        Raises:
            WorkerLost: when it never began, or a job has cost too many.
        """
        worker, board = self._workers[place], self._board
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        with contextlib.suppress(EOFError, ConnectionResetError):
            if not worker.ready and worker.wakeup.poll():
                self._hear(worker)
        worker.wakeup.close()
        worker.process.close()
        if not worker.ready:
            del self._workers[place]
            raise WorkerLost(
                f"a worker process ended before it could begin ({how}); a script that runs experiments does so under "
                "`if __name__ == '__main__':`, because workers import it"
            )
        with board.lock:
            board.asleep[place] = 0
            taken = [slot for slot in range(board.slots) if board.state[slot] == _TAKEN and board.owner[slot] == place]
            for slot in taken:
                board.state[slot] = _DONE if slot in self._dropped else _READY
        victims: Iterable[int | None] = [self._task_at[slot] for slot in taken] or [None]
        for victim in victims:
            self._lost[victim] += 1
            if self._lost[victim] >= TRIES:
                del self._workers[place]
                about = f"on task {victim}" if victim is not None else "while they had nothing to do"
                raise WorkerLost(
                    f"{TRIES} worker processes died {about}, the last one {how}; where memory is short lower "
                    f"executor.workers ({board.workers}) or client.batch_size; the records are whole, resume the run"
                )
        self._workers[place] = self._start(place)
