"""Runs the benchmarks, prints their tables and writes benchmarks/RESULTS.md.

``python -m benchmarks`` runs all parts, those with the peers where they are installed, those on MNIST where
``PUMA_DASH_TEST_DATA`` names a folder with it, that in the browser where a Chromium is found;
``python -m benchmarks scoring peers`` runs these and leaves the rest of the file as it is.
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

import puma_dash
from benchmarks import (
    agreement,
    browser,
    forgetting,
    growth,
    mislabel,
    patching,
    peers,
    retraining,
    scoring,
    unlearning,
)
from benchmarks.results import with_section

RESULTS = Path(__file__).with_name("RESULTS.md")
PARTS = {
    "scoring": scoring,
    "peers": peers,
    "agreement": agreement,
    "patching": patching,
    "retraining": retraining,
    "mislabel": mislabel,
    "unlearning": unlearning,
    "forgetting": forgetting,
    "growth": growth,
    "browser": browser,
}
NEED_PEERS = ("peers", "agreement")


def main():
    """Measures, prints, writes after each part."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=PARTS, help="which; all if none is named")
    possible = [name for name in PARTS if name not in NEED_PEERS or peers.installed()]
    chosen = parser.parse_args().parts or possible
    for name in chosen:
        lines = [
            f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, one thread used; Python "
            f"{platform.python_version()}, torch {torch.__version__}, PUMA Dash {puma_dash.__version__}."
        ]
        for title, table, *told in PARTS[name].measure():
            print("\n".join(["", title, table.to_string(index=False), *told, ""]), flush=True)
            head = "| " + " | ".join(table.columns) + " |"
            rows = ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
            lines += ["", f"### {title}", "", head, "|" + "---|" * len(table.columns), *rows]
            lines += [line for sentence in told for line in ("", sentence)]
        if len(lines) == 1:
            continue  # left out, and it said why
        before = RESULTS.read_text("utf-8") if RESULTS.exists() else ""
        RESULTS.write_text(with_section(before, name, "\n".join(lines), PARTS), "utf-8")
        print(f"{name}: written to {RESULTS}", flush=True)


def processor() -> str:
    """The system and, where it says so, the processor."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return ", ".join([f"{platform.system()} {platform.machine()}", *models[:1]])


main()
