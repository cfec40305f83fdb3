"""The wheel holds the package with its networks, templates and configuration, and nothing else."""

import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parent.parent
NOT_PYTHON = (
    "py.typed", "zoo/*.safetensors", "zoo/*.xz", "zoo/*.npz", "zoo/*.json", "zoo/LICENSE*", "zoo/policies/*/*",
    "report/*.jinja",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, really built, by the backend that pip calls."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_holds_every_file_of_the_package_and_conf(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.getinfo(name).file_size for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {**_files("autoprune", "autoprune"), **_files("conf", "autoprune/conf")}
    for pattern in NOT_PYTHON:
        assert any(PurePath(name).match(f"autoprune/{pattern}") for name in packed), f"the package has no {pattern}"


def test_wheel_names_its_licence_its_python_and_its_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
        metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        commands = archive.read(f"{folder}/entry_points.txt").decode()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "dev", "hub", "llm", "openvino", "report", "search", "sweep", "vision",
    }  # fmt: skip
    assert "autoprune = autoprune.__main__:main" in commands


@pytest.mark.slow
def test_installed_wheel_runs_the_main_job_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    origin = [sys.executable, "-c", "import autoprune; print(autoprune.__file__)"]
    assert subprocess.check_output(origin, cwd=work, env=environment, text=True).startswith(str(site))
    job = [str(site / "bin" / "autoprune"), "search", "experiment=smoke", "agent=random", "tracking=none", "threads=1"]
    subprocess.run([sys.executable, *job], cwd=work, env=environment, check=True)
    (report,) = work.glob("runs/**/report.html")
    assert (report.parent / "result.json").exists()


def _files(folder: str, prefix: str) -> dict[str, int]:
    return {
        f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}": path.stat().st_size
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
