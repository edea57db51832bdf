"""Build the documentation site: docs/, the README as its first page, and the committed reports.

    python scripts/docs_site.py [--to build/site]

The pages keep their places relative to each other, so a link that works in the repository works on the site.
mkdocs fails on a link that leads nowhere; after it, every page is read for what a browser would load from
another server: the site needs none. Exits with 1 where there is such a request.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "examples", "studies")
# What a browser fetches by itself; a link that a reader follows is none.
SERVER = r"""["']?(?:https?:)?//[^"'>)\s]+"""
LOADED = re.compile(
    rf"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc={SERVER}"
    rf"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|icon|preconnect|modulepreload))[^>]*\bhref={SERVER}"
    rf"|(?:@import\s|url\()\s*{SERVER}",
    re.IGNORECASE,
)


def collect(source: Path) -> None:
    """Copy the pages, and of every report what a reader opens: no raw records, no tables of numbers."""
    for name in PAGES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source / name)
    for report in sorted((ROOT / "reports").iterdir()):
        shutil.copytree(report, source / "reports" / report.name, ignore=shutil.ignore_patterns("data", ".*"))


def requests_elsewhere(site: Path) -> list[str]:
    """What the pages and styles would load from another server: "FILE: what", in their order."""
    found = []
    for path in sorted((*site.rglob("*.html"), *site.rglob("*.css"))):
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(site)}: {hit.group(0)[:120]}" for hit in LOADED.finditer(text)]
    return found


def main(to: Path) -> int:
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source"
        source.mkdir()
        collect(source)
        config = Path(place) / "mkdocs.yml"
        config.write_text((ROOT / "scripts" / "mkdocs.yml").read_text() + f"\ndocs_dir: {source}\n")
        command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
        quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
        command += ["--config-file", str(config), "--site-dir", str(to.resolve())]
        code = subprocess.run(command, env=quiet).returncode
    if code:
        return code
    elsewhere = requests_elsewhere(to)
    for line in elsewhere:
        print(line)
    pages = sum(1 for _ in to.rglob("*.html"))
    print(f"{to}: {pages} pages, {len(elsewhere)} requests to other servers")
    return 1 if elsewhere else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "site")
    sys.exit(main(parser.parse_args().to))
