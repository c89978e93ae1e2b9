"""Workspace: what one can open (a demo, a project folder on the server, an upload), and what was loaded."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from puma_dash.ui import SERVED
from puma_dash.ui.panels import mend, running, size
from puma_dash.ui.state import DEMO_SOURCES, Context, jobs, ledger, open_context
from puma_dash.ui.text import DEMOS, Demo, escape
from puma_dash.workspace import places, uploads
from puma_dash.workspace.uploads import Upload

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from puma_dash.workspace.jobs import JobState

LISTED_FOR = 10.0
"""Seconds for which the folders below the root are not searched again."""
MOST_CLASSES = 8
GONE = (
    "The project of this link was uploaded, but not to this server, or it was deleted. Upload its archive "
    "again: the same archive gets the same link."
)


def choose() -> None:
    """The projects this server can open: three cards, and what was uploaded."""
    arrived = uploads.load(st.session_state.get("arrived", ""))
    if arrived is not None and arrived.ready:
        del st.session_state["arrived"]
        _open(arrived.source)
    st.subheader("Open a project")
    asked = st.query_params.get("project", "")
    if asked.startswith(uploads.UPLOAD) and places.place(asked) is None:
        st.info(GONE, icon=":material/link_off:")
    cards = (_demos, _folders, _upload)
    for column, card in zip(st.columns(len(cards)), cards, strict=True):
        with column, st.container(border=True, height="stretch"):
            card()
    st.markdown(
        "Or write a function that returns `puma.Project(...)`, and start with "
        "`puma-dash serve module:function`."
    )
    _uploaded()


def _open(source: str) -> None:
    """Opens a project, and goes on to Explore once it is prepared."""
    st.session_state["opening"] = True
    open_context(source, None)
    st.rerun()


def _demos() -> None:
    st.markdown("**Try a demo**")
    first, *others = DEMOS.items()
    st.markdown(f"{first[1].title}: {first[1].text}")
    st.caption(first[1].cost)
    _try(*first, "primary")
    st.caption("  \n".join(f"{demo.title}: {demo.text}" for _, demo in others))
    with st.container(horizontal=True):
        for source, demo in others:
            _try(source, demo, "secondary")


def _try(source: str, demo: Demo, kind: Literal["primary", "secondary"]) -> None:
    if st.button(demo.button, key=f"open-{source}", type=kind, help=demo.cost):
        _open(source)


def _folders() -> None:
    st.markdown("**Open a project folder**")
    served = os.environ.get(SERVED, "")
    if served and served not in DEMO_SOURCES:
        st.markdown(f"This server was started with {escape(places.title(served))}.")
        if st.button("Open it", key="open-served"):
            _open(served)
    top = places.root()
    if top is None:
        st.markdown(
            "A folder on the server with a `project.toml` beside model and rows. None is allowed yet: "
            "whoever starts the server says below which folder they lie."
        )
        st.code("puma-dash serve --root FOLDER", language=None, wrap_lines=True)
        return
    found, complete = _projects(top)
    if not found:
        st.markdown(f"Below {escape(str(top))} no folder has a `project.toml` yet. This writes one:")
        st.code("puma-dash init FOLDER", language=None, wrap_lines=True)
        return
    named = {each.source: f"{each.name} · {each.where}" for each in found}
    chosen = st.selectbox(
        "Project folders on this server",
        named,
        index=0 if len(named) == 1 else None,
        format_func=lambda source: named.get(source, source),
        placeholder=f"Search {len(named):,} folders",
        key="folder",
    )
    st.caption(f"Below {escape(str(top))}")
    if not complete:
        st.caption("There are more than are listed. A root nearer to the projects shows the others.")
    if st.button("Open the folder", disabled=chosen is None, icon=":material/folder_open:") and chosen:
        _open(chosen)


@st.cache_resource(show_spinner=False, ttl=LISTED_FOR)
def _projects(top: Path) -> tuple[list[places.Found], bool]:
    return places.projects_below(top)


def largest() -> int:
    """Bytes that an archive may have: what the server's configuration says."""
    return int(st.get_option("server.maxUploadSize")) * 2**20


def _upload() -> None:
    st.markdown("**Upload**")
    most = st.get_option("server.maxUploadSize")
    st.markdown(f"A zip of a project folder, at most {most:,} MB. Nothing in it is ever run.")
    turn = st.session_state.setdefault("upload turn", 0)
    sent = st.file_uploader("Zip of a project folder", "zip", key=f"upload-{turn}")
    st.caption("It stays on this server until it is deleted; whoever opens this page can open it, too.")
    if sent is None:
        return
    try:
        with st.spinner("Keeping the archive"):
            upload = uploads.receive(sent, sent.name)
    except OSError as error:
        st.error(f"The archive cannot be kept on this server: {escape(error.strerror or str(error))}.")
        return
    finally:
        _forget(sent)
    st.session_state.update({"upload turn": turn + 1, "arrived": upload.id})
    _unpack(upload)
    st.rerun()


def _forget(sent: UploadedFile) -> None:
    """Frees the memory of a file that is on the disk now; Streamlit would hold it until the session ends."""
    here = get_script_run_ctx()
    if here is not None:
        here.uploaded_file_mgr.remove_file(here.session_id, sent.file_id)  # type: ignore[attr-defined]


