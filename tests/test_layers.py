"""Imports go one way only (design.md, section 1): read from the source, nothing is run."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCREENS = [path for path in (ROOT / "app.py", *(ROOT / "pages").glob("*.py")) if path.exists()]
FILES = {
    path: path.relative_to(ROOT).with_suffix("").as_posix()
    for path in (*(ROOT / "puma_dash").rglob("*.py"), *SCREENS)
}


def imported(path, *, at_module_level=False):
    """Full names of what a file imports; those for type checkers only do not count."""
    found, todo = set(), list(ast.parse(path.read_text()).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not (at_module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            todo += ast.iter_child_nodes(node)
    return found


def inside(name, *packages):
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


FORBIDDEN = {
    "puma_dash/core": (
        "streamlit",
        "plotly",
        "puma_dash.workspace",
        "puma_dash.ui",
        "puma_dash.cli",
        "sqlalchemy",
    ),
    "puma_dash/workspace": ("streamlit", "plotly", "puma_dash.ui", "puma_dash.cli"),
    "puma_dash/ui/figures": ("streamlit",),
}


@pytest.mark.parametrize("path", FILES, ids=FILES.values())
def test_layers(path):
    name, names = FILES[path], imported(path)
    for layer, packages in FORBIDDEN.items():
        if inside(name.replace("/", "."), layer.replace("/", ".")):
            assert not [found for found in names if inside(found, *packages)]
    if not (path in SCREENS or name.startswith("puma_dash/ui/")):
        assert not [found for found in names if inside(found, "streamlit")]


BASE = {"types", "registry", "task"}
DERIVATIVES = BASE | {"objective", "engine", "row_gradients", "layers"}
ORDER = {
    "types": {"task"},
    "task": set(),
    "registry": {"types"},
    "first_order": {"types"},
    "architectures": BASE | {"architectures"},
    "objective": BASE,
    "checks": BASE | {"objective"},
    "engine": BASE | {"objective"},
    "row_gradients": set(),
    "layers": BASE | {"objective", "engine", "row_gradients"},
    "training": BASE | {"objective"},
    "recorder": {"types"},
    "retraining": BASE | {"objective", "engine", "curvature", "training"},
    "curvature": DERIVATIVES | {"curvature"},
    "criteria": DERIVATIVES | {"criteria"},
    "valuation": DERIVATIVES
    | {"curvature", "criteria", "valuation", "embedding", "recorder", "training", "retraining"},
    "unlearning": DERIVATIVES | {"curvature", "criteria", "unlearning", "training", "retraining", "recorder"},
    "embedding": DERIVATIVES | {"embedding"},
    "demos": DERIVATIVES | {"training", "recorder", "loaders", "demos"},
}
PLAIN = tuple(
    f"evaluation/{name}" for name in ("metrics", "reliability", "statistics", "estimates", "calibration")
)


@pytest.mark.parametrize(
    "path", [path for path in FILES if FILES[path].startswith("puma_dash/core/")], ids=FILES.get
)
def test_order_inside_core(path):
    name = FILES[path].removeprefix("puma_dash/core/")
    first = name.split("/")[0]
    allowed = {"types", "objective", "evaluation", "task"} if name in PLAIN else ORDER.get(first)
    if allowed is None:
        return  # what uses all of core: the calls, experiments, loaders
    parts = {
        found.split(".")[2]
        for found in imported(path, at_module_level=True)
        if inside(found, "puma_dash.core")
    }
    assert parts <= allowed
