"""Levels by rank, and the folder that keeps levels: what is lost, cut short, too much, or written by two at once."""

import logging
import multiprocessing
import os
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autoprune.files import PARTIAL
from autoprune.importance.criterion import rank
from autoprune.importance.magnitude import magnitude
from autoprune.repair.weight_levels import SUFFIX, LevelFiles, RankedLevels
from autoprune.structure.edit import masked
from autoprune.structure.groups import Structure
from autoprune.structure.transformer import transformer_structure
from autoprune.task.task import Task
from tests.language_models import TINY
from tests.tasks import scored_task

UP = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def task() -> Task:
    return TINY["llama"]()


def ranked(task: Task, kind: str) -> tuple[Structure, dict[str, Tensor], RankedLevels]:
    structure = transformer_structure(task.model, task.example_input, prune=(kind,))
    scores = scored_task(partial(magnitude, order=1, read=False), task, structure)
    ranking = dict(rank(scores, structure, criterion="magnitude"))
    return structure, ranking, RankedLevels(task.model, structure, ranking)


@pytest.mark.parametrize("kind", ["weights", "2:4", "4:8"])
def test_each_comparison_keeps_its_largest(task: Task, kind: str) -> None:
    structure, _, levels = ranked(task, kind)
    weight = task.model.get_submodule(UP).get_parameter("weight").detach()
    size = structure.groups[0].units
    for kept in range(size):
        found = levels(UP, kept).unflatten(1, (-1, size))
        dense = weight.unflatten(1, (-1, size))
        stays = found != 0
        assert (stays.sum(dim=2) == kept).all()
        assert torch.equal(found[stays], dense[stays])
        if kept:
            smallest = dense.abs().masked_fill(~stays, torch.inf).amin(dim=2)
            assert (dense.abs().masked_fill(stays, 0).amax(dim=2) <= smallest).all()


def test_all_kept_are_the_models_own_weights(task: Task) -> None:
    structure, _, levels = ranked(task, "weights")
    for group in structure.groups:
        own = task.model.get_submodule(group.name).get_parameter("weight")
        assert levels(group.name, group.units).data_ptr() == own.data_ptr()


def test_levels_are_what_a_mask_leaves(task: Task) -> None:
    structure, ranking, levels = ranked(task, "2:4")
    kept = structure.units
    kept[::2] = 2
    expected = {g.name: levels(g.name, count).clone() for g, count in zip(structure.groups, kept.tolist(), strict=True)}
    with masked(task.model, structure, structure.plan(kept), ranking):
        for name, weight in expected.items():
            assert torch.equal(task.model.get_submodule(name).get_parameter("weight"), weight)


def test_ranked_levels_can_be_sent_to_another_process(task: Task) -> None:
    _, _, levels = ranked(task, "weights")
    assert torch.equal(pickle.loads(pickle.dumps(levels))(UP, 5), levels(UP, 5))


def test_what_is_no_level_is_refused(task: Task) -> None:
    _, _, levels = ranked(task, "2:4")
    with pytest.raises(KeyError, match="'lm_head'"):
        levels("lm_head", 2)
    for kept in (-1, 5):
        with pytest.raises(ValueError, match=rf"0 to 4 weights.*got {kept}"):
            levels(UP, kept)


# Files --------------------------------------------------------------------------------------------------------------

KILOBYTE = 1024


def filled(value: float) -> Tensor:
    """A kilobyte of one number."""
    return torch.full((16, 16), float(value))


def refuse() -> Tensor:
    raise AssertionError("it was made again")


def kept_files(folder: Path) -> set[str]:
    return {path.name.removesuffix(SUFFIX) for path in folder.rglob(f"*{SUFFIX}")}