def _unpack(upload: Upload) -> None:
    if not upload.ready:
        jobs().submit("unpack", {"upload": upload.id, "packed": largest()})


def _uploaded() -> None:
    """Every upload: to open, with what is wrong with it, or on its way."""
    known = uploads.uploads()
    if not known:
        return
    st.subheader("Uploaded")
    working: dict[str, JobState] = {}
    for state in reversed([] if all(each.ready for each in known) else jobs().recent()):
        if state.task in ("unpack", "describe"):
            working[state.params["upload"]] = state  # the latest one
    for upload in known:
        with st.container(border=True):
            _one(upload, working.get(upload.id))


def _one(upload: Upload, state: JobState | None) -> None:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(upload.received))
    live = state is not None and state.live
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{escape(upload.name)}**  \n{size(upload.size)}, {when}", width="stretch")
        if upload.ready and st.button("Open", key=f"open-{upload.id}", icon=":material/folder_open:"):
            _open(upload.source)
        if not live:
            _delete(upload)
    if live and state is not None:
        running(state.id, "Unpacking" if state.task == "unpack" else "Writing project.toml")
    elif state is not None and state.status in ("failed", "died"):
        mend([state.error or "It ended without saying why."])
    if live or upload.ready:
        return
    if upload.problems is not None:
        mine, count = st.session_state.get("arrived") == upload.id, len(upload.problems)
        with st.expander(f"{count} {'thing' if count == 1 else 'things'} to mend", expanded=mine):
            mend(upload.problems)
            if upload.choices:
                _describe(upload)
        return
    if state is not None and state.status == "cancelled":
        st.warning("Cancelled before it was unpacked.")
    if upload.archive.exists() and st.button(
        "Unpack", key=f"unpack-{upload.id}", icon=":material/unarchive:"
    ):
        st.session_state["arrived"] = upload.id
        _unpack(upload)
        st.rerun()


def _delete(upload: Upload) -> None:
    with st.popover("Delete", icon=":material/delete:"):
        st.markdown(
            "Its files go, and the rows prepared from them. Decisions stay in the ledger, with what they "
            "rest on: weights, patches and the test rows shown for them. The same archive, uploaded again, "
            "goes on from there."
        )
        if st.button(f"Delete {escape(upload.name)}", key=f"delete-{upload.id}", type="primary"):
            accepted = ledger().versions(upload.source).accepted
            uploads.delete(upload, [None, *(version.entry for version in accepted)])
            if st.session_state.get("project") == upload.source:
                del st.session_state["project"]
                st.query_params.clear()
            st.rerun()


def _describe(upload: Upload) -> None:
    """Asks for what the project.toml that the archive lacks would say."""
    choices = upload.choices
    guesses, data = choices["guesses"], choices["data"]

    def choice(name: str, label: str, options: list[str]) -> str:
        at = options.index(guesses[name]) if guesses.get(name) in options else 0
        return st.selectbox(label, options, at, lambda option: option or "none", key=f"{name}-{upload.id}")

    st.markdown("Say what the files are, and `project.toml` is written here.")
    with st.form(f"describe-{upload.id}", border=False):
        left, right = st.columns(2)
        with left:
            answers = {
                "train": choice("train", "Training rows", data),
                "validation": choice("validation", "Validation rows (none: some are put aside)", ["", *data]),
                "test": choice("test", "Test rows", ["", *data]),
            }
        with right:
            answers["weights"] = choice("weights", "Trained model", choices["weights"])
            answers["loss"] = choice("loss", "Training loss", choices["losses"])
            answers["target"] = choice("target", "Column with the label", choices["columns"] or [""])
        if st.form_submit_button("Write project.toml and open", type="primary"):
            jobs().submit("describe", {"upload": upload.id, "answers": answers})
            st.session_state["arrived"] = upload.id
            st.rerun()


def to_read(here: Context) -> list[str]:
    """What a person should know, and check, before anything is made of the project's numbers."""
    assert here.overview is not None
    upload = uploads.load(here.source.removeprefix(uploads.UPLOAD))
    return [*here.overview.info["notes"], *(() if upload is None else upload.remarks)]


def check_rows(here: Context) -> None:
    """What was loaded and what is prepared, a line each, and what to know of it."""
    assert here.overview is not None
    info = here.overview.info
    rows, classes = info["rows"], info["classes"]
    counts = [f"{rows[name]:,}" if rows[name] else "no" for name in ("train", "validation", "test")]
    told = "{} training, {} validation, {} test rows".format(*counts)
    if here.task.name == "classification":
        listed = ", ".join(escape(name) for name in classes[:MOST_CLASSES])
        told += f" of {len(classes)} classes: {listed}{', ...' if len(classes) > MOST_CLASSES else ''}"
    else:
        told += f"; the model answers with {'values' if len(classes) > 1 else 'a value'}"
    decay = info["weight_decay"]
    st.markdown(
        f":material/check_circle: **Data** {told}  \n"
        f":material/check_circle: **Model** {escape(info['summary'])}, {info['parameters']:,} "
        f"parameters, trained on {escape(info['loss'])} with weight decay "
        f"{'unknown (taken as 0)' if decay is None else f'{decay:g}'}  \n"
        f":material/check_circle: **Criterion** {here.main['label']} on validation  \n"
        ":material/check_circle: **Prepared** predictions, psi of every training row, a map"
    )
    for note in to_read(here):
        st.info(escape(note), icon=":material/info:")
