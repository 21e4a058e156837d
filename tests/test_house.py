"""The house: which file may stand on which, and how large a file may be."""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
FOLDERS = {"frfsr": "frfsr", "kernels": "frfsr.kernels", "recipes": "frfsr.recipes", "evals": "frfsr.evals"}
LONGEST = 300  # lines

# What a package may import of the others; every other direction is against the arrows of docs/architecture.md.
# The faces (command line, demo) start what stands above the rest of frfsr.
MAY_USE = {
    "frfsr": {"frfsr.kernels"},
    "frfsr.kernels": {"frfsr"},
    "frfsr.evals": {"frfsr", "frfsr.kernels"},
    "frfsr.recipes": {"frfsr", "frfsr.kernels", "frfsr.evals"},
}
FACES = ("frfsr.cli", "frfsr.commands", "frfsr.demo", "frfsr.page", "frfsr.__main__")


def module_files() -> dict[str, Path]:
    """Every module of the package by its name."""
    files = {}
    for folder, package in FOLDERS.items():
        for file in sorted((CHECKOUT / folder).rglob("*.py")):
            path = file.relative_to(CHECKOUT / folder)
            if folder == "frfsr" and path.parts[0] in FOLDERS:  # links to the other folders
                continue
            parts = [part for part in path.with_suffix("").parts if part != "__init__"]
            files[".".join([package, *parts])] = file
    return files


def imports(name: str, file: Path, modules: dict[str, Path], deferred: bool = False) -> set[str]:
    """Modules of ours that a module imports when it is imported; `deferred`: or ever."""
    found = set()
    nodes = ast.walk(ast.parse(file.read_text())) if deferred else top_level(ast.parse(file.read_text()).body)
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for module in found if module in modules} - {name}


def top_level(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that run on import, those inside of conditions too, but not those for type checkers alone."""
    statements = []
    for node in body:
        statements.append(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            statements += top_level([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            statements += top_level([*node.body, *node.orelse, *(s for h in node.handlers for s in h.body)])
    return statements


def package(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in MAY_USE else parts[0]


def test_no_circle_between_modules() -> None:
    modules = module_files()
    graph = {name: imports(name, file, modules, deferred=True) for name, file in modules.items()}
    # A package's __init__ is imported with its modules; that alone makes no circle.
    graph = {name: {to for to in targets if not name.startswith(f"{to}.")} for name, targets in graph.items()}
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize("name", module_files())
def test_arrows_run_downwards(name) -> None:
    modules = module_files()
    allowed = MAY_USE[package(name)] | {package(name)}
    if name.startswith(FACES):
        allowed = set(MAY_USE)
    used = {target for target in imports(name, modules[name], modules, deferred=True) if package(target) not in allowed}
    assert not used
    if package(name) == "frfsr.kernels":
        outside = {target for target in imports(name, modules[name], modules) if package(target) == "frfsr"}
        assert outside <= {"frfsr", "frfsr.errors"}


@pytest.mark.parametrize("file", [*module_files().values(), *sorted((CHECKOUT / "tests").rglob("*.py"))], ids=str)
def test_files_are_short(file) -> None:
    lines = len(file.read_text().splitlines())
    assert lines <= LONGEST, f"{lines} lines: usually two boxes in one file"


def test_the_checkout_resolves_as_the_installed_package_does() -> None:
    """Links make `frfsr.kernels` a folder that editors, type checkers and a plain checkout find."""
    if not (CHECKOUT / "frfsr/kernels").exists():
        pytest.skip("unpacked from an sdist, which has no links")
    for folder in ("kernels", "recipes", "evals"):
        assert (CHECKOUT / "frfsr" / folder).resolve() == CHECKOUT / folder
