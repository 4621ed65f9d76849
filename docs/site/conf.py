"""The documentation site: `make docs` builds it from README.md, CHANGELOG.md and docs/.

Each page is also readable where the repository is hosted. So only the site's own parts are here:
its navigation, and the pages that are made from the OpenAPI document and from docstrings.
"""

import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from jobmon import __version__  # noqa: E402

# The sections of the navigation, by task. A page that is in none of them fails the build.
NAVIGATION = {
    "Start": ["docs/first-ten-minutes", "docs/own-queue"],
    "Production": [
        "docs/production",
        "docs/kubernetes",
        "docs/systemd",
        "docs/proxies",
        "docs/sign-in",
        "docs/scaling",
    ],
    "Adapters": ["docs/adapters"],
    "Operate": [
        "docs/operations",
        "docs/terminal",
        "docs/metrics",
        "docs/runbook",
        "docs/notifications",
    ],
    "Act": ["docs/actions"],
    "Security": ["docs/security"],
    "Reference": [
        "docs/api",
        "docs/site/api-reference",
        "docs/site/queue-library",
        "docs/versions",
        "CHANGELOG",
    ],
    "Explanation": ["docs/architecture", "docs/reliability", "docs/performance", "CONTRIBUTING"],
}

project = html_title = "jobmon"
release = __version__
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**.md"]
exclude_patterns = [".*", "**/node_modules", "build", "dist", "tests", "jobmon", "bench", "deploy"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.openapi"]
default_role = "code"  # docstrings have single backticks
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure"]  # shortened examples: {"a": 1, …}

myst_heading_anchors = 4  # the same anchors as on GitHub

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_favicon = str(ROOT / "jobmon/dashboard/static/icon.svg")
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

FOLDER_LINK = re.compile(r"\[([^]]+)\]\(((?:\.\./)?[\w./-]+)\)")


def prepare_page(app: Sphinx, name: str, content: list[str]) -> None:
    """Add the navigation to the first page; replace links to folders by text: the site has none."""
    page = ROOT / f"{name}.md"

    def replace_folder(match: re.Match[str]) -> str:
        return match[1] if (page.parent / match[2]).is_dir() else match[0]

    content[0] = FOLDER_LINK.sub(replace_folder, content[0])
    if name == root_doc:
        for caption, pages in app.config.navigation.items():
            entries = "\n".join(f"/{page}" for page in pages)
            content[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def mark_code(*arguments: object) -> None:
    """Mark the indented examples of a docstring as code, in place."""
    lines = arguments[-1]
    assert isinstance(lines, list)  # noqa: S101
    for index in reversed(range(len(lines))):
        previous = lines[index - 1] if index else ""
        is_first = lines[index].startswith("    ") and not previous.strip()
        if is_first and not (index > 1 and lines[index - 2].startswith("    ")):
            lines[index:index] = [".. code-block:: python", ""]


def copy_first_page(app: Sphinx, failure: Exception | None) -> None:
    """Copy the first page to index.html, which web servers look for."""
    if failure is None:
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    """Connect the functions above to Sphinx. A change of NAVIGATION makes it read all pages."""
    app.add_config_value("navigation", NAVIGATION, "env")
    app.connect("source-read", prepare_page)
    app.connect("autodoc-process-docstring", mark_code)
    app.connect("build-finished", copy_first_page)
