"""Guide: the method on one page, a glossary, what influence cannot do, the keys."""

import platform
from importlib.metadata import version

import streamlit as st

from puma_dash.ui import guide, text
from puma_dash.ui.bootstrap import bootstrap

LIBRARIES = ("torch", "scikit-learn", "umap-learn", "streamlit", "plotly", "numpy", "pandas")


def main() -> None:
    """Draws the page."""
    here = bootstrap("Guide")
    st.title("Guide")
    st.markdown(guide.QUESTION)
    left, right = st.columns([1.6, 1], gap="large")
    with left:
        st.subheader("In five steps")
        for number, (title, told) in enumerate(guide.STEPS, 1):
            st.markdown(f"**{number}. {title}.** {told}")
        st.subheader("The mathematics")
        for told, formula in guide.FORMULAS:
            st.markdown(f"{told}\n\n$\\displaystyle {formula}$")
        st.subheader("What influence cannot do")
        st.markdown("\n".join(f"- {limit}" for limit in guide.LIMITS))
    with right:
        st.subheader("The sign")
        st.info(text.PSI_SENTENCE)
        st.subheader("Glossary")
        st.markdown("\n\n".join(f"**{word}.** {meaning}" for word, meaning in guide.GLOSSARY.items()))
        st.subheader("Keys")
        st.table({"key": list(text.KEYS.values()), "does": [guide.KEYS_MEAN[name] for name in text.KEYS]})
        st.subheader("Versions")
        told = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)]
        st.caption(", ".join(told))
    if here is None:
        st.page_link("app.py", label="Open a project", icon=":material/folder_open:")


main()
