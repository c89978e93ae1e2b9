"""What the History page shows of the ledger: the tree, the table, the chart, and one entry in full."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.types import ProjectError
from puma_dash.ui.compare import Record, rails_of, task_of
from puma_dash.ui.evidence import evidence_of
from puma_dash.ui.panels import duration, plain_number, signed
from puma_dash.ui.report import DONE, Decision, examples_of, report_html
from puma_dash.ui.state import entry as cached
from puma_dash.ui.style import AFTER, BEFORE, CATEGORICAL, OUTLINE, VALUABLE, canvas, floats, plain
from puma_dash.workspace import weights
from puma_dash.workspace.bundle import bundle
from puma_dash.workspace.index import LAYOUT, Index
from puma_dash.workspace.store import home

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.workspace.ledger import Entry, Ledger
    from puma_dash.workspace.versions import Versions

READ_TREE = (
    "Each disc is a version, joined to the one it was made from; a version made from an earlier one starts a "
    "new line. The large disc is current."
)
READ_AGREEMENT = (
    "Each point is a patch: on the dotted line its forecast was right, between the faint lines within a "
    "factor of two."
)


def happened(entry: Entry, versions: Versions) -> str:
    """What an entry says, in a few words."""
    if entry.kind == "accepted":
        return f"Accepted as {versions.name(entry.id)}"
    if entry.kind == "rolled back":
        return f"Rolled back to {versions.name(entry.target)}"
    if entry.kind == "discarded":
        return f"Discarded a patch of {versions.name(entry.parent)}"
    return "Test opened"


def marked(plan: dict[str, Any]) -> str:
    """How many rows a plan marks, and as what."""
    return ", ".join(f"{len(plan[name]):,} {done}" for name, done in DONE.items() if plan[name])


def entries_table(entries: list[Entry], versions: Versions) -> pd.DataFrame:
    """A line for each entry, newest first: when, who, what, why, rows, changes of the criteria, test."""
    import pandas as pd

    lines = []
    for entry in reversed(entries):
        details = entry.details
        predicted, measured = details.get("predicted", {}), details.get("measured", {})
        rails = rails_of(details["comparison"]) if "comparison" in details else None
        labels = {} if rails is None else dict(zip(rails["criterion"], rails["label"], strict=True))
        changes = [
            f"{labels.get(name, name)} {signed(predicted.get(name))} / {signed(measured[name])}"
            for name in measured
        ]
        lines.append(
            {
                "entry": entry.id,
                "when": f"{entry.created:%Y-%m-%d %H:%M}",
                "who": entry.who,
                "what": happened(entry, versions),
                "why": entry.why,
                "rows": marked(details["plan"]) if "plan" in details else "",
                "predicted / measured": "; ".join(changes),
                "on test": _on_test(details.get("test")),
            }
        )
    return pd.DataFrame(lines)


def tree_figure(versions: Versions, opened: int | None) -> go.Figure:
    """The versions from the original at the top, each joined to the one it was made from."""
    lanes, numbers = versions.lanes, versions.numbers
    figure = canvas("", height=64 + 44 * len(numbers))
    for version in versions.accepted:
        parent = version.parent if version.parent in numbers else None
        x, y = (lanes[parent], lanes[version.entry]), (numbers[parent], version.number)
        figure.add_scatter(
            x=floats([x[0], x[1], x[1]] if x[0] != x[1] else x),
            y=floats([y[0], y[0] + 0.5, y[1]] if x[0] != x[1] else y),
            mode="lines",
            line={"color": OUTLINE, "width": 2.5},
            hoverinfo="skip",
        )
    known = {version.entry: version for version in versions.accepted}
    for entry, number in numbers.items():
        now = entry == versions.current
        color = CATEGORICAL[lanes[entry] % len(CATEGORICAL)]
        figure.add_scatter(
            x=floats([lanes[entry]]),
            y=floats([number]),
            mode="markers",
            marker={
                "size": 20 if now else 13,
                "color": VALUABLE if now else color,
                "symbol": "circle" if now or entry is not None else "circle-open",
                "line": {"width": 2.5, "color": VALUABLE if now else color},
            },
            hoverinfo="skip",
        )
        said = [f"<b>{versions.name(entry).capitalize()}</b>"]
        said += ["current"] if now else []
        said += ["open here"] if entry == opened else []
        if entry in known:
            version = known[entry]
            said.append(f"{version.created:%Y-%m-%d %H:%M}, {plain(version.who, 24)}")
            said += [plain(version.why, 70)] if version.why else []
        figure.add_annotation(
            x=max(lanes.values()) + 0.35,
            y=number,
            text=" · ".join(said),
            xanchor="left",
            align="left",
            font_size=14,
            showarrow=False,
        )
    figure.update_xaxes(visible=False, range=(-0.6, max(lanes.values()) + 14))
    figure.update_yaxes(visible=False, range=(len(numbers) - 0.4, -0.6))
    return figure.update_layout(showlegend=False, margin={"l": 0, "r": 0, "t": 8, "b": 0})


def tree_alt(versions: Versions) -> str:
    """The tree in words."""
    steps = [
        f"{versions.name(version.entry)} from {versions.name(version.parent)}"
        for version in versions.accepted
    ]
    return f"Tree of versions: {'; '.join(steps)}. Current: {versions.name(versions.current)}."


def agreement(entries: list[Entry], versions: Versions) -> pd.DataFrame:
    """Criterion, predicted and measured change of every patch on which something was held."""
    import pandas as pd

    lines = [
        {
            "criterion": name,
            "predicted": predicted,
            "measured": entry.details["measured"][name],
            "accepted": entry.kind == "accepted",
            "patch": f"entry {entry.id}: {happened(entry, versions)}",
        }
        for entry in entries
        for name, predicted in entry.details.get("predicted", {}).items()
    ]
    return pd.DataFrame(lines, columns=["criterion", "predicted", "measured", "accepted", "patch"])


def agreement_figure(patches: pd.DataFrame, *, title: str, unit: str) -> go.Figure:
    """Measured against predicted change of one criterion, a point for each patch, with the identity line.

    Args:
        patches: lines of :func:`agreement`, of one criterion.
        title: what is read off it.
        unit: of the criterion.
    """
    values = patches[["predicted", "measured"]].to_numpy(np.float64)
    reach = 1.15 * (np.nanmax(np.abs(values), initial=0.0) or 1.0)
    ends = np.array([-reach, reach])
    said = f"n = {len(patches):,} patch{'es' * (len(patches) != 1)}; in {unit}"
    figure = canvas(title[:1].upper() + title[1:], height=380, subtitle=said)
    for slope, width, dash, opacity in (
        (1.0, 1.5, "dot", 1.0),
        (2.0, 1, "solid", 0.35),
        (0.5, 1, "solid", 0.35),
    ):
        figure.add_scatter(
            x=floats(ends),
            y=floats(slope * ends),
            mode="lines",
            line={"color": OUTLINE, "width": width, "dash": dash},
            opacity=opacity,
            hoverinfo="skip",
            showlegend=slope == 1,
            name="forecast right",
        )
    for accepted, name, color, symbol in (
        (False, "discarded", BEFORE, "circle-open"),
        (True, "accepted", AFTER, "circle"),
    ):
        part = patches[patches["accepted"] == accepted]
        if len(part):
            figure.add_scatter(
                x=floats(part["predicted"]),
                y=floats(part["measured"]),
                mode="markers",
                name=name,
                marker={"color": color, "symbol": symbol, "size": 11, "line": {"color": color, "width": 2}},
                customdata=[plain(patch, 60) for patch in part["patch"]],
                hovertemplate="%{customdata}<br>predicted %{x:+.3g}, measured %{y:+.3g}<extra></extra>",
            )
    for update, word in ((figure.update_xaxes, "predicted"), (figure.update_yaxes, "measured")):
        update(
            title_text=f"{word} change",
            range=(-reach, reach),
            zeroline=True,
            zerolinecolor=OUTLINE,
            showgrid=True,
        )
    return figure


def agreement_alt(patches: pd.DataFrame) -> str:
    """The chart in words."""
    pairs = [
        f"{row.patch} predicted {row.predicted:+.3g}, measured {row.measured:+.3g}"
        for row in patches.itertuples()
    ]
    return f"Predicted and measured change of {len(pairs)} patches: {'; '.join(pairs)}."


def facts_of(entry: Entry, versions: Versions) -> list[tuple[str, str]]:
    """Name and value of all that an entry says beside its figures."""
    details, when = entry.details, f"{entry.created:%Y-%m-%d %H:%M:%S} UTC"
    found = [
        ("What", happened(entry, versions)),
        ("When", when),
        ("Who", entry.who),
        ("Why", entry.why or "–"),
    ]
    if entry.kind == "rolled back":
        found.append(("From", versions.name(entry.parent)))
    if "plan" in details:
        plan, machine = details["plan"], details["machine"]
        found += [
            ("Made from", versions.name(entry.parent)),
            ("Rows", marked(plan)),
            ("Strength", f"{details['strength']:g} applied of {plan['strength']:g} asked for"),
            ("Seed", str(details["seed"])),
            ("Device", f"{details['diagnostics']['device']}: {machine['device']}, {machine['instructions']}"),
            ("Threads", str(details["threads"])),
            ("Seconds", duration(details["seconds"])),
            ("Libraries", ", ".join(f"{name} {value}" for name, value in details["libraries"].items())),
            *((f"SHA-256 of {name}", value) for name, value in details["hashes"].items()),
        ]
    return [
        *found,
        ("Hash of the entry before", entry.previous or "none"),
        ("Hash of this entry", entry.hash),
    ]


def replay_line(entry: Entry) -> str:
    """What to type to make the patch of an entry again; in the folder of the module, where there is one."""
    where = os.environ.get("PUMA_DASH_HOME")
    return f"puma-dash replay {entry.id}" + (f" --home {shlex.quote(where)}" if where else "")


def decision_of(entry: Entry, versions: Versions, chain: str) -> Decision:
    """What the report says of who decided, and when and why."""
    return Decision(
        entry=entry.id,
        kind=entry.kind,
        version=versions.name(entry.id) if entry.kind == "accepted" else "",
        parent="the original" if entry.parent is None else versions.name(entry.parent),
        who=entry.who,
        when=f"{entry.created:%Y-%m-%d %H:%M UTC}",
        why=entry.why,
        previous=entry.previous,
        hash=entry.hash,
        chain=chain,
    )


def entry_report(entry: Entry, ledger: Ledger) -> str:
    """The report on the patch of an entry, from what the ledger says of it.

    Its examples come from the cache, not from the ledger: what cannot be deleted holds no copies of rows.
    Removal evidence is in the ledger where it was known at the decision, else it may be in the cache.
    """
    details, versions = entry.details, ledger.versions(entry.source)
    overview = cached(Index.of(home(), entry.source, entry.parent).overview)
    if overview is not None and overview.info.get("layout") != LAYOUT:
        overview = None
    return report_html(
        details,
        details.get("test"),
        examples=None if overview is None else examples_of(details["plan"], overview.arrays, overview.info),
        decision=decision_of(entry, versions, ledger.verify().sentence),
        openings=ledger.openings(entry.source),
        evidence=details.get("evidence") or evidence_of(entry.patch),
    )


def kept_fault(entry: Entry) -> str:
    """What is wrong with the kept weights of an accepted version, in a sentence; empty where nothing is."""
    try:
        for name in entry.details["kept"].values():
            weights.read(home(), name)
    except ProjectError as error:
        return str(error)
    return ""


def entry_bundle(entry: Entry, ledger: Ledger) -> bytes:
    """The bundle of an accepted version."""
    return bundle(entry, home(), ledger.links(), entry_report(entry, ledger))


def record_of(entry: Entry) -> Record:
    """The patch of an entry as the Compare page reads it."""
    return Record(entry.patch, entry.details)


def _on_test(test: dict[str, Any] | None) -> str:
    if test is None:
        return ""
    rows = dict(zip(test["metrics"]["index"], test["metrics"]["data"], strict=True))
    task = task_of(test)
    names = {"accuracy": "accuracy", "ece": "ECE"} if task is CLASSIFICATION else {"rmse": "RMSE", "r2": "R²"}
    return "; ".join(
        f"{said} {plain_number(rows[name][0])} → {plain_number(rows[name][1])}"
        for name, said in names.items()
        if rows[name][0] is not None
    )
