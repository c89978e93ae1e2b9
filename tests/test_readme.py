"""What the README shows in Python runs as it stands there."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert len(blocks) == 4
    assert names["p"].strength == 1.0
    assert names["c"].metrics.loc["accuracy", "change"] > 0
    assert len(names["worst"]) == 10
    assert names["theirs"].harmful(100).tolist() == names["rows"].tolist()
    assert (tmp_path / "patched.safetensors").stat().st_size > 0
    report = (tmp_path / "report.html").read_text("utf-8")
    assert "Handwritten digits" in report
    assert len(report) < 8_000_000


def test_the_sign_sentence_is_the_one_of_the_pages():
    from puma_dash.ui.text import PSI_SENTENCE

    plain = " ".join(README.read_text("utf-8").replace("\n> ", " ").split())
    assert PSI_SENTENCE in plain
