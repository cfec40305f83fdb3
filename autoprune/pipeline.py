"""The whole story on one page: a trained network goes in, a smaller one comes out, and a folder that says how."""

import copy
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.device.device import predicted_and_measured
from autoprune.evaluation.curves import single_group_curves
from autoprune.evaluation.incumbents import describe_anytime
from autoprune.evaluation.judge import Judge
from autoprune.export.apz import apz_size
from autoprune.export.latency_measurement import measure_latency
from autoprune.export.network import TOKENIZER_FOLDER, load_network, network_bytes, save_network
from autoprune.export.onnx import export_onnx
from autoprune.export.pretrained_folder import copy_tokenizer
from autoprune.plan import PruningPlan
from autoprune.prior.sensitivity_plan import sensitivity_plan
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.problem.problem import Problem, Search
from autoprune.quantize.quantized_network import Quantize, no_quantization
from autoprune.records import (
    Ledgers,
    Recorder,
    describe_budget,
    describe_card,
    describe_curves,
    describe_policy,
    describe_structure,
    scalar_metrics,
)
from autoprune.recover.recovery import Recovery
from autoprune.rehearsal import RunStages, rehearse
from autoprune.report.progress import StageProgress
from autoprune.runs import RunFolder
from autoprune.seeding import numpy_rng, torch_generator
from autoprune.task.samples import largest_difference, rows
from autoprune.task.task import outputs_of
from autoprune.task.weights import load_weights, save_weights
from autoprune.tracked import track_result
from autoprune.tracking import Tracker

