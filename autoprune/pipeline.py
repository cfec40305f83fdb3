"""The whole story on one page: a trained network goes in, a smaller one comes out, and a folder that says how."""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from autoprune.evaluation.curves import single_group_curves
from autoprune.evaluation.incumbents import describe_anytime
from autoprune.evaluation.outcome import Outcome
from autoprune.export.network import TOKENIZER_FOLDER, load_network, save_network
from autoprune.export.onnx import export_onnx_into
from autoprune.export.pretrained_folder import copy_tokenizer
from autoprune.final_networks import DENSE, RECOVERED, FinalNetworks, RecoveredNetworks, UnseenJudge, quantizes
from autoprune.plan import PruningPlan
from autoprune.prior.sensitivity_plan import sensitivity_plan
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.problem.problem import Problem, Search
from autoprune.quantize.quantized_network import Quantize, no_quantization, quantize_int8
from autoprune.records import (
    Ledgers,
    Recorder,
    describe_budget,
    describe_card,
    describe_curves,
    describe_policy,
    describe_structure,
    resolved_step,
)
from autoprune.recover.recovery import OnStep, Recovery
from autoprune.rehearsal import RunStages, rehearse
from autoprune.report.progress import PATIENCE_S, StageProgress, announced
from autoprune.runs import RunFolder
from autoprune.seeding import numpy_rng
from autoprune.structure.code_bits import is_coded
from autoprune.task.samples import largest_difference, rows
from autoprune.task.task import outputs_of
from autoprune.time_plan import TimePlan, plan_time
from autoprune.tracked import track_result
from autoprune.tracking import Tracker

