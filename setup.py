"""Puts the app into the package; everything else is said in pyproject.toml.

In a checkout app.py, pages, assets and .streamlit lie at the top, where Streamlit looks for them. A wheel
holds only the package, so there they become ``puma_dash/_app``; ``puma_dash.ui.app_folder`` finds either.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

APP = ("app.py", "pages/*.py", "assets/*", ".streamlit/config.toml")


def app_files() -> list[str]:
    """Every file of the app, relative to the top."""
    return sorted(path.as_posix() for pattern in APP for path in Path().glob(pattern))


class BuildWithApp(build_py):
    """Builds the package, and the app inside it."""

    def run(self) -> None:
        """Copies the app beside the modules; an editable installation uses the checkout's own."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "puma_dash", "_app")
        shutil.rmtree(folder, ignore_errors=True)  # what an earlier build left there
        for name in app_files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(name, str(folder / name))

    def get_source_files(self) -> list[str]:
        """What a source distribution needs to build the same wheel."""
        return [*super().get_source_files(), *app_files()]


setup(cmdclass={"build_py": BuildWithApp})
