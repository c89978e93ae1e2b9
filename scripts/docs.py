"""What MkDocs does not know by itself: words of the app, the registries, the results of the tutorial.

A page of docs/ says ``{{ name }}`` where something is to stand that is written elsewhere, once.
"""

import dataclasses
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import puma_dash as puma
from puma_dash.ui import guide, text

ROOT = Path(__file__).resolve().parents[1]
METHODS = "methods.md"
"""Written by scripts/methods.py, with formulas between dollars, which GitHub draws as they are."""
HEADINGS = {
    "CRITERIA": "Criteria: what a patch must improve or hold; lower is better",
    "CURVATURES": "Curvatures: what B is, and how its inverse is applied",
    "VALUATIONS": "Valuations: one score per training row; lower is more suspicious",
    "UNLEARNERS": "Unlearning methods: from a plan to a changed model",
    "EMBEDDINGS": "Embeddings: where the map draws a row",
    "LOSSES": "Losses: what the model was trained to make small",
    "ARCHITECTURES": "Architectures: networks that weight files name or fit",
    "LOADERS": "Loaders: rows from files",
    "DEMOS": "Demos: projects to try things on",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of docs/ and what lies elsewhere: pictures, changelog, the tutorial with its results."""
    for path in sorted((ROOT / "assets").iterdir()):
        files.append(File.generated(config, f"assets/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, "changelog.md", abs_src_path=str(ROOT / "CHANGELOG.md")))
    tutorial = "\n\n".join(shown(executed(ROOT / "docs" / "tutorial.ipynb")))
    files.append(File.generated(config, "tutorial.md", content=tutorial))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """The page with every ``{{ name }}`` and ``{{ README: section }}`` replaced."""
    if page.file.src_uri == METHODS:
        return mathematics(markdown)

    def written(found: re.Match[str]) -> str:
        return readme(found[2]) if found[1] == "README" else WRITTEN_ELSEWHERE[found[1]]()

    return re.sub(r"^{{ (\w+)(?:: (.+))? }}$", written, markdown, flags=re.MULTILINE)


def readme(section: str) -> str:
    """What stands in the README under that heading."""
    whole = (ROOT / "README.md").read_text("utf-8")
    found = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", whole, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no section {section!r}"
    return found[1]


def mathematics(markdown: str) -> str:
    """The text with formulas between dollars as MathML, which browsers draw without a script."""
    from latex2mathml.converter import convert

    return re.sub(r"\$([^$]+)\$", lambda found: convert(found[1]), markdown)


def formulas() -> str:
    """The mathematics of the Guide."""
    from latex2mathml.converter import convert

    return "\n\n".join(
        f"{mathematics(told)}\n\n{convert(formula, display='block')}" for told, formula in guide.FORMULAS
    )


def glossary() -> str:
    """The words of the Guide."""
    return "\n\n".join(f"**{word}.** {mathematics(meaning)}" for word, meaning in guide.GLOSSARY.items())


def catalogue() -> str:
    """Every registry with its entries."""
    return "\n\n".join(registered(name, getattr(puma, name)) for name in HEADINGS if hasattr(puma, name))


def registered(name: str, entries: dict[str, Any]) -> str:
    """A registry with its entries and their fields; those that all of them share stand once."""
    fields = {key: [described(entry) for entry in dataclasses.fields(kind)] for key, kind in entries.items()}
    first, *others = fields.values()
    shared = [line for line in first if all(line in own for own in others)]
    parts = [f"## {HEADINGS[name]}", f"`puma.{name}`."]
    parts += ["Every one has:", table(shared)] if shared else []
    for key, kind in entries.items():
        about = (inspect.getdoc(kind) or "").partition("\n\nArgs:")[0]
        own = [line for line in fields[key] if line not in shared]
        parts += [f"### {key}", f"`{kind.__name__}`: {kind.label}.", about, f"Source: {kind.reference}."]
        parts += [table(own)] if own else []
    return "\n\n".join(parts)


def described(entry: dataclasses.Field) -> str:
    """A field as a line of a table: its name, its default, its help with range or choices."""
    about = entry.metadata
    limits = [f"{word} {about[end]:.10g}" for word, end in (("from", "min"), ("to", "max")) if end in about]
    choices = [f"`{choice}`" for choice in about.get("choices", "").split()]
    told = filter(None, [about["help"].removesuffix("."), " ".join(limits), " or ".join(choices)])
    return f"| `{entry.name}` | `{entry.default!r}` | {'; '.join(told)}. |"


def table(lines: list[str]) -> str:
    """Fields as a table."""
    return "\n".join(["| field | default | |", "|---|---|---|", *lines])


WRITTEN_ELSEWHERE: dict[str, Callable[[], str]] = {
    "sign": lambda: text.PSI_SENTENCE,
    "steps": lambda: "\n".join(f"{i}. **{step}.** {told}" for i, (step, told) in enumerate(guide.STEPS, 1)),
    "formulas": formulas,
    "glossary": glossary,
    "limits": lambda: "\n".join(f"- {limit}" for limit in guide.LIMITS),
    "keys": lambda: "\n".join(f"| {key} | {guide.KEYS_MEAN[name]} |" for name, key in text.KEYS.items()),
    "catalogue": catalogue,
}


def executed(path: Path) -> Any:
    """The notebook after running it from top to bottom in an empty folder."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    quiet = ["--log-level=ERROR"]
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        return NotebookClient(notebook, timeout=600, resources=where, extra_arguments=quiet).execute()


def shown(notebook: Any) -> Iterator[str]:
    """The cells of a notebook as Markdown, each with what it printed, drew and returned."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield cell.source
            continue
        yield f"```python\n{cell.source}\n```"
        for output in cell.outputs:
            data = {"text/plain": output.text} if output.output_type == "stream" else output.data
            if "image/png" in data:
                picture = data["image/png"].strip()
                yield f'<img alt="What the code above draws" src="data:image/png;base64,{picture}">'
            elif "text/html" in data:
                yield re.sub(
                    r"(?s)<style.*?</style>| border=\"1\" class=\"dataframe\"", "", data["text/html"]
                )
            else:
                yield f"```text\n{data['text/plain'].rstrip()}\n```"
