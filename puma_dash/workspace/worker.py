"""The process that runs the jobs: ``python -m puma_dash.workspace.worker module:TASKS``.

``module:TASKS`` names a dict of tasks, callables ``(params, progress, cancel) -> result``: params and result
are dicts that JSON can carry, ``progress(done, total, message)`` may be called as often as convenient, and
``cancel`` is an event. The module is imported once, at the start, and its memory stays: the worker is warm.

Job folders come in on standard input, one a line. When it ends, the manager is gone, however that came about,
and the worker ends at once.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from puma_dash.core.types import Cancelled, ProjectError
from puma_dash.workspace.jobs import CANCEL, JobState, read_state, write_state

Task = Callable[[dict[str, Any], Callable[..., None], threading.Event], dict[str, Any]]


@functools.cache
def load(tasks: str) -> dict[str, Task]:
    """The dict that ``module:attribute`` names; imported once, and tried again only after a failure."""
    module, _, attribute = tasks.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Link:
    """The two lines of a running task to its folder: progress out, cancel in.

    A thread carries both, so that the task's calls cost next to nothing, the folder is touched a few times a
    second at most, and the latest progress gets there even if the task is silent afterwards.

    Args:
        folder: the job folder.
        state: where the job stands now.
    """

    def __init__(self, folder: Path, state: JobState) -> None:
        """The closed link; ``with`` opens it."""
        self.state = state
        self.cancel = threading.Event()
        self._folder = folder
        self._news = threading.Event()
        self._ended = threading.Event()
        self._carrier = threading.Thread(target=self._carry, daemon=True)

    def progress(self, done: float, total: float, message: str = "") -> None:
        """Reports how far the task is: ``done`` of ``total``, in any unit, and what it is doing."""
        self.state = replace(self.state, done=float(done), total=float(total), message=message)
        self._news.set()

    def __enter__(self) -> Link:
        """The open link."""
        write_state(self._folder, self.state)
        self._carrier.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stops the thread; from here on nobody else writes the state."""
        self._ended.set()
        self._news.set()
        self._carrier.join()

    def _carry(self) -> None:
        """Body of the thread: at most 5 writes and 10 looks for the cancel file a second."""
        while not self._ended.is_set():
            if (self._folder / CANCEL).exists():
                self.cancel.set()
            if self._news.wait(0.1):
                self._news.clear()
                write_state(self._folder, self.state)
                self._ended.wait(0.2)


def run(folder: Path, tasks: str) -> None:
    """Runs one job from its queued to its final state."""
    state = replace(read_state(folder), pid=os.getpid())
    if (folder / CANCEL).exists():
        write_state(folder, replace(state, status="cancelled", finished=time.time()))
        return
    with open(folder / "output.log", "wb") as output:
        for stream in (1, 2):  # the descriptors themselves: C code and child processes print to them, too
            os.dup2(output.fileno(), stream)
    with Link(folder, replace(state, status="running", started=time.time())) as link:
        ending = _attempt(
            lambda: load(tasks)[state.task](dict(state.params), link.progress, link.cancel), folder
        )
    write_state(folder, replace(link.state, finished=time.time(), **ending))


def _attempt(call: Callable[[], dict[str, Any]], folder: Path) -> dict[str, Any]:
    """How the call of a task ended, as fields of the state."""
    try:
        result = call()
        json.dumps(result)  # one that cannot be written down is an error of the task
    except Cancelled:
        return {"status": "cancelled"}
    except ProjectError as error:
        return {"status": "failed", "error": str(error)}
    except BaseException as error:  # SystemExit, too: it ends the job, not the worker
        log = folder / "error.log"
        log.write_text(traceback.format_exc(), "utf-8", errors="backslashreplace")
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return {"status": "failed", "error": f"Unexpected error: {what}. Details are in {log}"}
    return {"status": "done", "result": result}


def main(tasks: str) -> None:
    """Runs the jobs that come in on standard input until that ends."""
    os.nice(5)
    lines = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # tasks and their children must not read the folders away
    folders: queue.SimpleQueue[Path] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(lines, folders), daemon=True).start()
    with suppress(Exception):  # the first job tries again and reports it
        load(tasks)
    while True:
        run(folders.get(), tasks)


def _receive(lines: IO[bytes], folders: queue.SimpleQueue[Path]) -> None:
    """Body of the thread that reads standard input; at its end it ends this process and all its children."""
    for line in lines:
        folders.put(Path(os.fsdecode(line.removesuffix(b"\n"))))
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
