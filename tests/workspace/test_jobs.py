import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from puma_dash.workspace import worker
from puma_dash.workspace.jobs import Jobs, JobState
from tests.workspace import fake_tasks

TASKS = f"{fake_tasks.__name__}:TASKS"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "jobs"


@pytest.fixture
def jobs(root):
    with closing(Jobs(root, TASKS)) as jobs:
        yield jobs


@pytest.fixture
def gate(tmp_path):
    """The params of a job that runs until ``Path(gate["gate"])`` exists."""
    return {"gate": str(tmp_path / "gate"), "number": 21}


def until(condition, seconds=20.0):
    """The first true value of ``condition()``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
    return value


def reach(jobs, job_id, *statuses):
    """The state of a job once its status is one of these."""
    return until(lambda: (state := jobs.state(job_id)).status in statuses and state)


def end(jobs, job_id):
    """The state of a job once it is over."""
    return until(lambda: not (state := jobs.state(job_id)).live and state)


def alive(pid):
    """Whether a process runs; a zombie does not, once its threads are gone, even if nobody buries it."""
    try:
        os.kill(pid, 0)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return sys.platform != "linux"
    return fields[0] != "Z" or int(fields[17]) > 1


def child_of(jobs, job_id):
    """The process that the task ``stubborn`` started."""
    return until(lambda: int(jobs.state(job_id).done))


def test_progress_then_result(jobs, gate):
    before = time.time()
    job_id = jobs.submit("gate", gate)
    state = until(lambda: (state := jobs.state(job_id)).done and state)
    assert (state.id, state.task, state.params) == (job_id, "gate", gate)
    assert (state.status, state.message, state.fraction, state.live) == ("running", "step 1 of 4", 0.25, True)
    assert before <= state.created <= state.started <= time.time()
    assert state.result is state.error is state.finished is None
    assert alive(state.pid)
    Path(gate["gate"]).touch()
    state = end(jobs, job_id)
    assert (state.status, state.result, state.error) == ("done", {"double": 42}, None)
    assert (state.done, state.message) == (3, "step 3 of 4")  # the last progress, however soon the end comes
    assert state.started <= state.finished <= time.time()


def test_worker_is_warm(jobs):
    first, second = (end(jobs, jobs.submit("count", {"number": n})).result for n in range(2))
    assert second == {"pid": first["pid"], "calls": first["calls"] + 1}


def test_warm_imports_the_tasks_before_the_first_job(jobs, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_TASKS_IMPORTED", str(tmp_path / "imported"))
    jobs.warm()
    until((tmp_path / "imported").exists)
    assert jobs.recent() == []


def test_worker_finds_the_tasks_from_any_folder_and_nothing_else_there(root, monkeypatch, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    with closing(Jobs(root, TASKS)) as jobs:
        assert end(jobs, jobs.submit("count", {})).status == "done"


def test_project_error_is_shown_as_it_is(jobs, root):
    state = end(jobs, jobs.submit("refuse", {}))
    assert state.status == "failed"
    assert state.error == "expected labels 0 to 9 but got 12, try to remap them"
    assert not (root / state.id / "error.log").exists()


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ("crash", "RuntimeError: matrix is singular"),
        ("leave", "SystemExit: a library left"),
        ("unwritable", "TypeError: Object of type object is not JSON serializable"),
        ("no such task", "KeyError: 'no such task'"),
    ],
)
def test_unexpected_error_is_named_and_logged(jobs, root, task, error):
    state = end(jobs, jobs.submit(task, {}))
    log = root / state.id / "error.log"
    assert (state.status, state.result) == ("failed", None)
    assert state.error == f"Unexpected error: {error}. Details are in {log}"
    assert "Traceback (most recent call last)" in log.read_text()
    assert end(jobs, jobs.submit("count", {})).result["pid"] == state.pid


@pytest.mark.parametrize("tasks", ["no_such_module:TASKS", f"{fake_tasks.__name__}:NO_SUCH_NAME", "json"])
def test_tasks_that_cannot_be_imported_fail_the_job(root, tasks):
    with closing(Jobs(root, tasks)) as jobs:
        state = end(jobs, jobs.submit("count", {}))
    assert state.status == "failed"
    assert state.error.startswith("Unexpected error: ")


def test_output_goes_to_a_log_and_input_is_empty(jobs, root):
    state = end(jobs, jobs.submit("speak", {}))
    assert state.result == {"input": ""}
    log = (root / state.id / "output.log").read_text()
    assert log.splitlines() == ["from print", "from descriptor 2", "from a child"]
    other = end(jobs, jobs.submit("count", {}))
    assert (root / other.id / "output.log").read_text() == ""


def test_params_stay_what_they_were(jobs):
    state = end(jobs, jobs.submit("grab", {"number": 1}))
    assert (state.result, state.params) == ({"number": 1}, {"number": 1})


def test_jobs_run_in_the_order_of_submission(jobs, gate):
    ids = [jobs.submit("gate", gate), *(jobs.submit("count", {"number": n}) for n in range(2))]
    assert [jobs.position(job_id) for job_id in ids] == [0, 1, 2]
    assert [state.id for state in jobs.recent()] == ids[::-1]
    assert ids == sorted(ids)
    Path(gate["gate"]).touch()
    calls = [end(jobs, job_id).result for job_id in ids][1:]
    assert [result["calls"] for result in calls] == [1, 2]
    assert [jobs.position(job_id) for job_id in ids] == [0, 0, 0]


def test_duplicate_of_a_live_job_is_that_job(jobs, gate):
    running = jobs.submit("gate", gate)
    queued = jobs.submit("count", {"a": 1, "b": [1]})
    assert jobs.submit("gate", gate) == running
    assert jobs.submit("count", {"b": [1], "a": 1}) == jobs.submit("count", {"b": (1,), "a": 1}) == queued
    assert len({running, queued, jobs.submit("count", {"a": True, "b": [1]}), jobs.submit("count", {})}) == 4
    jobs.cancel(queued)
    assert jobs.submit("count", {"a": 1, "b": [1]}) != queued
    Path(gate["gate"]).touch()
    end(jobs, running)
    assert jobs.submit("gate", gate) != running


def test_cancel_of_a_queued_job_is_immediate(jobs, root, gate):
    running, queued = jobs.submit("gate", gate), jobs.submit("count", {})
    jobs.cancel(queued)
    assert (jobs.state(queued).status, jobs.position(queued)) == ("cancelled", 0)
    Path(gate["gate"]).touch()
    assert end(jobs, running).status == "done"
    assert end(jobs, jobs.submit("count", {"number": 1})).result["calls"] == 1
    written = json.loads((root / queued / "state.json").read_text())
    assert (written["status"], written["started"]) == ("cancelled", None)


def test_cancel_of_a_running_job_keeps_the_worker(jobs, gate):
    job_id = jobs.submit("gate", gate)
    reach(jobs, job_id, "running")
    jobs.cancel(job_id)
    state = end(jobs, job_id)
    assert (state.status, state.error, state.result) == ("cancelled", None, None)
    assert end(jobs, jobs.submit("count", {})).result["pid"] == state.pid


def test_cancel_of_a_stubborn_job_kills_it_and_the_next_job_runs(jobs):
    jobs.grace = 0.1
    stubborn, following = jobs.submit("stubborn", {}), jobs.submit("count", {})
    child = child_of(jobs, stubborn)
    jobs.cancel(stubborn)
    state = end(jobs, stubborn)
    assert (state.status, state.error) == ("cancelled", None)
    until(lambda: not alive(state.pid) and not alive(child))
    assert end(jobs, following).result["pid"] != state.pid


def test_cancel_of_a_finished_or_unknown_job_does_nothing(jobs):
    state = end(jobs, jobs.submit("count", {}))
    jobs.cancel(state.id)
    jobs.cancel("0" * 18)
    jobs.cancel("../../etc")
    assert jobs.state(state.id) == state


def test_killed_worker_is_seen_and_the_next_job_runs(jobs):
    killed, following = jobs.submit("stubborn", {}), jobs.submit("count", {})
    child = child_of(jobs, killed)
    os.kill(jobs.state(killed).pid, signal.SIGKILL)
    start = time.monotonic()
    state = end(jobs, killed)
    assert time.monotonic() - start < 1
    assert state.status == "died"
    assert state.error.startswith("The worker stopped unexpectedly (signal 9")
    assert state.error.endswith("nothing saved was lost; start it again.")
    assert end(jobs, following).status == "done"
    until(lambda: not alive(child))


def test_worker_killed_while_idle_is_replaced(jobs):
    first = end(jobs, jobs.submit("count", {}))
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not alive(first.pid))
    assert end(jobs, jobs.submit("count", {})).status == "done"


def test_refresh_second_user_and_second_server_see_the_same(jobs, root, gate):
    running, queued = jobs.submit("gate", gate), jobs.submit("count", {})
    until(lambda: jobs.state(running).done)
    with closing(Jobs(root, TASKS)) as other:
        assert other.recent() == jobs.recent()
        assert other.submit("gate", gate) == running
        other.cancel(running)
        assert end(jobs, running) == other.state(running)
        assert end(other, queued) == jobs.state(queued)
        assert [state.status for state in other.recent()] == ["done", "cancelled"]


def test_worker_ends_with_a_killed_manager_and_its_jobs_read_as_died(root):
    program = (
        "import sys, time; from pathlib import Path; from puma_dash.workspace.jobs import Jobs;"
        "jobs = Jobs(Path(sys.argv[1]), sys.argv[2]); jobs.submit('stubborn', {}); jobs.submit('count', {});"
        "time.sleep(600)"
    )
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    with (
        closing(Jobs(root, TASKS)) as reader,
        subprocess.Popen(
            [sys.executable, "-c", program, root, TASKS], env={**os.environ, "PYTHONPATH": path}
        ) as manager,
    ):
        queued, running = until(lambda: len(states := reader.recent()) == 2 and states)
        child = child_of(reader, running.id)
        pid = reader.state(running.id).pid
        assert alive(pid)
        manager.kill()
        manager.wait()
        until(lambda: not alive(pid) and not alive(child))
        for job_id in (queued.id, running.id):
            state = reader.state(job_id)
            assert state.status == "died"
            assert "start it again" in state.error
        assert end(reader, reader.submit("count", {})).status == "done"  # not a duplicate of the lost one


def test_job_whose_pid_is_now_somebody_elses_has_died(jobs, root):
    state = end(jobs, jobs.submit("count", {}))
    jobs.close()
    file = root / state.id / "state.json"
    file.write_text(json.dumps(vars(state) | {"status": "running", "finished": None, "pid": os.getpid()}))
    os.utime(file, (state.started + 5, state.started + 5))
    assert jobs.state(state.id).status == "died"
    assert jobs.state(state.id).seconds == pytest.approx(5, abs=0.01)


def test_close_ends_the_worker(root):
    jobs = Jobs(root, TASKS)
    running, queued = jobs.submit("stubborn", {}), jobs.submit("count", {})
    child = child_of(jobs, running)
    pid = jobs.state(running).pid
    jobs.close()
    jobs.close()
    until(lambda: not alive(pid) and not alive(child))
    assert [jobs.state(job_id).status for job_id in (running, queued)] == ["died", "died"]
    with pytest.raises(RuntimeError, match="closed"):
        jobs.submit("count", {})


def test_removed_folder_costs_its_job_only(jobs, root, gate):
    removed, following = jobs.submit("gate", gate), jobs.submit("count", {})
    reach(jobs, removed, "running")
    (root / removed).rename(root / "elsewhere")
    assert jobs.state(removed) is None
    assert end(jobs, following).status == "done"


@pytest.mark.parametrize(
    "job_id",
    [
        "",
        ".",
        "..",
        "../jobs",
        "/etc/passwd",
        "a/b",
        "\0",
        "0" * 18,
        "0" * 17,
        "g" * 18,
        "0" * 18 + "\n",
        "é",
    ],
)
def test_malformed_or_unknown_id_is_none(jobs, job_id):
    assert jobs.state(job_id) is None
    assert jobs.position(job_id) == 0


def test_damaged_state_is_none(jobs, root):
    folder = root / ("1" * 18)
    folder.mkdir()
    for content in ("", "{", "[]", "{}", "\0", '{"id": 1, "unknown": 2}'):
        (folder / "state.json").write_text(content)
        assert jobs.state(folder.name) is None
        assert jobs.recent() == []


def test_old_folders_are_removed_but_no_live_one(jobs, root, gate):
    jobs.keep = 2
    live = jobs.submit("gate", gate)
    ids = [jobs.submit("count", {"number": n}) for n in range(4)]
    for job_id in ids[:3]:
        jobs.cancel(job_id)
    last = jobs.submit("count", {"number": 4})
    assert [state.id for state in jobs.recent()] == [last, ids[3], live]
    Path(gate["gate"]).touch()
    assert end(jobs, last).status == "done"


def test_params_that_json_cannot_carry_are_refused(jobs):
    with pytest.raises(TypeError, match="not JSON serializable"):
        jobs.submit("count", {"rows": {1, 2}})
    assert jobs.recent() == []


def test_concurrent_submits_of_one_job_give_one_job(jobs, gate):
    ids = []
    threads = [threading.Thread(target=lambda: ids.append(jobs.submit("gate", gate))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_progress_is_written_a_few_times_a_second_and_the_last_one_always(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(worker, "write_state", lambda folder, state: written.append(state.done))
    with worker.Link(tmp_path, JobState("0" * 18, "task", {})) as link:
        link.progress(1, 9)
        until(lambda: written == [0, 1])
        start = time.monotonic()
        while time.monotonic() < start + 0.5:
            link.progress(2, 9)
        link.progress(3, 9)
        until(lambda: written[-1] == 3)  # although the task is silent now
    assert len(written) <= 7


def test_time_left_is_linear_and_not_guessed_too_early(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    state = JobState("0" * 18, "task", {}, "running", done=25, total=100, started=990.0)
    assert (state.fraction, state.seconds, state.seconds_left) == (0.25, 10, 30)
    assert JobState("", "", {}, "running", done=1, total=100, started=990.0).seconds_left is None
    assert JobState("", "", {}, "running", done=50, total=100, started=999.5).seconds_left is None
    assert JobState("", "", {}, "done", done=25, total=100, started=990.0, finished=995.0).seconds == 5
    assert JobState("", "", {}, "done", done=25, total=100, started=990.0).seconds_left is None
    assert JobState("", "", {}, "done").fraction == 1
    assert JobState("", "", {}).seconds == 0
    for done, total, fraction in [(0, 0, 0), (5, 0, 0), (9, 3, 1), (-1, 3, 0)]:
        assert JobState("", "", {}, "running", done=done, total=total).fraction == fraction
