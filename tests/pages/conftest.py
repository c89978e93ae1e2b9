"""Pages without a browser or a worker: a prepared project on disk, and jobs whose state the test decides."""

import json
from pathlib import Path

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.testing.v1 import AppTest

from puma_dash.ui import state
from puma_dash.workspace.jobs import JobState

ROOT = Path(__file__).parents[2]
JOB = "0" * 18


class FakeJobs:
    """Stands in for the queue: notes what is submitted and says of every job what the test told it to."""

    def __init__(self, *_, **__):
        self.submitted = []
        self.now = {"status": "running", "done": 0.3, "total": 1.0, "message": "Working"}

    def warm(self):
        pass

    def submit(self, task, params):
        self.submitted.append((task, params))
        return f"{len(self.submitted):018x}"

    def state(self, job_id):
        task, params = self.submitted[int(job_id, 16) - 1] if self.submitted else ("prepare", {})
        if task == "devices":
            return JobState(JOB, task, params, status="done", result={"devices": []})
        return JobState(job_id, task, params, started=1.0, **self.now)

    def recent(self):
        return [self.state(f"{number:018x}") for number in range(len(self.submitted), 0, -1)]

    def position(self, job_id):
        return 0

    def cancel(self, job_id):
        self.now = {"status": "cancelled"}


@pytest.fixture(scope="session", autouse=True)
def components():
    """The installed packages are searched for Streamlit's components once, not for every page: 0.3 s each."""
    found = manifest_scanner.scan_component_manifests()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", lambda: found)
        yield


@pytest.fixture(scope="session")
def prepared(_own_home):
    """The radial demo, prepared as the worker would."""
    from puma_dash.workspace import tasks

    tasks.prepare({"source": "radial", "version": None}, lambda *_: None, None)
    return tasks


@pytest.fixture
def jobs(monkeypatch):
    """The queue that the pages see."""
    st.cache_resource.clear()
    fake = FakeJobs()
    monkeypatch.setattr(state, "Jobs", lambda *_: fake)
    yield fake
    st.cache_resource.clear()


@pytest.fixture
def open_page(jobs):
    """Opens a page of the app as a deep link would."""

    def opened(page, **query):
        at = AppTest.from_file(ROOT / "app.py", default_timeout=120)
        for name, value in query.items():
            at.query_params[name] = value
        if page != "app.py":
            at.switch_page(page)
        return at.run()

    return opened


def draw(at, *, lasso=(), box=(), chart=0):
    """Reruns the page with outlines drawn on a chart, which AppTest has no call for."""
    element = at.get("plotly_chart")[chart]
    event = {"selection": {"points": [], "point_indices": [], "lasso": list(lasso), "box": list(box)}}
    states = at._tree.get_widget_states()
    states.widgets.append(WidgetState(id=element.proto.id, string_value=json.dumps(event)))
    return at._run(states)


def button(at, label):
    """The button with that label."""
    return next(b for b in at.button if b.label == label)


def texts(at):
    """Everything the page says in words."""
    kinds = (at.title, at.markdown, at.caption, at.info, at.warning, at.error, at.success, at.subheader)
    return "\n".join(element.value for kind in kinds for element in kind)
