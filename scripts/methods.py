"""Writes docs/methods.md: every method in five sentences, as the Guide page has them.

``python scripts/methods.py``, where puma_dash/ui/method_texts has changed.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from puma_dash.ui.method_texts import GROUPS, LEGEND, QUESTIONS, MethodText, text_of  # noqa: E402

PAGE = ROOT / "docs" / "methods.md"
BEGIN = """# Every method, in five sentences

What each method does, by what formula, what it needs, what it costs and when it misleads. The Guide page says
the same; `python scripts/methods.py` writes this page from there. [The catalogue](reference/catalogue.md) has
the settings, [the method](method.md) says how psi and PUMA are computed.
"""


def link(text: MethodText) -> str:
    """The method's name, leading to its heading on the page."""
    anchor = re.sub(r"[^\w\s-]", "", text.label.lower()).replace(" ", "-")
    return f"[{text.name}](#{anchor})"


def page() -> str:
    """The whole page."""
    lines = [
        f"| {asked} | {', '.join(link(text_of(method)) for method in methods)} | {why} |"
        for asked, methods, why in QUESTIONS
    ]
    parts = [
        BEGIN,
        "## Which one when\n\n| question | ask | because |\n|---|---|---|\n" + "\n".join(lines) + "\n",
    ]
    parts.append(f"## Signs and numbers\n\n{LEGEND}\n")
    for group in GROUPS.values():
        parts.append(f"## Methods that {group.title}\n\n{group.told}\n")
        for text in group.texts.values():
            told = [f"**{head}.** {sentence}\n" for head, sentence in text.sentences.items()]
            parts.append("\n".join([f"### {text.label}\n", *told, f"Source: {text.reference}\n"]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(PAGE)
