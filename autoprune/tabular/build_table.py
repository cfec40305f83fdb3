"""Builds a table: judges every plan of a task's network, and can be stopped and started again at any moment."""

import json
import math
import os
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.cost.model import CostModel
from autoprune.evaluation.candidates import Candidates
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.evaluation.workers import Failure, InProcess, JudgeJob, Pool, Processes
from autoprune.files import atomic_write
from autoprune.machine_cache import keep_freed_memory
from autoprune.structure.axes import Kept
from autoprune.structure.groups import Structure
from autoprune.tabular.exhaustive import ExhaustiveEvaluator
from autoprune.tabular.table import COSTS, FORMAT, ON, Table
from autoprune.tabular.table_match import circumstances
from autoprune.task.task import Role

MOST_PLANS = 2_000_000
OnProgress = Callable[[int, int, float], None]  # (plans judged, of so many, plans a second)


def build_table(  # noqa: PLR0913 - keyword-only settings
    candidates: Candidates,
    path: Path,
    *,
    held_out: Role,
    costs: Mapping[str, CostModel],
    batch_size: int,
    workers: int,
    card: Mapping[str, Any],
    on_progress: OnProgress,
) -> Table:
    """The table of every plan of a network, which is saved at the path afterwards.

    What was judged is kept in a folder beside it until then, so that a build that was killed goes on where it stopped.

    Args:
        candidates: What makes a plan's network.
        path: The file.
        held_out: Samples that no reward sees.
        costs: Name → cost.
        batch_size: Samples in one forward pass, at least 1.
        workers: Processes of one thread each, 0: here.
        card: Where and by whom it is built; what it is built of is added.
        on_progress: Called with (done, of).

    Raises:
        ValueError: Groups differ in their number of levels, there are too many plans, what stands in the folder was
            built of something else, or a plan cannot be judged.
    """
    structure = candidates.structure
    levels = [group.levels for group in structure.groups]
    if len({len(of) for of in levels}) != 1:
        raise ValueError(f"a table's groups have equally many levels; these have {[len(of) for of in levels]}")
    plans = math.prod(len(of) for of in levels)
    if plans > MOST_PLANS:
        raise ValueError(f"{plans:,} plans are more than the {MOST_PLANS:,} of a table; set task.levels to fewer")
    evaluator = _evaluator(candidates, held_out, batch_size)
    made_of = circumstances(candidates, held_out)
    card = {"format": FORMAT, **card, **made_of, "precision": "fp32", "batch_size": batch_size}
    journal = Journal.opened(path.with_suffix(".building"), card, heads=plans // len(levels[-1]), each=len(levels[-1]))
    heads = [(*head, levels[-1][-1]) for head in product(*levels[:-1])]
    with closing(_pool(evaluator, workers)) as pool:
        _judge(pool, heads, journal, answers=evaluator.answers, on_progress=on_progress)
    table = _table(structure, costs, journal)
    table.save(path)
    journal.remove()
    return table


def _judge(pool: Pool, heads: list[Kept], journal: "Journal", *, answers: int, on_progress: OnProgress) -> None:
    """All heads are in the journal afterwards: plans that differ in their last group only."""
    indices = {head: index for index, head in enumerate(heads)}
    missing = [head for head, index in indices.items() if not journal.has[index]]
    start = time.perf_counter()
    for done, (job, answer) in enumerate(pool.judge([JudgeJob(head, 0, answers) for head in missing]), start=1):
        if isinstance(answer, Failure):
            raise ValueError(f"a plan cannot be judged, so there is no table: {answer.reason}")
        values = np.concatenate([judged.values[:, 0] for judged in answer])
        journal.add(indices[job.kept], values.reshape(journal.each, len(ON), 4))
        rate = done * journal.each / (time.perf_counter() - start)
        on_progress(int(journal.has.sum()) * journal.each, len(heads) * journal.each, rate)


def _evaluator(candidates: Candidates, held_out: Role, batch_size: int) -> ExhaustiveEvaluator:
    task, structure = candidates.task, candidates.structure
    ordered = OrderedNetwork(
        task.model,
        structure,
        candidates.ranking,
        dtype=torch.float32,
        batch_statistics=candidates.repair.batch_norm,
        reconstruction=None if candidates.repair.least_squares is None else candidates.reconstruction,
    )
    roles = [candidates.proxy, held_out]
    return ExhaustiveEvaluator(ordered, task, structure, roles, batch_size=batch_size)


def _pool(evaluator: ExhaustiveEvaluator, workers: int) -> Pool:
    if workers == 0:
        return InProcess(evaluator)
    return Processes(evaluator, workers=workers, initialize=partial(keep_freed_memory, True))


def _table(structure: Structure, costs: Mapping[str, CostModel], journal: "Journal") -> Table:
    levels = np.array([group.levels for group in structure.groups])
    shape = (levels.shape[1],) * len(levels)
    kept = np.stack([of.ravel() for of in np.meshgrid(*levels, indexing="ij")], axis=1)
    counted = {cost: costs[cost](kept).astype(np.int64).reshape(shape) for cost in COSTS}
    judged = journal.values.reshape(-1, len(ON), 4).transpose(1, 2, 0).reshape(len(ON), 4, *shape)
    names, units = structure.names, tuple(structure.units.tolist())
    return Table(journal.card, names, units, levels, counted, dict(zip(ON, judged, strict=True)))


@dataclass(slots=True, eq=False)
class Journal:
    """What was judged so far, in a folder: the card, and a record with a checksum for each head that is done."""

    folder: Path
    """Where it stands."""
    card: dict[str, Any]
    """What all of it was judged with."""
    values: NDArray[np.float32]
    """Metrics [heads, each, roles, metrics]."""
    has: NDArray[np.bool_]
    """Which heads are known [heads]."""

    @classmethod
    def opened(cls, folder: Path, card: Mapping[str, Any], *, heads: int, each: int) -> "Journal":
        """A new one, or the one that stands there, with its card.

        Args:
            folder: Where the files lie.
            card: Where, when and of what it was made.
            heads: How many plans differ in more than the last group.
            each: Plans of each of them.

        Raises:
            ValueError: That is of something else.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "card.json"
        if not file.exists():
            (folder / "judged").unlink(missing_ok=True)
            with atomic_write(file) as partial_file:
                partial_file.write_text(json.dumps(card, indent=1))
        first = json.loads(file.read_text())
        asked = {**first, **card, **{key: first.get(key) for key in ("date", "commit")}}
        changed = [key for key in asked if first.get(key) != asked[key]]
        if changed:
            raise ValueError(
                f"{folder} holds a table that is half built of something else: its {', '.join(changed)} differ; delete "
                "the folder to begin again"
            )
        values = np.zeros((heads, each, len(ON), 4), np.float32)
        journal = cls(folder, first, values, np.zeros(heads, bool))
        journal._read()
        return journal

    @property
    def each(self) -> int:
        """Plans in a head."""
        return int(self.values.shape[1])

    def add(self, head: int, values: NDArray[np.float32]) -> None:
        """The head is with the operating system when this returns, so a killed process loses none.

        Args:
            head: Which of them.
            values: What was judged of its plans.
        """
        self.values[head], self.has[head] = values, True
        body = struct.pack("<I", head) + self.values[head].astype("<f4").tobytes()
        with (self.folder / "judged").open("ab") as file:
            file.write(body + struct.pack("<I", zlib.crc32(body)))

    def remove(self) -> None:
        for name in ("judged", "card.json"):  # a folder without a card is begun anew
            (self.folder / name).unlink()
        self.folder.rmdir()

    def _read(self) -> None:
        """Takes what is whole, and cuts off what is not."""
        file = self.folder / "judged"
        if not file.exists():
            return
        content, size = file.read_bytes(), 8 + self.values[0].nbytes
        whole = 0
        while whole + size <= len(content):
            body, (checksum,) = content[whole : whole + size - 4], struct.unpack_from("<I", content, whole + size - 4)
            if zlib.crc32(body) != checksum:
                break
            (head,) = struct.unpack_from("<I", body)
            self.values[head] = np.frombuffer(body, "<f4", offset=4).reshape(self.values[head].shape)
            self.has[head] = True
            whole += size
        os.truncate(file, whole)
