"""What pip installs is the whole app, and it runs outside the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import closing
from email import message_from_bytes
from http.client import HTTPConnection
from pathlib import Path

import pytest

import puma_dash
from puma_dash import cli
from puma_dash.ui import SERVED, app_folder
from tests.browser.helpers import free_port, stop_group, wait_for_health

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
WHEEL = ("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--no-cache-dir")


def run(*command, cwd, **environment):
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_of(folder):
    """Every file below that git would keep, relative to the checkout's top."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT).as_posix() for path in found}


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """What Docker sees of the checkout: all that a wheel may need."""
    folder = tmp_path_factory.mktemp("context")
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            source, target = ROOT / line[1:], folder / line[1:]
            target.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
    return folder


@pytest.fixture(scope="module")
def wheel(context, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, *WHEEL, "--wheel-dir", folder, ".", cwd=context)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder with nothing but the installed wheel."""
    folder = tmp_path_factory.mktemp("site")
    run(*PIP, "install", "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder)
    return folder


def test_the_wheel_is_the_package_and_the_app(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    app = {"app.py", ".streamlit/config.toml"} | files_of("pages") | files_of("assets")
    assert names == files_of("puma_dash") | {f"puma_dash/_app/{name}" for name in app}


def test_a_source_distribution_builds_the_same_wheel(context, wheel, tmp_path):
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, tmp_path, cwd=context)
    (source,) = tmp_path.glob("*.tar.gz")
    run(*PIP, *WHEEL, "--wheel-dir", tmp_path, source, cwd=tmp_path)
    contents = [
        {file.filename: file.CRC for file in zipfile.ZipFile(path).infolist()}
        for path in (wheel, tmp_path / wheel.name)
    ]
    assert contents[0] == contents[1]


def test_what_the_wheel_says_of_itself(wheel):
    package = zipfile.ZipFile(wheel)
    (name,) = (name for name in package.namelist() if name.endswith("/METADATA"))
    told = message_from_bytes(package.read(name))
    needed = [
        line.split("#")[0].strip()
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert told["Version"] == puma_dash.__version__
    assert len(told.get_all("Requires-Dist")) == len(needed)
    assert f"\n## {told['Version']}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


OPEN_ALL = """
import puma_dash
from puma_dash.ui import app_folder
from streamlit.testing.v1 import AppTest

print(puma_dash.__file__)
at = AppTest.from_file(app_folder() / "app.py", default_timeout=60)
for page in ("app.py", *sorted(path.name for path in (app_folder() / "pages").glob("*.py"))):
    at.switch_page(page if page == "app.py" else f"pages/{page}").run()
    assert not at.exception, at.exception
    assert len(at.sidebar) and len(at.main)
    print(page)
"""


def test_every_page_of_the_installed_app_opens(site, tmp_path):
    said = run(sys.executable, "-c", OPEN_ALL, cwd=tmp_path, PYTHONPATH=str(site)).splitlines()
    pages = sorted(path.name for path in (ROOT / "pages").glob("*.py"))
    assert said == [str(site / "puma_dash" / "__init__.py"), "app.py", *pages]


def answer_to(port, host):
    """The status of opening the page's connection by that name of the server."""
    headers = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "cHVtYSBkYXNoIHB1bWEgLg==",
    }
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/_stcore/stream", headers=headers)
        return connection.getresponse().status


def test_the_installed_command_serves_with_the_configuration_of_the_app(site, tmp_path):
    """Our configuration lets nobody reach the server by a foreign name; Streamlit's own would."""
    port, log = free_port(), tmp_path / "log.txt"
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "puma_dash", "demo", "--port", str(port)]
    how = {"cwd": tmp_path, "env": environment, "start_new_session": True}
    with log.open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said, **how) as process:
        try:
            wait_for_health(port, process, log)
            assert answer_to(port, f"127.0.0.1:{port}") == 101
            assert answer_to(port, "elsewhere.example") == 403
        finally:
            stop_group(process)


def test_a_relative_home_lies_where_the_command_was_given(tmp_path, monkeypatch):
    """Not in the app's folder, which the server runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PUMA_DASH_HOME", "kept here")
    monkeypatch.setenv(SERVED, "")
    left = []
    monkeypatch.setattr(os, "chdir", left.append)
    monkeypatch.setattr(os, "execv", lambda *_: None)
    cli.serve("digits", 8501)
    assert left == [app_folder()]
    assert Path(os.environ["PUMA_DASH_HOME"]) == tmp_path / "kept here"
