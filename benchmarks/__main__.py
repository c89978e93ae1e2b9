"""Runs the benchmarks, prints their tables, writes benchmarks/RESULTS.md with machine and versions."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

import puma_dash
from benchmarks import growth, patching, scoring

RESULTS = Path(__file__).with_name("RESULTS.md")


def main():
    """Measures, prints, writes."""
    torch.set_num_threads(1)
    lines = [
        "# Benchmark results",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"one thread used; Python {platform.python_version()}, torch {torch.__version__}, PUMA Dash "
        f"{puma_dash.__version__}. Times are medians; machines are noisy, read ratios within a table.",
    ]
    for part in (scoring, patching, growth):
        title, table = part.measure()
        print(f"\n{title}\n{table.to_string(index=False)}", flush=True)
        head = "| " + " | ".join(table.columns) + " |"
        rows = ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
        lines += ["", f"## {title}", "", head, "|" + "---|" * len(table.columns), *rows]
    RESULTS.write_text("\n".join(lines) + "\n", "utf-8")
    print(f"\nwritten to {RESULTS}")


main()
