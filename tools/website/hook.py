"""What mkdocs calls while it builds the site (mkdocs.yml). It adds pages from outside docs/, moves links and draws diagrams."""

import posixpath
from pathlib import PurePosixPath

from diagrams import drawn
from gallery import gallery, others, tables
from library import library
from links import REFERENCE, ROOT, for_the_site, repository_path, site_path, targets
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOTS = ("README.md", "CHANGELOG.md")
"""Documents outside docs/ that the site has in any case. It has every other file that a document links to."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages that are made from files to the navigation, before its last section."""
    *first, last = config.nav
    config.nav = [*first, {"Library": library()[1]}, {"Gallery": [f"{REFERENCE}/README.md", *tables(), *others()]}, last]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the gallery, the library, and every file of the repository that a document links to."""
    generated = {f"{REFERENCE}/README.md": gallery()} | library()[0]
    for path, text in generated.items():
        files.append(File.generated(config, path, content=text))
    waiting = [*ROOTS, *generated, *(repository_path(file.src_uri) for file in files.documentation_pages())]
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if files.get_file_from_path(site_path(path)) is None and (ROOT / path).is_file():
            files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            text = generated.get(path) or (ROOT / path).read_text(encoding="utf-8")
            waiting += [repository_path(site_path(target)) for target in targets(text, path)]
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page with its links as the site has them, and its diagrams as pictures beside it."""
    here = PurePosixPath(page.file.src_uri)

    def keep(number: int, svg: str) -> str:
        link = f"diagrams/{here.stem.lower()}-{number}.svg"
        file = File.generated(config, posixpath.join(here.parent, link), content=svg)
        if files.get_file_from_path(file.src_uri) is None:
            files.append(file)
        return link

    return drawn(for_the_site(markdown, repository_path(page.file.src_uri)), keep)
