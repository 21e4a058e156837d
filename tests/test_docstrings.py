"""One docstring dialect, Google's: what is documented is what the signature has. ruff checks the form (rules D)."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
FOLDERS = ("frfsr", "kernels", "recipes", "evals")
MANY = 4  # parameters, from which on each is described
ELSEWHERE = re.compile(r"\b[Ss]ee\b|\b[Aa]rguments\b.* as\b")  # a docstring that leads to the one with the arguments
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Examples")

# Names that stay stable: what they take, give and refuse is described whatever their size.
PUBLIC = {
    "frfsr/architectures.py": ["load", "find_architecture"],
    "frfsr/base.py": ["load_single_image", "load_base", "load_with_base"],
    "frfsr/checkpoints.py": ["find_model", "find_weights", "load_module", "read_config", "read_checkpoint"],
    "frfsr/convert.py": ["from_published", "convert_files"],
    "frfsr/data/pairs.py": ["load_pairs", "pack"],
    "frfsr/files.py": [
        "whole_file",
        "whole_folder",
        "added_to_folder",
        "require_writable",
        "require_writable_folder",
        "write_text",
    ],
    "frfsr/matching.py": ["correspond", "best_patch", "from_patches"],
    "frfsr/model.py": ["FRFSR.forward"],
    "frfsr/network.py": ["Network.encode_reference", "Network.forward", "Network.parameter_groups"],
    "frfsr/upscaling/explain.py": ["explain"],
    "frfsr/upscaling/upscale.py": ["upscale", "upscale_photo"],
    "kernels/_dispatch.py": ["use"],
    "kernels/ddf.py": ["dynamic_filter"],
    "kernels/deform.py": ["deform_conv"],
    "kernels/match.py": ["patch_argmax"],
    "kernels/refine.py": ["refine_flow"],
    "kernels/warp.py": ["flow_warp"],
    "evals/evaluation.py": ["evaluate"],
    "evals/metrics.py": ["psnr_y", "ssim_y", "lpips_alex"],
    "recipes/config.py": ["load_config"],
}


@dataclass(frozen=True)
class Documented:
    """A class or function, and its docstring."""

    name: str
    node: ast.ClassDef | ast.FunctionDef
    text: str

    def section(self, title: str) -> str:
        """What stands in a section, its indentation removed; "" without one."""
        found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", self.text, flags=re.MULTILINE)
        return re.sub(r"^    ", "", found[1], flags=re.MULTILINE) if found else ""

    def entries(self, title: str) -> list[str]:
        """The names that a section describes."""
        return re.findall(r"^(\*{0,2}\w+): ", self.section(title), flags=re.MULTILINE)

    def prose(self) -> str:
        """The docstring before its first section."""
        return re.split(rf"^(?:{'|'.join(SECTIONS)}):$", self.text, flags=re.MULTILINE)[0]

    def parameters(self) -> list[str]:
        """Those of the function, or of the class's constructor."""
        function = self.node
        if isinstance(function, ast.ClassDef):
            found = [item for item in function.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
            if not found:
                return []
            function = found[0]
        taken = function.args
        names = [parameter.arg for parameter in (*taken.posonlyargs, *taken.args)]
        names += [f"*{taken.vararg.arg}"] if taken.vararg else []
        names += [parameter.arg for parameter in taken.kwonlyargs]
        names += [f"**{taken.kwarg.arg}"] if taken.kwarg else []
        return [name for name in names if name not in ("self", "cls")]

    def fields(self) -> list[str]:
        """Annotated names in the class's body."""
        return [item.target.id for item in self.node.body if is_field(item)]

    def gives(self) -> bool:
        """Whether the function returns or yields something."""
        returns = self.node.returns if isinstance(self.node, ast.FunctionDef) else None
        return returns is not None and ast.unparse(returns) not in ("None", "NoReturn")

    def raised(self) -> set[str]:
        """Names of what the function itself raises."""
        nodes = list(walk_inside(self.node))
        errors = [node.exc for node in nodes if isinstance(node, ast.Raise) and node.exc]
        return {ast.unparse(error.func if isinstance(error, ast.Call) else error) for error in errors}


def is_field(item: ast.stmt) -> bool:
    return isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)


