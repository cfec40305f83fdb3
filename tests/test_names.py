"""The package's names: one for one thing, in the field's words, in files and functions of a size that can be read."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "autoprune").rglob("*.py"))
VAGUE = {"found", "known", "told", "said", "wish", "wished", "wishes", "many", "shown", "place"}  # say what a value is
LONGEST_FILE, LONGEST_FUNCTION = 400, 60  # lines


@cache
def sources() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def faults(of: Callable[[ast.Module], list[str]]) -> dict[str, list[str]]:
    """Module → what is wrong with it, of those with which something is."""
    return {str(path.relative_to(ROOT)): wrong for path, tree in sources().items() if (wrong := of(tree))}


def test_no_two_modules_share_a_file_name() -> None:
    names = Counter(path.name for path in MODULES if path.name != "__init__.py")
    assert [name for name, times in names.items() if times > 1] == []


def test_no_two_public_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for tree in sources().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in names.items() if times > 1] == []


def test_values_are_named_for_what_they_are() -> None:
    assert faults(_vague) == {}


def test_files_and_functions_have_a_size_that_can_be_read() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}
    assert faults(_long_functions) == {}


def test_public_names_are_made_of_words_that_the_design_explains() -> None:
    explained = _explained_words()
    unexplained = {
        f"{word} ({name})"
        for name in _public_names()
        for word in _words_of(name)
        if explained.isdisjoint(_base_forms(word.lower()))
    }
    assert sorted(unexplained) == [], "explain them in docs/design.md (The words), or use one that stands there"


def test_public_docstrings_say_what_each_argument_is() -> None:
    """Of functions of two arguments or more. Methods without a docstring do what their protocol says."""
    assert faults(_lacking) == {}


def test_every_field_of_a_public_dataclass_has_a_line() -> None:
    assert faults(_undocumented_fields) == {}


def test_a_field_without_a_line_is_seen() -> None:
    """The control: of two fields, the first has a line."""
    tree = ast.parse(
        '@dataclass(frozen=True)\nclass Point:\n    x: float\n    """Metres."""\n    y: float\n    _z: int'
    )
    assert _undocumented_fields(tree) == ["Point.y"]


def _undocumented_fields(tree: ast.Module) -> list[str]:
    """Public fields of public dataclasses, named tuples and typed dictionaries that no string follows."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    described = [c for c in classes if any("dataclass" in ast.unparse(each) for each in c.decorator_list)]
    described += [c for c in classes if {ast.unparse(base) for base in c.bases} & {"NamedTuple", "TypedDict"}]
    return [
        f"{c.name}.{field.target.id}"
        for c in described
        for field, following in zip(c.body, [*c.body[1:], ast.Pass()], strict=True)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if not field.target.id.startswith("_")
        if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant))
    ]


def _vague(tree: ast.Module) -> list[str]:
    return [f"{name} in line {line}" for name, line in _bound(tree) if name.strip("_") in VAGUE]


def _long_functions(tree: ast.Module) -> list[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f"{f.name}: {lines} lines" for f in functions if (lines := _lines(f)) > LONGEST_FUNCTION]


def _lacking(tree: ast.Module) -> list[str]:
    return [f"{f.name} lacks {lacking}" for f in _public_functions(tree) if (lacking := _unexplained(f))]


def _public_functions(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public_functions(node)


def _unexplained(function: ast.FunctionDef) -> list[str]:
    """Arguments that no line of the docstring's Args begins with."""
    document = ast.get_docstring(function)
    every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    names = [argument.arg for argument in every if argument.arg not in ("self", "cls")]
    if document is None or len(names) < 2:
        return []
    section = document.partition("Args:\n")[2].partition("\n\n")[0]
    return [name for name in names if not re.search(rf"^    {name}: ", section, re.MULTILINE)]


def _bound(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of variables, arguments, functions and attributes that the module makes, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.FunctionDef(name=name):
                yield name, node.lineno
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno


def _lines(function: ast.FunctionDef) -> int:
    """Of its body, the docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _public_names() -> Iterator[str]:
    """Of rooms, modules, classes and functions."""
    for path, tree in sources().items():
        yield from (part.strip("_") for part in path.relative_to(ROOT).with_suffix("").parts)
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield node.name


def _words_of(name: str) -> list[str]:
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)


def _base_forms(word: str) -> set[str]:
    """The word, and what it may be the plural or a form of: plans → plan, ranked → rank, slicing → slice."""
    stems = {word.removesuffix(ending) for ending in ("s", "es", "ed", "d", "ing", "er", "r")}
    return stems | {f"{stem}e" for stem in stems} | {stem[:-1] for stem in stems if stem[-2:-1] == stem[-1:]}


def _explained_words() -> set[str]:
    """The words of docs/design.md's chapter on words, in its table and in its list of plain words."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    chapter = text.partition("## The words")[2].partition("\n## ")[0]
    return {word.lower() for word in re.findall(r"[A-Za-z]+", chapter)}