SAMPLES = 20  # that a network is compared on with its copy from the disk
SEARCHED, UNIFORM, SENSITIVITY = "searched", "uniform", "sensitivity"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One run: what is searched with what, and where it is written down."""

    problem: Problem
    """What is searched."""
    search: Search
    """Returns a plan."""
    recover: Recovery
    """Trains pruned networks."""
    agent: str
    """The search's name in records."""
    evaluations: int
    """That the search may spend, at least 1."""
    seed: int
    """Of every random number that the run draws."""
    run: RunFolder
    """Where everything is written."""
    ledgers: Ledgers
    """The run's growing files."""
    tracker: Tracker
    """Hears what the files hold."""
    compared_with: tuple[str, ...] = (UNIFORM, SENSITIVITY)
    """The baselines: "uniform", "sensitivity", both or none."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Stage → why it is not tried."""
    quantize: Quantize = no_quantization
    """What is done to recovered networks before they are measured and written."""
    time_limit_s: float | None = None
    """Seconds that the run may be planned to take; None for any."""
    announce: Callable[[str], object] = log.info
    """Takes the plan of time."""
    planned: TimePlan | None = None
    """What each stage will take, once it is rehearsed."""

    def __post_init__(self) -> None:
        if is_coded(self.problem.structure) and getattr(self.quantize, "func", self.quantize) is quantize_int8:
            raise ValueError(
                "quantize=int8 gives every weight 8 bits, and structure.bits lets plans decide; set quantize=codebook, "
                "which trains the values that weights share, or quantize=none, which takes them as plans were judged"
            )

    def execute(self) -> dict[str, Any]:
        """Searches, chooses, recovers, measures and exports; returns what `result.json` holds.

        Everything that a later stage does is rehearsed before the first evaluation. What fails in a later stage all
        the same is named in the result's `failed`, and the other stages go on: no network, plan or number is lost.
        """
        job, clock, stages = self._rehearsed(), _Clock(), RunStages()
        problem = job.problem
        job.run.write_json("structure.json", describe_structure(problem))
        searched, recorder = job.search_plan()
        clock.end_stage("search")
        baselines, expense = stages.attempt("baselines", job.baselines, otherwise=({}, {}))
        plans = {SEARCHED: searched, **baselines}
        job.run.write_json("plans.json", {name: plan.as_json() for name, plan in plans.items()})
        clock.end_stage("baselines")
        networks, unseen = {name: problem.pruned(plan) for name, plan in plans.items()}, UnseenJudge(problem)
        chosen = stages.attempt("choose", lambda: job.choose(networks, unseen), otherwise=SEARCHED)
        anytime = stages.attempt("anytime", lambda: job.anytime(recorder, plans), otherwise=None)
        recoveries = RecoveredNetworks(problem, job.recover, job.quantize, job.seed, job.run, job.ledgers, unseen)
        recovered = stages.attempt("recover", lambda: job.recovered(recoveries, plans, networks), otherwise=networks)
        clock.end_stage("recover")
        job.run.write_json("plan.json", plans[chosen].as_json())
        differences = stages.attempt("export", lambda: job.export(recovered[chosen]), otherwise={})
        clock.end_stage("export")
        coded = quantizes(job.quantize) or any(group.compared or group.coded for group in problem.structure.groups)
        final = FinalNetworks(problem, plans, networks, recovered, unseen, coded)
        records = final.records(stages)
        for name, metrics in recoveries.harmed.items():
            records[name]["harmed"] = metrics
        for name, limited in recoveries.limited.items():
            records[name]["file_limit"] = limited
        on_device = stages.attempt("device", final.on_device, otherwise=None)
        clock.end_stage("benchmark")
        result = {
            "task": problem.task.name,
            "agent": job.agent,
            "seed": job.seed,
            "budget": describe_budget(problem),
            "round_to": resolved_step(problem.structure),
            "chosen": chosen,
            "evaluations": {"limit": job.evaluations, "spent": recorder.spent, "baselines": expense},
            "search_seconds": {"judging": recorder.seconds, "agent": recorder.agent_seconds},
            "seconds": clock.seconds,
            "planned_seconds": {} if job.planned is None else dict(job.planned.stages),
            "export_differences": differences,
            "networks": records,
            "layers": stages.attempt("layers", lambda: final.coded_layers(chosen), otherwise=[]),
            "parts_alone": stages.attempt("parts", lambda: final.parts_alone(chosen), otherwise={}),
            "device": on_device,
            "anytime": anytime,
            "policy": stages.attempt("policy", lambda: job.own_plan(recorder, plans), otherwise=None),
            "left_out": dict(job.left_out),
            "failed": stages.failed,
        }
        job.run.write_json("result.json", result)
        stages.attempt(
            "tracking", lambda: track_result(job.tracker, result, plans[chosen], run=job.run), otherwise=None
        )
        if stages.failed:
            job.run.write_json("result.json", result)  # which names what failed last, too
        else:  # what is recovered is read back where the run is resumed
            shutil.rmtree(job.run.path / RECOVERED, ignore_errors=True)
        return result

    def _rehearsed(self) -> "Job":
        """The same job without the stages that the rehearsal found impossible, each of which is said.

        Raises:
            ValueError: The run cannot end within `time_limit_s`.
        """
        problem = self.problem
        floor = problem.structure.plan(problem.projector.floor)
        with announced("rehearsing every later stage"):
            networks = {DENSE: problem.task.model, "smallest": problem.pruned(floor)}
            rehearsal = rehearse(problem.task, networks, recover=self.recover, folder=self.run.path)
        for reason in (*problem.uncounted, *rehearsal.left_out.values()):
            log.warning("%s", reason)
        planned = plan_time(problem, rehearsal, evaluations=self.evaluations, baselines=self.compared_with)
        self.announce(planned.describe())
        planned.check(self.time_limit_s)
        job = replace(self, planned=planned, left_out=rehearsal.left_out)
        if "onnx" not in rehearsal.left_out:
            return job
        return replace(job, problem=replace(problem, task=replace(problem.task, onnx=False)))

    def own_plan(self, recorder: Recorder, plans: Mapping[str, PruningPlan]) -> dict[str, Any] | None:
        """What a learned policy's own plan is worth, beside the search's best and the uniform one; None without.

        Args:
            recorder: It has heard every evaluation of the search.
            plans: Name → plan; the uniform one is among them.
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
            recorder: It has heard every evaluation of the search.
            plans: Name → plan: the searched one and the baselines.
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
            progress.update(0, of=self.evaluations, phase="search", note="")  # the first plans are judged together
            recorder = Recorder(
                self.ledgers.history,
                self.tracker,
                progress,
                limit=self.evaluations,
                judging=lambda: problem.objective.seconds,  # of the next line's
            )
            problem = self.problem.limited(
                self.evaluations, record=recorder, seed=self.seed, folder=self.run.path, log_agent=self._agent_metrics
            )
            plan = self.search(problem, rng=numpy_rng(self.seed, "search"))
        return plan, recorder

    def baselines(self) -> tuple[dict[str, PruningPlan], dict[str, float]]:
        """The plans that the run is compared with, and what they cost; that is not charged to the search.

        Single-group curves are judged until each loss is known well, which takes a part of the samples.

        Returns:
            Name → plan; and `plans`, how many were judged, and `whole`, on how many times all samples.
        """
        problem, plans, judged = self.problem, dict[str, PruningPlan](), list[Outcome]()
        if UNIFORM in self.compared_with:
            plans[UNIFORM] = uniform_plan(problem.structure, problem.projector)
        if SENSITIVITY in self.compared_with:  # the only one that asks for single-group curves, which take longest

            def evaluate(asked: Sequence[PruningPlan]) -> list[Outcome]:
                outcomes = problem.objective.uncharged.estimate(asked, reference=problem.structure.dense)
                judged.extend(outcomes)
                return outcomes

            with StageProgress(after_s=PATIENCE_S) as progress:
                show = partial(progress.update, of=len(problem.structure.groups), phase="one group at a time", note="")
                show(0)
                curves = single_group_curves(problem.structure, evaluate, on_group=show)
            self.run.write_json("curves.json", describe_curves(problem, curves))
            plans[SENSITIVITY] = sensitivity_plan(problem.structure, problem.projector, curves)
        for outcome in problem.objective.uncharged.evaluate(list(plans.values()), whole=True):
            judged.append(outcome)
            self.ledgers.history.add({"evaluation": None, "phase": "baseline", **outcome.as_json()})
        samples = sum(outcome.metrics.samples for outcome in judged)
        return plans, {"plans": len(judged), "whole": samples / len(problem.candidates.proxy)}

    def choose(self, networks: Mapping[str, nn.Module], unseen: UnseenJudge) -> str:
        """The best on search samples that no reward has seen; the search's own plan where there is a tie.

        Args:
            networks: Name → pruned network, the search's first.
            unseen: Judges on those samples.
        """
        return max(networks, key=lambda name: unseen.score(networks[name]))

    def recovered(
        self, recoveries: RecoveredNetworks, plans: Mapping[str, PruningPlan], networks: Mapping[str, nn.Module]
    ) -> dict[str, nn.Module]:
        """Every pruned network after the same recovery, with progress.

        Args:
            recoveries: Recovers.
            plans: Name → plan.
            networks: Name → pruned network.
        """
        with contextlib.ExitStack() as open_progress:

            def on_step(name: str) -> OnStep:
                open_progress.close()  # that of the network before
                return partial(self._recovering, name, open_progress.enter_context(StageProgress(after_s=PATIENCE_S)))

            return recoveries.networks(plans, networks, on_step=on_step)

    def export(self, network: nn.Module) -> dict[str, float]:
        """Writes the chosen network as safetensors and JSON and as ONNX; how far each, read back, is from it."""
        task, folder = self.problem.task, self.run.path / "network"
        save_network(network, folder, architecture=task.architecture)
        if task.tokenizer is not None:
            copy_tokenizer(task.tokenizer, folder / TOKENIZER_FOLDER)
        samples = rows(task.data.calibration.inputs, slice(0, SAMPLES))
        expected = outputs_of(network, samples, task.forward)
        reloaded = outputs_of(load_network(folder, model=task.model).to(task.device), samples, task.forward)
        differences = {"reloaded": largest_difference(reloaded, expected)}
        if task.onnx:
            differences["onnx"] = export_onnx_into(
                self.run.path, network, task.example_input, forward=task.forward, samples=task.data.calibration.inputs
            )
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