def walk_inside(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions inside it."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            yield from walk_inside(child)


def documented(file: Path) -> list[Documented]:
    """All classes and functions of a file that have a docstring."""

    def inside(body: list[ast.stmt], path: str) -> Iterator[Documented]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                if text := ast.get_docstring(node):
                    yield Documented(f"{path}{node.name}", node, text)
                yield from inside(node.body, f"{path}{node.name}.")

    return list(inside(ast.parse(file.read_text()).body, ""))


def files() -> list[str]:
    found = [file for folder in FOLDERS for file in sorted((CHECKOUT / folder).rglob("*.py"))]
    names = [str(file.relative_to(CHECKOUT)) for file in found]
    return [name for name in names if not name.startswith(tuple(f"frfsr/{folder}/" for folder in FOLDERS[1:]))]


def faults(thing: Documented) -> Iterator[str]:
    """What is wrong with a docstring."""
    arguments, attributes = thing.entries("Args"), thing.entries("Attributes")
    if thing.section("Args") and arguments != thing.parameters():
        yield f"documents {arguments}, takes {thing.parameters()}"
    if isinstance(thing.node, ast.ClassDef):
        known = {*thing.fields(), *re.findall(r"self\.(\w+)", ast.unparse(thing.node))}
        if unknown := set(attributes) - known:
            yield f"documents attributes that it has not: {sorted(unknown)}"
    else:
        if thing.section("Args") and thing.gives() and not (thing.section("Returns") or thing.section("Yields")):
            yield "documents what it takes, not what it gives"
        if thing.raised() and not thing.section("Raises") and not thing.node.name.startswith("_"):
            yield f"does not document that it raises {thing.raised()}"
        is_inside = thing.node.name.startswith("_") or "tl.constexpr" in ast.unparse(thing.node.args)
        if len(thing.parameters()) >= MANY and not arguments and not is_inside and not ELSEWHERE.search(thing.text):
            yield f"takes {len(thing.parameters())} arguments and describes none"
    _, _, rest = thing.prose().partition("\n")
    names = "|".join(map(re.escape, [*thing.parameters(), *thing.fields()])) or "-"
    if re.search(rf"(?:^|\. |; )(?:{names})(?:, \w+)*: ", rest, flags=re.MULTILINE):
        yield "describes arguments in prose: give them a section"
    if re.search(r"(?:^|[.;,] )[Rr](?:aises|eturns) ", thing.prose(), flags=re.MULTILINE):
        yield "says in prose what it returns or raises: give it a section"


@pytest.mark.parametrize("name", files())
def test_docstrings_say_what_signatures_say(name) -> None:
    found = [f"{thing.name} {fault}" for thing in documented(CHECKOUT / name) for fault in faults(thing)]
    assert not found


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, names in PUBLIC.items() for name in names])
def test_public_names_are_described_completely(file, name) -> None:
    (thing,) = [thing for thing in documented(CHECKOUT / file) if thing.name == name]
    assert thing.entries("Args") == thing.parameters()
    assert bool(thing.section("Returns") or thing.section("Yields")) == thing.gives()
    assert set(thing.entries("Raises")) >= thing.raised()


def test_faults_are_found() -> None:
    source = '''
def wrong(image, size: int, *rest) -> int:
    """Do it.

    Args:
        image: a picture.
        sise: of it.
    """
    raise ValueError

def prose(image) -> int:
    """Do it.

    image: a picture. Returns its size.
    """

def many(a, b, c, d) -> None:
    """Do it; returns nothing."""
'''
    tree = ast.parse(source)
    things = [Documented(node.name, node, ast.get_docstring(node) or "") for node in tree.body]
    assert [len(list(faults(thing))) for thing in things] == [3, 2, 2]
