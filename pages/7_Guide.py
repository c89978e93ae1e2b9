"""Guide: the method on one page, every other one in five sentences, a glossary, the keys."""

import platform
from importlib.metadata import version
from typing import Any

import streamlit as st

from puma_dash.ui import guide, text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.method_texts import GROUPS, LEGEND, QUESTIONS, named, text_of
from puma_dash.ui.panels import segments

LIBRARIES = ("torch", "scikit-learn", "umap-learn", "streamlit", "plotly", "numpy", "pandas")
TABS = ("PUMA on one page", "All methods", "Words and keys")
KEPT: dict[str, Any] = {"persist_state": "session"}


def main() -> None:
    """Draws the page; ``?method=tracin`` opens it at that method, see ``method_texts.named``."""
    asked = named(st.query_params.pop("method", ""))
    here = bootstrap("Guide")
    if asked is not None:
        group, key = asked
        st.session_state.update({"guide": TABS[1], "guide-group": group, f"guide-{group}": key})
    st.title("Guide")
    st.markdown(guide.QUESTION)
    one_page, methods, words = st.tabs(TABS, key="guide", on_change="rerun")
    with one_page:
        _one_page()
    with methods:
        _methods()
    with words:
        _words()
    if here is None:
        st.page_link("app.py", label="Open a project", icon=":material/folder_open:")


def _one_page() -> None:
    left, right = st.columns([1.6, 1], gap="large")
    with left:
        st.subheader("In five steps")
        for number, (title, told) in enumerate(guide.STEPS, 1):
            st.markdown(f"**{number}. {title}.** {told}")
        st.subheader("The mathematics")
        for told, formula in guide.FORMULAS:
            st.markdown(f"{told}\n\n$\\displaystyle {formula}$")
    with right:
        st.subheader("The sign")
        st.info(text.PSI_SENTENCE)
        st.subheader("What influence cannot do")
        st.markdown("\n".join(f"- {limit}" for limit in guide.LIMITS))


def _methods() -> None:
    titles = {key: group.title for key, group in GROUPS.items()}
    st.session_state.setdefault("guide-group", "values")
    group = segments("Methods that", list(titles), titles.__getitem__, key="guide-group", **KEPT)
    _, told, texts = GROUPS[group]
    left, right = st.columns([1, 2], gap="large")
    with left:
        key = st.radio(
            told, list(texts), format_func=lambda key: texts[key].label, key=f"guide-{group}", **KEPT
        )
    with right:
        shown = texts[key]
        st.subheader(shown.label)
        st.caption(shown.reference)
        st.markdown("\n\n".join(f"**{head}.** {sentence}" for head, sentence in shown.sentences.items()))
        st.caption(LEGEND)
    st.subheader("Which one when")
    st.table(
        {
            "question": [question.asked for question in QUESTIONS],
            "ask": [", ".join(text_of(method).name for method in question.methods) for question in QUESTIONS],
            "because": [question.why for question in QUESTIONS],
        }
    )


def _words() -> None:
    left, right = st.columns([1.6, 1], gap="large")
    with left:
        st.subheader("Glossary")
        st.markdown("\n\n".join(f"**{word}.** {meaning}" for word, meaning in guide.GLOSSARY.items()))
    with right:
        st.subheader("Keys")
        st.table({"key": list(text.KEYS.values()), "does": [guide.KEYS_MEAN[name] for name in text.KEYS]})
        st.subheader("Versions")
        told = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)]
        st.caption(", ".join(told))


main()
