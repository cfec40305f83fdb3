"""What is done with every plan's network after the search: recovery, test data, latency, files."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.deep_compression import layer_sizes
from autoprune.device.device import predicted_and_measured
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.outcome import Metrics
from autoprune.export.apz import LARGEST_CODED, apz_size
from autoprune.export.byte_limit import within_bytes
from autoprune.export.latency_measurement import measure_latency
from autoprune.export.network import network_bytes
from autoprune.export.onnx import export_onnx
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.quantize.quantized_network import Quantize, no_quantization
from autoprune.records import Ledgers, scalar_metrics
from autoprune.recover.recovery import OnStep, Recovery
from autoprune.rehearsal import RunStages
from autoprune.runs import RunFolder
from autoprune.seeding import torch_generator
from autoprune.structure.code_bits import bits_of, is_coded
from autoprune.task.copies import copied
from autoprune.task.neighbours import neighbour_agreement
from autoprune.task.weights import load_weights, save_weights

DENSE = "dense"
RECOVERED = "recovered"  # in the run's
ENCODED = "encoded_bytes"  # the budget that a file has to meet


@dataclass(frozen=True, slots=True, eq=False)
class UnseenJudge:
    """Judges each network once on the search samples that no reward has seen."""

    problem: Problem
    """Whose held-out samples they are."""
    _judge: list[Judge] = field(default_factory=list)
    _metrics: dict[nn.Module, Metrics] = field(default_factory=dict)

    def __call__(self, network: nn.Module) -> Metrics:
        if network not in self._metrics:
            if not self._judge:
                self._judge.append(Judge(self.problem.task, self.problem.held_out))
            self._metrics[network] = self._judge[0](network)
        return self._metrics[network]

    def score(self, network: nn.Module) -> float:
        """The problem's score of the network, higher is better."""
        return self.problem.spec.score(self(network))


@dataclass(frozen=True, slots=True, eq=False)
class RecoveredNetworks:
    """Recovers plans' networks, each in the same way from the same seed, and keeps what it does not make worse."""

    problem: Problem
    """What was searched."""
    recover: Recovery
    """Trains a pruned network."""
    quantize: Quantize
    """What is done to a network afterwards."""
    seed: int
    """Of both."""
    run: RunFolder
    """Where recovered networks lie until the run is complete."""
    ledgers: Ledgers
    """Gets a line for each report of a recovery."""
    unseen: UnseenJudge
    """Decides whether the recovery was for the better."""
    harmed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Plans whose recovered network was worse → its metrics on held-out search data; these keep the pruned network."""
    limited: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Plans under a budget of encoded bytes → their file's bytes, its limit, and weights that went to meet it."""

    def networks(
        self, plans: Mapping[str, PruningPlan], pruned: Mapping[str, nn.Module], *, on_step: Callable[[str], OnStep]
    ) -> dict[str, nn.Module]:
        """Name → the network after recovery; equal plans share one, and what recovery leaves is the pruned one itself.

        What a run that was cut off had recovered already is read back.

        Args:
            plans: Name → plan.
            pruned: Name → its network, which stays as it is.
            on_step: Name → what is told of each step of its recovery.
        """
        done: dict[PruningPlan, tuple[str, nn.Module]] = {}
        for name, network in pruned.items():
            if plans[name] not in done:
                done[plans[name]] = name, self._network(name, plans[name], network, on_step)
            else:
                for notes in (self.harmed, self.limited):
                    if done[plans[name]][0] in notes:
                        notes[name] = notes[done[plans[name]][0]]
        return {name: done[plan][1] for name, plan in plans.items()}

    def _network(self, name: str, plan: PruningPlan, pruned: nn.Module, on_step: Callable[[str], OnStep]) -> nn.Module:
        weights, harm = self.run.path / RECOVERED / f"{name}.safetensors", f"{RECOVERED}/{name}.harmed.json"
        if weights.exists():
            self.ledgers.recovery.forget("plan", name)
            for file, notes in ((harm, self.harmed), (f"{RECOVERED}/{name}.limited.json", self.limited)):
                if self.run.has(file):
                    notes[name] = self.run.read_json(file)
            return _unless_changed(load_weights(copied(pruned), weights), pruned)
        task = self.problem.task
        generator = torch_generator(self.seed, "recover")
        trained = self.recover(pruned, task, teacher=task.model, generator=generator, on_step=on_step(name))
        network = trained = _unless_changed(trained, pruned)
        drawn, bits = torch_generator(self.seed, "quantize"), bits_of(self.problem.structure, plan)
        if decides := is_coded(self.problem.structure):  # the pruned network has codes too
            network = self.quantize(network, task, generator=drawn, layer_bits=bits)
        before, after = self._metrics(pruned), self._metrics(network)
        if before is not None and (after is None or self._is_worse(after, than=before)):
            self.harmed[name] = {} if after is None else asdict(after)
            self.run.write_json(harm, self.harmed[name])
            network = trained = pruned
        if quantizes(self.quantize) and not decides:
            network = self.quantize(network, task, generator=drawn)
        network = self._within_budget(name, network, trained)
        save_weights(network, weights)
        return network

    def _within_budget(self, name: str, network: nn.Module, trained: nn.Module) -> nn.Module:
        """The network, whose file meets a budget of encoded bytes, or a note says that it does not.

        The budget bounds what was predicted of the plan; training and quantizing change it by some per cent.
        """
        problem = self.problem
        limits = [bound.limit for bound in problem.projector.budget.bounds if bound.cost.name == ENCODED]
        if not limits or sum(parameter.numel() for parameter in network.parameters()) > LARGEST_CODED:
            return network
        layers = [matrix.layer for group in problem.structure.groups for matrix in group.compared]
        magnitudes = {f"{layer}.weight" if layer else "weight": trained.get_submodule(layer).weight for layer in layers}
        limited = within_bytes(network, limits[0], architecture=problem.task.architecture, magnitudes=magnitudes)  # type: ignore[arg-type]
        self.limited[name] = limited.as_json()
        self.run.write_json(f"{RECOVERED}/{name}.limited.json", self.limited[name])
        return limited.network

    def _metrics(self, network: nn.Module) -> Metrics | None:
        """On held-out search data; None where its outputs are not finite."""
        try:
            return self.unseen(network)
        except FloatingPointError:
            return None

    def _is_worse(self, after: Metrics, *, than: Metrics) -> bool:
        """By the score, and no better by the task's metric where there is one."""
        score = self.problem.spec.score
        return score(after) < score(than) and not after.accuracy > than.accuracy