SAMPLES = 20  # that a network is compared on with its copy from the disk
SEARCHED, UNIFORM, SENSITIVITY, DENSE = "searched", "uniform", "sensitivity", "dense"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One run: what is searched with what, and where it is written down."""

    problem: Problem
    search: Search
    recover: Recovery
    agent: str
    evaluations: int
    seed: int
    run: RunFolder
    ledgers: Ledgers
    tracker: Tracker
    compared_with: tuple[str, ...] = (UNIFORM, SENSITIVITY)
    """The baselines: "uniform", "sensitivity", both or none."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    quantize: Quantize = no_quantization
    """What is done to recovered networks before they are measured and written."""

    def execute(self) -> dict[str, Any]:
        """Searches, chooses, recovers, measures and exports; returns what `result.json` holds.

        Everything that a later stage does is rehearsed before the first evaluation. What fails in a later stage all
        the same is named in the result's `failed`, and the other stages go on: no network, plan or number is lost.
        """
        job, clock, stages = self._rehearsed(), _Clock(), RunStages()
        job.run.write_json("structure.json", describe_structure(job.problem))
        searched, recorder = job.search_plan()
        clock.end_stage("search")
        plans = {SEARCHED: searched, **stages.attempt("baselines", job.baselines, otherwise={})}
        job.run.write_json("plans.json", {name: plan.as_json() for name, plan in plans.items()})
        clock.end_stage("baselines")
        networks = {name: job.problem.pruned(plan) for name, plan in plans.items()}
        chosen = stages.attempt("choose", lambda: job.choose(networks), otherwise=SEARCHED)
        anytime = stages.attempt("anytime", lambda: job.anytime(recorder, plans), otherwise=None)
        recovered = stages.attempt("recover", lambda: job.recovered(plans, networks), otherwise=networks)
        clock.end_stage("recover")
        job.run.write_json("plan.json", plans[chosen].as_json())
        differences = stages.attempt("export", lambda: job.export(recovered[chosen]), otherwise={})
        clock.end_stage("export")
        records = job.measure(plans, networks, recovered, stages)
        on_device = stages.attempt(
            "device", lambda: job.on_device({DENSE: job.problem.structure.dense, **plans}, recovered), otherwise=None
        )
        result = {
            "task": job.problem.task.name,
            "agent": job.agent,
            "seed": job.seed,
            "budget": describe_budget(job.problem),
            "chosen": chosen,
            "evaluations": {"limit": job.evaluations, "spent": recorder.spent},
            "search_seconds": {"judging": recorder.seconds, "agent": recorder.agent_seconds},
            "seconds": clock.seconds,
            "export_differences": differences,
            "networks": records,
            "device": on_device,
            "anytime": anytime,
            "policy": stages.attempt("policy", lambda: job.own_plan(recorder, plans), otherwise=None),
            "left_out": dict(job.left_out),
            "failed": stages.failed,
        }
        job.run.write_json("result.json", result)
        if not stages.failed:  # what is recovered is read back where the run is resumed
            shutil.rmtree(job.run.path / "recovered", ignore_errors=True)
        track_result(job.tracker, result, plans[chosen], run=job.run)
        return result

    def _rehearsed(self) -> "Job":
        """The same job without the stages that the rehearsal found impossible, each of which is said."""
        problem = self.problem
        floor = problem.structure.plan(problem.projector.floor)
        networks = {DENSE: problem.task.model, "smallest": problem.pruned(floor)}
        left_out = rehearse(problem.task, networks, recover=self.recover, folder=self.run.path)
        for reason in (*problem.uncounted, *left_out.values()):
            log.warning("%s", reason)
        if "onnx" not in left_out:
            return self
        return replace(self, problem=replace(problem, task=replace(problem.task, onnx=False)), left_out=left_out)

    def own_plan(self, recorder: Recorder, plans: Mapping[str, PruningPlan]) -> dict[str, Any] | None:
        """What a learned policy's own plan is worth, beside the search's best and the uniform one; None without.

        Args:
            recorder: What writes the run's records.
            plans: Plans to be judged.
        """
        if not recorder.own:
            return None
        (uniform,) = self.problem.objective.uncharged.evaluate([plans[UNIFORM]], whole=True)
        best = recorder.incumbents[-1].outcome if recorder.incumbents else None
        described = describe_policy(recorder.own, best=best, uniform=uniform)
        card = self.run.path / "policy" / "README.md"
        if card.is_file():
            card.write_text(describe_card(card.read_text(encoding="utf-8"), described), encoding="utf-8")
        return described

    def anytime(self, recorder: Recorder, plans: Mapping[str, PruningPlan]) -> Any:
        """How good the best plan was at every point of the search, on samples that no reward has seen.

        Args:
            recorder: What writes the run's records.
            plans: Plans to be judged.
        """
        baselines = {name: plan for name, plan in plans.items() if name != SEARCHED}
        problem = self.problem
        return describe_anytime(
            recorder.incumbents, baselines, judge=problem.held_out_metrics, score=problem.spec.score
        )

    def search_plan(self) -> tuple[PruningPlan, Recorder]:
        """The search's own best plan, and who wrote down its evaluations: each is on disk before the search sees it."""
        problem = self.problem
        with StageProgress() as progress:
            recorder = Recorder(
                self.ledgers.history,
                self.tracker,
                progress,
                limit=self.evaluations,
                judging=lambda: problem.objective.seconds,  # of the next line's
            )
            problem = self.problem.limited(
                self.evaluations,
                record=recorder,
                seed=self.seed,
                folder=self.run.path,
                log_agent=self._agent_metrics,
            )
            plan = self.search(problem, rng=numpy_rng(self.seed, "search"))
        return plan, recorder

    def baselines(self) -> dict[str, PruningPlan]:
        """The plans that the run is compared with. They are not charged to the search."""
        problem, plans = self.problem, dict[str, PruningPlan]()
        if UNIFORM in self.compared_with:
            plans[UNIFORM] = uniform_plan(problem.structure, problem.projector)
        if SENSITIVITY in self.compared_with:  # the only one that asks for single-group curves, which take longest
            evaluate = partial(problem.objective.uncharged.evaluate, whole=True)
            with StageProgress() as progress:
                show = partial(progress.update, of=len(problem.structure.groups), phase="one group at a time", note="")
                show(0)
                curves = single_group_curves(problem.structure, evaluate, on_group=show)
            self.run.write_json("curves.json", describe_curves(problem, curves))
            plans[SENSITIVITY] = sensitivity_plan(problem.structure, problem.projector, curves)
        for outcome in problem.objective.uncharged.evaluate(list(plans.values()), whole=True):
            self.ledgers.history.add({"evaluation": None, "phase": "baseline", **outcome.as_json()})
        return plans

    def choose(self, networks: Mapping[str, nn.Module]) -> str:
        """The best on search samples that no reward has seen; the search's own plan where there is a tie."""
        scores = self.problem.held_out_scores(networks)
        return max(scores, key=lambda name: scores[name])

    def recovered(self, plans: Mapping[str, PruningPlan], networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """Every pruned network after the same recovery, from the same seed; equal plans share one.

        What a run that was cut off had recovered already is read back.

        Args:
            plans: Plans to be judged.
            networks: Name → the network.
        """
        done: dict[PruningPlan, nn.Module] = {}
        for name, network in networks.items():
            if plans[name] in done:
                continue
            weights = self.run.path / "recovered" / f"{name}.safetensors"
            if weights.exists():
                self.ledgers.recovery.forget("plan", name)
                done[plans[name]] = load_weights(copy.deepcopy(network), weights)
                continue
            with StageProgress() as progress:
                done[plans[name]] = self.recover(
                    network,
                    self.problem.task,
                    teacher=self.problem.task.model,
                    generator=torch_generator(self.seed, "recover"),
                    on_step=partial(self._recovering, name, progress),
                )
            if not self._unquantized:
                done[plans[name]] = self.quantize(
                    done[plans[name]], self.problem.task, generator=torch_generator(self.seed, "quantize")
                )
            save_weights(done[plans[name]], weights)
        return {name: done[plan] for name, plan in plans.items()}

    @property
    def _unquantized(self) -> bool:
        return getattr(self.quantize, "func", self.quantize) is no_quantization

    def measure(
        self,
        plans: Mapping[str, PruningPlan],
        pruned: Mapping[str, nn.Module],
        recovered: Mapping[str, nn.Module],
        stages: RunStages,
    ) -> dict[str, Any]:
        """What `result.json` says of the dense network and of every plan's: test metrics, costs, latency, sizes.

        Args:
            plans: Plans to be judged.
            pruned: Name → the pruned network.
            recovered: Name → the network after recovery.
            stages: Notes which stages fail.
        """
        structure = self.problem.structure
        every_plan = {DENSE: structure.dense, **plans}
        before = {DENSE: self.problem.task.model, **pruned}
        after = {DENSE: self.problem.task.model, **recovered}
        parts: dict[str, Callable[[], dict[str, dict[str, Any]]]] = {
            "judge": lambda: self._judged(every_plan, before, after),
            "latency": lambda: self._timed(after),
            "measures": lambda: self._measures(after),
        }
        records: dict[str, Any] = {
            name: {"plan": plan.as_json(), "cost": self._costs(plan)} for name, plan in every_plan.items()
        }
        for stage, part in parts.items():
            for name, values in stages.attempt(stage, part, otherwise={}).items():
                records[name] |= values
        return records

    def _costs(self, plan: PruningPlan) -> dict[str, float]:
        return {cost: float(model([plan.kept])[0]) for cost, model in self.problem.costs.items()}  # type: ignore[arg-type]

    def _judged(
        self, plans: Mapping[str, PruningPlan], before: Mapping[str, nn.Module], after: Mapping[str, nn.Module]
    ) -> dict[str, dict[str, Any]]:
        """Of every network before and after recovery, on the proxy, on held-out search data and on test data."""
        problem, task = self.problem, self.problem.task
        test, held_out = cache(Judge(task, task.data.test)), cache(Judge(task, problem.held_out))
        return {
            name: {
                "proxy": asdict(problem.objective.uncharged.evaluate([plan])[0].metrics),
                "held_out": asdict(unseen := held_out(before[name])),
                "score": problem.spec.score(unseen),
                "recovered_score": problem.spec.score(held_out(after[name])),
                "before": scalar_metrics(test(before[name])),
                "after": None if name == DENSE else scalar_metrics(test(after[name])),
            }
            for name, plan in plans.items()
        }

    def _timed(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
        """Latency in every runtime, and the sizes of the files."""
        task = self.problem.task
        with tempfile.TemporaryDirectory() as folder:
            onnx_files = {name: Path(folder) / f"{name}.onnx" for name in networks} if task.onnx else {}
            for name, path in onnx_files.items():
                export_onnx(networks[name], task.example_input, path, forward=task.forward)
            latency = measure_latency(networks, task.example_input, onnx_files=onnx_files, forward=task.forward)
            sizes = {name: {"safetensors": network_bytes(network)} for name, network in networks.items()}
            if not self._unquantized or any(group.compared for group in self.problem.structure.groups):
                sizes = {name: each | apz_size(networks[name]) for name, each in sizes.items()}
            for name, path in onnx_files.items():
                sizes[name]["onnx"] = path.stat().st_size
        return {
            name: {
                "latency_ms": {runtime: value.as_json() for runtime, value in latency[name].items()},
                "file_bytes": sizes[name],
            }
            for name in networks
        }

    def _measures(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
        """What the task itself measures of a network."""
        measure = self.problem.task.measure
        values = {} if measure is None else {name: dict(measure(network)) for name, network in networks.items()}
        return {name: {"measures": each} for name, each in values.items() if each}

    def on_device(self, plans: Mapping[str, PruningPlan], recovered: Mapping[str, nn.Module]) -> dict[str, Any] | None:
        """What was predicted of every network on the device and what it took there.

        Args:
            plans: Plans to be judged.
            recovered: Name → the network after recovery.
        """
        problem, networks = self.problem, {DENSE: self.problem.task.model, **recovered}
        if problem.spec.device is None:
            return None
        return predicted_and_measured(problem.spec.device, problem.task, problem.costs["latency"], plans, networks)

    def export(self, network: nn.Module) -> dict[str, float]:
        """Writes the chosen network as safetensors and JSON and as ONNX; how far each, read back, is from it."""
        task, folder = self.problem.task, self.run.path / "network"
        save_network(network, folder, architecture=task.architecture)
        if task.tokenizer is not None:
            copy_tokenizer(task.tokenizer, folder / TOKENIZER_FOLDER)
        samples = rows(task.data.calibration.inputs, slice(0, SAMPLES))
        expected = outputs_of(network, samples, task.forward)
        reloaded = outputs_of(load_network(folder, model=task.model), samples, task.forward)
        differences = {"reloaded": largest_difference(reloaded, expected)}
        if task.onnx:
            path = self.run.path / "network.onnx"
            differences["onnx"] = export_onnx(network, task.example_input, path, forward=task.forward)
        return differences

    def _agent_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if self.ledgers.agent.add({"step": step, **metrics}):
            self.tracker.log({f"agent/{key}": value for key, value in metrics.items()}, axis="agent/step", step=step)

    def _recovering(self, name: str, progress: StageProgress, step: int, steps: int, loss: float) -> None:
        progress.update(step, of=steps, phase=f"recover {name}", note=f"loss {loss:.4f}")
        logged = step % 10 == 0 or step == steps
        if logged and self.ledgers.recovery.add({"plan": name, "step": step, "steps": steps, "loss": loss}):
            self.tracker.log({f"recover/loss_{name}": loss}, axis="recover/step", step=step)


class _Clock:
    """Seconds per stage and in total."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def end_stage(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage], self.last = now - self.last, now

    @property
    def seconds(self) -> dict[str, float]:
        return {**self.laps, "total": time.perf_counter() - self.start}
