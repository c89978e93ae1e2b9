"""Finds a Chromium or Chrome that really starts, and can install one.

`python scripts/browser.py` prints its path; with `--install` one is installed where none is found:
Playwright's own build, or on Debian (as root, or with passwordless sudo) the package `chromium`.
Everything but the path goes to stderr.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

ARGS = [
    "--no-sandbox",  # a container's root cannot have one
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
PLACES = [
    *(f"/usr/bin/{name}" for name in NAMES),
    "/snap/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
]
ADVICE = (
    "Install Chromium or Chrome (Debian: apt install chromium; anywhere: .venv/bin/playwright install "
    "chromium), or name one: PUMA_DASH_BROWSER=/path/to/chrome"
)


class NoBrowserError(RuntimeError):
    """No Chromium that starts; the message says what was tried and what to do."""


def candidates(playwright: Playwright) -> Iterator[str]:
    """Yields the paths worth starting, best first; PUMA_DASH_BROWSER rules out all others."""
    if chosen := os.environ.get("PUMA_DASH_BROWSER"):
        yield shutil.which(chosen) or chosen
        return
    own = [Path.home() / place.lstrip("/") for place in PLACES if place.startswith("/Applications")]
    paths = [*map(shutil.which, NAMES), *PLACES, *own, playwright.chromium.executable_path]
    yield from dict.fromkeys(str(path) for path in paths if path and Path(path).exists())


def launch(playwright: Playwright) -> tuple[Browser, str]:
    """Returns the first browser that starts, headless, and its path.

    Raises:
        NoBrowserError: where none starts.
    """
    tried = []
    for path in candidates(playwright):
        try:
            return playwright.chromium.launch(executable_path=path, args=ARGS, timeout=60_000), path
        except Error as error:
            tried.append(f"{path} does not start ({error.message.splitlines()[0]}).")
    raise NoBrowserError(" ".join(["No Chromium was found." if not tried else "", *tried, ADVICE]).strip())


def find() -> str:
    """Returns the path of a Chromium that starts.

    Raises:
        NoBrowserError: where none starts.
    """
    with sync_playwright() as playwright:
        browser, path = launch(playwright)
        browser.close()
        return path


def run(*command: str, limit: int, **environment: str) -> bool:
    """Returns whether the command succeeded within `limit` seconds, its output on stderr."""
    print("+", *command, file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            timeout=limit,
            env=os.environ | environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return False
    return done.returncode == 0


def from_playwright() -> bool:
    """Returns whether Playwright's own Chromium was downloaded."""
    # It tries five times; a connection that stays silent for ten seconds is given up, a slow one is not.
    return run(
        sys.executable,
        *("-m", "playwright", "install", "--no-shell", "chromium"),
        limit=900,
        PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT="10000",
    )


def from_apt() -> bool:
    """Returns whether Debian's package was installed, which takes root or a sudo that asks nothing."""
    if not shutil.which("apt-get"):
        return False
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    return run(*apt, "update", limit=300) and run(
        *apt, "install", "--no-install-recommends", "chromium", limit=900
    )


def find_or_install() -> str:
    """Returns the path of a Chromium that starts, installed first where there is none.

    Raises:
        NoBrowserError: where none starts and none could be installed.
    """
    try:
        return find()
    except NoBrowserError as missing:
        if "PUMA_DASH_BROWSER" in os.environ:
            raise
        print(missing, file=sys.stderr)
    for install in (from_playwright, from_apt):
        if install():
            try:
                return find()
            except NoBrowserError as useless:
                print(useless, file=sys.stderr)
    raise NoBrowserError(f"No Chromium was found and none could be installed. {ADVICE}")


def main() -> int:
    """Returns the exit status: 0 with the path printed, 1 without a browser."""
    parser = argparse.ArgumentParser(description="Print the path of a Chromium or Chrome that starts.")
    parser.add_argument("--install", action="store_true", help="install one where none is found")
    try:
        print(find_or_install() if parser.parse_args().install else find())
    except NoBrowserError as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
