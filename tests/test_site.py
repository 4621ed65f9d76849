"""The documentation site, which `make lint` builds.

Catches a page without a place in the navigation, a route without a place in the reference, and a
site that loads something from another host.
"""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs/site"
REFERENCE = SITE / "api-reference.md"
# The address of a script, an image or a video, or the attributes of a `<link>`.
LOADED = re.compile(r"<(?:script|img|iframe|source|video)\b[^>]* src=\"([^\"]+)\"|<link\b([^>]+)>")


def test_navigation_has_each_page_once() -> None:
    navigation = runpy.run_path(str(SITE / "conf.py"))["NAVIGATION"]
    listed_pages = [page for pages in navigation.values() for page in pages]
    pages = {str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob("docs/**/*.md")}
    assert sorted(listed_pages) == sorted(pages | {"CHANGELOG", "CONTRIBUTING"})


def test_reference_has_each_route_once() -> None:
    patterns = re.findall(r":include: (\S+)", REFERENCE.read_text())
    paths = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    assert len(paths) > 20
    for path in paths:
        assert sum(bool(re.match(pattern, path)) for pattern in patterns) == 1, path


@pytest.mark.long
def test_built_site_is_complete_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    command += ["--conf-dir", str(SITE), "--doctree-dir", str(tmp_path / "cache")]
    build = subprocess.run(
        [*command, str(ROOT), str(tmp_path / "site")], check=False, capture_output=True, text=True
    )
    assert build.returncode == 0, build.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for path in pages:
        html = path.read_text()
        urls = [
            source or re.findall(r'href="([^"]+)"', link)[0]
            for source, link in LOADED.findall(html)
            if source or "stylesheet" in link or "icon" in link
        ]
        assert urls, path
        assert not [url for url in urls if "//" in url], path
    styles = [path.read_text() for path in (tmp_path / "site").rglob("*.css")]
    assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^\s)]+", "".join(styles))
    search_index = (tmp_path / "site/searchindex.js").read_text()
    assert "jobmon.queue" in search_index
    start_page = (tmp_path / "site/index.html").read_text()
    assert "docs/first-ten-minutes.html" in start_page
    reference = (tmp_path / "site/docs/site/api-reference.html").read_text()
    assert "/admin/jobs/stats" in reference
    library = (tmp_path / "site/docs/site/queue-library.html").read_text()
    assert "report_success" in library
