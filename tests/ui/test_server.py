"""The server as it is started: quick to answer, and ahead of its first visitor."""

import importlib
import time
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from puma_dash.ui.server import FIRST_PAGE
from tests.browser.helpers import serving


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Host and port of a server."""
    folder = tmp_path_factory.mktemp("server")
    with serving("app.py", home=folder / "home", log=folder / "log") as url:
        yield urlsplit(url).netloc


def test_small_answers_do_not_wait_for_acknowledgements(server):
    def seconds(connection):
        start = time.perf_counter()
        connection.request("GET", "/_stcore/health")
        assert connection.getresponse().read() == b"ok"
        return time.perf_counter() - start

    with closing(HTTPConnection(server, timeout=30)) as connection:
        taken = sorted(seconds(connection) for _ in range(24))
    assert taken[len(taken) // 4] < 0.03  # with Nagle's algorithm all but the first few take 0.04


@pytest.mark.parametrize("name", FIRST_PAGE)
def test_what_is_imported_ahead_exists(name):
    assert importlib.import_module(name)
