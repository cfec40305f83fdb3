"""What the repository promises besides its code: two commands, pinned installs, documents that name what is there."""

import ast
import importlib.metadata
import os
import re
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = "autoprune|conf|docs|experiments|scripts|tests"  # a document that names a path in one of these is held to it


def test_licence_and_changelog_belong_to_this_version() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in licence
    assert PROJECT["license"] == "Apache-2.0"
    assert re.search(r"^## (Unreleased|\[?\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_scripts_run_as_they_are_and_stop_at_the_first_error(script: Path) -> None:
    first, text = script.read_text().splitlines()[0], script.read_text()
    assert script.stat().st_mode & stat.S_IXUSR, f"{script} is not executable; chmod +x it"
    assert first in ("#!/usr/bin/env bash", "#!/usr/bin/env python3")
    if first.endswith("bash"):
        assert "\nset -euo pipefail\n" in text
        subprocess.run(["bash", "-n", script], check=True)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert re.search(r"^scripts/test\b", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert '\nscripts/test -m "slow or not slow" ' in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_paths_that_exist(document: Path) -> None:
    text = document.read_text()
    linked = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    named = [name for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text) if not re.search(r"-v\d+$", name)]
    examples = re.findall(r"<!-- example: (\S+) -->", text)  # files that a reader is told to make
    paths = [(document.parent / link) for link in linked if link] + [ROOT / name for name in named]
    missing = [str(path) for path in paths if not path.exists() and path.relative_to(ROOT).as_posix() not in examples]
    assert not missing, f"{document.name} names {missing}, which do not exist"


def test_tests_import_helpers_and_no_other_tests() -> None:
    """What tests share lies in helper modules: a test that is moved or deleted takes no other with it."""
    imports = {
        f"{path.relative_to(ROOT)} imports from {node.module}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and re.match(r"tests\.(\w+\.)*test_\w+$", node.module or "")
    }
    assert not imports, f"{sorted(imports)}; move what they share into a helper module beside them"


def test_every_constraint_is_one_exact_version() -> None:
    names = [requirement.name for requirement in _constraints()]
    assert len(names) == len({canonicalize_name(name) for name in names})
    for requirement in _constraints():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), f"constraints.txt must pin {requirement} with =="


def test_constraints_meet_what_the_project_asks_for() -> None:
    pins = _pins()
    extras = PROJECT["optional-dependencies"]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *(r for extra in extras.values() for r in extra)]):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"pyproject.toml asks for {requirement}, which constraints.txt does not pin"
        assert requirement.specifier.contains(pin, prereleases=True), f"{requirement} excludes the pinned {pin}"


def test_everything_that_scripts_test_installs_is_pinned() -> None:
    pins = _pins()
    unpinned = {
        str(requirement)
        for requirement in _closure([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])
        # torch pins its own CUDA libraries, so that constraints.txt serves CPU and GPU machines
        if canonicalize_name(requirement.name) not in pins and "==" not in str(requirement.specifier)
    }
    assert not unpinned, f"constraints.txt lacks {sorted(unpinned)}"


def test_install_refuses_an_unsuitable_python(tmp_path: Path) -> None:
    result = _install(_clone(tmp_path), PYTHON="false")
    assert result.returncode != 0
    assert "not a Python 3.11 or newer" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_install_says_where_to_get_python_when_there_is_none(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "cat", "cksum"):
        (tools / name).symlink_to(next(p for p in map(Path, ("/usr/bin/" + name, "/bin/" + name)) if p.exists()))
    result = _install(_clone(tmp_path), PATH=str(tools))
    assert result.returncode != 0
    assert "autoprune needs Python 3.11 or newer" in result.stderr


def test_install_installs_once_and_again_when_the_pins_change(tmp_path: Path) -> None:
    clone, calls = _clone(tmp_path), tmp_path / "calls"
    calls.touch()
    interpreter = clone / ".venv" / "bin" / "python"  # stands for a finished .venv; it writes down what it is asked
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(f'#!/bin/sh\n[ "$1" = -c ] || echo "$@" >>{calls}\n')
    interpreter.chmod(0o755)

    def installed(extra: str) -> int:
        before = len(calls.read_text().splitlines())
        assert _install(clone, extra).returncode == 0
        return len(calls.read_text().splitlines()) - before

    assert installed("dev") == 1
    assert "--constraint constraints.txt --editable .[dev]" in calls.read_text()
    assert installed("dev") == 0
    assert installed("") == 0, "the core is part of dev"
    with (clone / "constraints.txt").open("a") as file:
        file.write("# another pin\n")
    assert installed("") == 1
    assert installed("dev") == 1


def _constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _pins() -> dict[str, Version]:
    return {
        canonicalize_name(requirement.name): Version(str(requirement.specifier).removeprefix("=="))
        for requirement in _constraints()
    }


def _closure(requirements: list[str]) -> Iterator[Requirement]:
    """Every requirement that installing these leads to, by the metadata of what is installed."""
    todo, seen = [(Requirement(text), "") for text in requirements], set[str]()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        key = f"{canonicalize_name(requirement.name)}{sorted(requirement.extras)}{requirement.specifier}"
        if key in seen:
            continue
        seen.add(key)
        yield requirement
        needs = importlib.metadata.requires(requirement.name) or []
        todo += [(Requirement(need), extra) for need in needs for extra in ("", *requirement.extras)]


def _clone(folder: Path) -> Path:
    """The files that scripts/install reads, elsewhere."""
    clone = folder / "clone"
    (clone / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "scripts/install"):
        (clone / name).write_text((ROOT / name).read_text())
    return clone


def _install(clone: Path, extra: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/bash", "scripts/install", *([extra] if extra else [])]
    return subprocess.run(command, cwd=clone, env={**os.environ, **environment}, capture_output=True, text=True)
