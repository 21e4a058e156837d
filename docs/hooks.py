"""What the site takes from the program: a page for each package with all its public names, and the command line's."""

import argparse
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from frfsr.cli import build_parser

CHECKOUT = Path(__file__).parents[1]
SOURCES = "https://github.com/frfsr/frfsr/blob/main/"
COMMANDS = "reference/command_line.md"


def on_config(config: MkDocsConfig) -> None:
    """Add the pages to the navigation."""
    pages = [f"reference/{package}.md" for package in packages()]
    config.nav.append({"Reference": ["reference/index.md", COMMANDS, *pages]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Make the pages, those of the packaged weights' cards too."""
    for package, modules in packages().items():
        text = "\n\n".join([f"# {package}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"reference/{package}.md", content=text))
    for card in CHECKOUT.glob("frfsr/weights/*/README.md"):
        files.append(File.generated(config, f"cards/{card.parent.name}.md", content=card_page(card.read_text())))
    files.append(File.generated(config, COMMANDS, content="\n\n".join(["# Command line", *describe(build_parser())])))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to the checkout's files outside of docs/ lead to the repository."""
    depth = page.file.src_uri.count("/") + 1
    return re.sub(rf"\]\((?:\.\./){{{depth}}}(?!\.\.)", f"]({SOURCES}", markdown)


def packages() -> dict[str, list[str]]:
    """Public modules by package, as they are imported."""
    found = {}
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    for package in sorted(project["tool"]["setuptools"]["packages"]):
        names = sorted(file.stem for file in CHECKOUT.joinpath(*package.split(".")).glob("*.py"))
        found[package] = [package, *(f"{package}.{name}" for name in names if not name.startswith("_"))]
    return found


def card_page(card: str) -> str:
    """A model card as a page, with what the Hub reads at its head at the end."""
    _, facts, text = card.split("---\n", 2)
    return f"{text.strip()}\n\n## What the Hub reads\n\n```yaml\n{facts}```\n"


def describe(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Help of every command that does something."""
    commands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not commands:
        yield f"## {parser.prog}\n\n```text\n{parser.format_help()}```"
    for action in commands:
        for command in action.choices.values():
            yield from describe(command)