def test_a_level_is_made_once(tmp_path: Path) -> None:
    made = LevelFiles(tmp_path / "levels", cap_bytes=10**6).get("a", "x.weight-3", partial(filled, 3))
    again = LevelFiles(tmp_path / "levels", cap_bytes=10**6).get("a", "x.weight-3", refuse)
    assert torch.equal(made, again)
    assert [path.name for path in (tmp_path / "levels" / "a").iterdir()] == [f"x.weight-3{SUFFIX}"]


def test_changing_what_was_read_leaves_the_file_alone(tmp_path: Path) -> None:
    files = LevelFiles(tmp_path, cap_bytes=10**6)
    files.get("a", "x", partial(filled, 3))
    files.get("a", "x", refuse).zero_()
    assert torch.equal(files.get("a", "x", refuse), filled(3))


@pytest.mark.parametrize("bytes_left", [0, 5, 100, KILOBYTE])
def test_a_file_that_was_cut_short_is_made_again(
    tmp_path: Path, bytes_left: int, caplog: pytest.LogCaptureFixture
) -> None:
    files = LevelFiles(tmp_path, cap_bytes=10**6)
    files.get("a", "x", partial(filled, 3))
    path = tmp_path / "a" / f"x{SUFFIX}"
    os.truncate(path, bytes_left)
    assert torch.equal(files.get("a", "x", partial(filled, 4)), filled(4))
    assert f"{path} is damaged" in caplog.text
    assert torch.equal(files.get("a", "x", refuse), filled(4))


def test_the_one_not_used_for_longest_goes_first_and_it_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = LevelFiles(tmp_path, cap_bytes=int(3.9 * KILOBYTE))  # a file is a kilobyte and a header
    for age, name in ((30, "a"), (20, "b"), (10, "c")):
        files.get(name, name, partial(filled, 1))
        path = tmp_path / name / f"{name}{SUFFIX}"
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))
    assert not caplog.records
    files.get("a", "a", refuse)  # now the youngest
    files.get("a", "d", partial(filled, 1))
    assert kept_files(tmp_path) == {"a", "c", "d"}
    files.get("a", "e", partial(filled, 1))
    files.get("a", "f", partial(filled, 1))
    assert sum(path.stat().st_size for path in tmp_path.rglob(f"*{SUFFIX}")) <= 3.9 * KILOBYTE
    assert len(caplog.records) == 1
    assert "reach cap_bytes=3993: those that were not used for the longest time are removed" in caplog.text


def test_a_level_above_the_cap_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = LevelFiles(tmp_path, cap_bytes=1000)
    for value in (1, 2):
        assert torch.equal(files.get("a", "x", partial(filled, value)), filled(value))
    assert not kept_files(tmp_path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "more than cap_bytes=1000: it is not kept" in caplog.text


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    files = LevelFiles(tmp_path / "file", cap_bytes=10**6)
    for value in (1, 2):
        assert torch.equal(files.get("a", "x", partial(filled, value)), filled(value))
    assert caplog.text.count("will be computed each time") == 1


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    old, young = (tmp_path / "a" / f"{name}{PARTIAL}" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(bytes(5 * KILOBYTE))
    os.utime(old, (0, 0))
    LevelFiles(tmp_path, cap_bytes=3 * KILOBYTE).get("a", "x", partial(filled, 1))
    assert not old.exists()
    assert young.exists()
    assert kept_files(tmp_path) == {"x"}


def use(folder: Path, seed: int) -> None:
    """Asks for levels in an order of its own; each must be what it should be."""
    files = LevelFiles(folder, cap_bytes=5 * KILOBYTE)
    for value in torch.randint(12, (300,), generator=torch.Generator().manual_seed(seed)).tolist():
        found = files.get("a", str(value), partial(filled, value))
        assert torch.equal(found, filled(value)), value


def test_two_processes_use_one_folder(tmp_path: Path) -> None:
    """While each of them removes what the other has written, and reads."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=use, args=(tmp_path, seed)) for seed in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert not list(tmp_path.rglob(f"*{PARTIAL}"))