def _unless_changed(network: nn.Module, pruned: nn.Module) -> nn.Module:
    """The pruned network itself where the other has its weights, so that it is held and judged once."""
    state, before = ({**dict(of.named_parameters()), **dict(of.named_buffers())} for of in (network, pruned))
    same = state.keys() == before.keys() and all(torch.equal(state[name], value) for name, value in before.items())
    return pruned if same else network


def quantizes(quantize: Quantize) -> bool:
    """Whether it changes a network at all."""
    return getattr(quantize, "func", quantize) is not no_quantization


@dataclass(frozen=True, slots=True, eq=False)
class FinalNetworks:
    """The dense network and every plan's, before and after recovery, and what is measured of them."""

    problem: Problem
    """What was searched."""
    plans: Mapping[str, PruningPlan]
    """Name → plan, without the dense one."""
    pruned: Mapping[str, nn.Module]
    """Name → network before recovery."""
    recovered: Mapping[str, nn.Module]
    """Name → network after it."""
    unseen: UnseenJudge
    """Judges on held-out search data."""
    coded: bool
    """Their weights have few values, so that the size of an encoded file says something."""

    def records(self, stages: RunStages) -> dict[str, Any]:
        """What `result.json` says of each network: costs, metrics, latency, sizes.

        Args:
            stages: Notes which stages fail.
        """
        parts: dict[str, Callable[[], dict[str, dict[str, Any]]]] = {
            "judge": self._judged,
            "latency": self._timed,
            "measures": self._measures,
        }
        records: dict[str, Any] = {
            name: {"plan": plan.as_json(), "cost": self._costs(plan)} for name, plan in self._every_plan.items()
        }
        for stage, part in parts.items():
            for name, values in stages.attempt(stage, part, otherwise={}).items():
                records[name] |= values
        return records

    def on_device(self) -> dict[str, Any] | None:
        """What was predicted of every network on the device and what it took there; None without a device."""
        problem = self.problem
        if problem.spec.device is None:
            return None
        return predicted_and_measured(
            problem.spec.device, problem.task, problem.costs["latency"], self._every_plan, self._after
        )

    def coded_layers(self, name: str) -> list[dict[str, Any]]:
        """Where the bytes of each layer of a network's `.apz` file go; none where coding is slow, or saves nothing.

        Args:
            name: Of the network after recovery.
        """
        network = self._after[name]
        if not self.coded or sum(parameter.numel() for parameter in network.parameters()) > LARGEST_CODED:
            return []
        return [layer.as_json() for layer in layer_sizes(network)]

    def parts_alone(self, name: str) -> dict[str, dict[str, Any]]:
        """What pruning alone, shared values alone and both come to before training, of a plan that decides on both.

        Args:
            name: Of the plan.

        Returns:
            Part → bytes of its file, and its metrics on the test role; none of other plans, or where coding is slow.
        """
        problem, structure = self.problem, self.problem.structure
        parameters = sum(parameter.numel() for parameter in problem.task.model.parameters())
        if not is_coded(structure) or parameters > LARGEST_CODED:
            return {}
        test, kept = Judge(problem.task, problem.task.data.test), np.array(self._every_plan[name].kept)
        coded = np.array([bool(group.coded) for group in structure.groups])
        plans = {
            "pruning alone": np.where(coded, structure.units, kept),
            "quantization alone": np.where(coded, kept, structure.units),
            "both": kept,
        }
        networks = {part: problem.pruned(structure.plan(units)) for part, units in plans.items()}
        return {
            part: apz_size(network, architecture=problem.task.architecture) | scalar_metrics(test(network))
            for part, network in networks.items()
        }

    @property
    def _every_plan(self) -> dict[str, PruningPlan]:
        return {DENSE: self.problem.structure.dense, **self.plans}

    @property
    def _after(self) -> dict[str, nn.Module]:
        return {DENSE: self.problem.task.model, **self.recovered}

    def _costs(self, plan: PruningPlan) -> dict[str, float]:
        return {cost: float(model([plan.kept])[0]) for cost, model in self.problem.costs.items()}  # type: ignore[arg-type]

    def _judged(self) -> dict[str, dict[str, Any]]:
        """Of every network before and after recovery, on the proxy, on held-out search data and on test data."""
        problem, task = self.problem, self.problem.task
        before, after = {DENSE: task.model, **self.pruned}, self._after
        test = cache(Judge(task, task.data.test))
        return {
            name: {
                "proxy": asdict(problem.objective.uncharged.evaluate([plan], whole=True)[0].metrics),
                "held_out": asdict(self.unseen(before[name])),
                "score": self.unseen.score(before[name]),
                "recovered_score": self.unseen.score(after[name]),
                "before": scalar_metrics(test(before[name])),
                "after": None if name == DENSE else scalar_metrics(test(after[name])),
            }
            for name, plan in self._every_plan.items()
        }

    def _timed(self) -> dict[str, dict[str, Any]]:
        """Latency in every runtime, and the sizes of the files."""
        task, networks = self.problem.task, self._after
        with tempfile.TemporaryDirectory() as folder:
            onnx_files = {name: Path(folder) / f"{name}.onnx" for name in networks} if task.onnx else {}
            for name, path in onnx_files.items():
                export_onnx(networks[name], task.example_input, path, forward=task.forward)
            latency = measure_latency(networks, task.example_input, onnx_files=onnx_files, forward=task.forward)
            sizes = {name: {"safetensors": network_bytes(network)} for name, network in networks.items()}
            if self.coded:
                sizes = {n: each | apz_size(networks[n], architecture=task.architecture) for n, each in sizes.items()}
            for name, path in onnx_files.items():
                sizes[name]["onnx"] = path.stat().st_size
        return {
            name: {
                "latency_ms": {runtime: value.as_json() for runtime, value in latency[name].items()},
                "file_bytes": sizes[name],
            }
            for name in networks
        }

    def _measures(self) -> dict[str, dict[str, Any]]:
        """What the task itself measures of a network, and whether embeddings have the neighbours that they had."""
        task = self.problem.task
        values = {
            name: {
                **neighbour_agreement(task, each, task.data.test),
                **(dict(task.measure(each)) if task.measure is not None else {}),
            }
            for name, each in self._after.items()
        }
        return {name: {"measures": each} for name, each in values.items() if each}
