"""Tasks for a worker under test: quick, stubborn, failing."""

import os
import subprocess
import sys
import time
from pathlib import Path

from puma_dash.core.types import Cancelled, ProjectError

if "FAKE_TASKS_IMPORTED" in os.environ:
    Path(os.environ["FAKE_TASKS_IMPORTED"]).touch()

calls = 0


def count(params, progress, cancel):
    global calls
    calls += 1
    return {"pid": os.getpid(), "calls": calls}


def gate(params, progress, cancel):
    """Runs until the gate file exists."""
    progress(1, 4, "step 1 of 4")
    while not Path(params["gate"]).exists():
        if cancel.is_set():
            raise Cancelled
        time.sleep(0.01)
    progress(3, 4, "step 3 of 4")
    return {"double": 2 * params["number"]}


def stubborn(params, progress, cancel):
    """Starts a child process and ignores its cancel."""
    with subprocess.Popen(["sleep", "600"]) as child:
        progress(child.pid, 0, "child started")


def refuse(params, progress, cancel):
    raise ProjectError("expected labels 0 to 9 but got 12, try to remap them")


def crash(params, progress, cancel):
    raise RuntimeError("matrix is singular")


def leave(params, progress, cancel):
    sys.exit("a library left")


def unwritable(params, progress, cancel):
    return {"answer": object()}


def grab(params, progress, cancel):
    """Changes what it was given."""
    return {"number": params.pop("number")}


def speak(params, progress, cancel):
    print("from print")
    os.write(2, b"from descriptor 2\n")
    subprocess.run(["echo", "from a child"], check=True)
    return {"input": sys.stdin.read() + subprocess.run(["cat"], capture_output=True, text=True).stdout}


TASKS = {
    task.__name__: task for task in (count, gate, stubborn, refuse, crash, leave, unwritable, grab, speak)
}
