"""The command: prints what a search would cost, or writes the table of docs/scaling.md."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from experiments.readme import table as markdown_table
from experiments.readme import write_between
from experiments.scaling.estimate import Estimate, SearchSize, accelerators, estimate

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "scaling.md"
NAME = "dry_run"  # of the markers in the document
MEASURED = ROOT / "experiments" / "language" / "per_token.json"
LLAMA = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096, "tie_word_embeddings": False}
PRESETS: dict[str, dict[str, Any]] = {
    "llama-7b": {
        **LLAMA, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "llama-70b": {
        **LLAMA, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
}  # fmt: skip
UNMEASURED = "not measured yet"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="scripts/dry_run", description=__doc__)
    parser.add_argument("model", nargs="?", help=f"{', '.join(PRESETS)}, or a Hugging Face config.json")
    parser.add_argument("--write", action="store_true", help=f"write the table of {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--measured", type=Path, default=MEASURED, help="JSON with what was measured per token")
    for field in fields(SearchSize):
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    given = parser.parse_args(arguments)
    if given.write == bool(given.model):
        parser.error(f"give a model ({', '.join(PRESETS)}, or CONFIG.json), or --write")
    try:
        setting = SearchSize(**{field.name: getattr(given, field.name) for field in fields(SearchSize)})
        if given.write:
            write_between(DOCUMENT, table(setting, given.measured), name=NAME)
        else:
            print(listed(given.model, setting, given.measured))
    except (ValueError, OSError) as error:
        parser.exit(1, f"scripts/dry_run: {error}\n")


def listed(model: str, setting: SearchSize, measured: Path) -> str:
    """The figures of one model, a line each."""
    rows = figures(estimate(configuration(model), setting), setting, known(measured))
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def table(setting: SearchSize, measured: Path) -> str:
    """The figures of the presets, a column each."""
    columns = [figures(estimate(PRESETS[name], setting), setting, known(measured)) for name in PRESETS]
    rows = ([name, *(column[name] for column in columns)] for name in columns[0])
    return "\n".join(markdown_table(("of the search", *PRESETS), rows)) + "\n"


def figures(found: Estimate, setting: SearchSize, measured: Mapping[str, float]) -> dict[str, str]:
    """Every number, by what it is."""
    overhead, share = measured.get("evaluator_over_forward"), measured.get("judged_share")
    here = measured.get("macs_per_second")
    hours = found.hours(setting)
    return {
        "groups (heads, neurons)": f"{found.groups:,}",
        "params": f"{found.params:,}",
        f"params of the uniform plan at {setting.budget}": f"{found.plan_params:,}",
        f"MACs of a window of {setting.tokens:,} tokens, logits at {setting.judged}": f"{found.dense_macs:,}",
        "MACs of the plan": f"{found.plan_macs:,}",
        "bytes of keys and values per token": f"{found.cache:,}",
        "bytes of these, plan": f"{found.plan_cache:,}",
        "weights": gigabytes(found.weights),
        "ordered copy of the layers that groups touch": gigabytes(found.ordered),
        f"dense log-probabilities, {setting.windows} windows": gigabytes(found.dense_outputs),
        "layers repaired by least squares": f"{found.solved} of {found.readers}",
        "… their factors": gigabytes(found.factors),
        "… their moments while they are gathered": gigabytes(found.moments),
        "… factors if all were repaired": gigabytes(found.all_factors),
        "one evaluator": held(found.memory(), setting),
        "… if all were repaired": held(found.memory(every_reader=True), setting),
        "ranking of single weights, one place each": gigabytes(found.ranking),
        f"level database, {setting.levels} levels": gigabytes(found.database),
        f"tokens of {setting.evaluations} evaluations": f"{found.search_tokens:,}",
        "FLOPs of these": f"{found.search_flops:.3g}",
        f"FLOPs before: dense outputs, {setting.calibration} windows of calibration": f"{found.preparing_flops:.3g}",
        "FLOPs of least squares (float64)": f"{found.least_squares_flops:.3g}",
        f"GPU hours at {setting.utilisation:.0%} of {setting.flops / 1e12:.0f} TFLOP/s": f"{hours:.2f}",
        "evaluator ÷ plain forward pass, measured": UNMEASURED if overhead is None else f"{overhead:.2f}",
        "tokens judged ÷ all tokens in a race, measured": UNMEASURED if share is None else f"{share:.2f}",
        "GPU hours with both": UNMEASURED if overhead is None or share is None else f"{hours * overhead * share:.2f}",
        "hours on the machine that was measured": UNMEASURED
        if here is None
        else f"{(found.search_flops + found.preparing_flops) / 2 / here / 3600:,.0f}",
    }  # fmt: skip


def configuration(model: str) -> dict[str, Any]:
    """A preset's, or that of a config.json."""
    if model in PRESETS:
        return PRESETS[model]
    if not Path(model).is_file():
        raise ValueError(f"{model!r} is neither one of {list(PRESETS)} nor a file; give a Hugging Face config.json")
    found = json.loads(Path(model).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{model} holds a {type(found).__name__}, not the object that a config.json is")
    return found


def known(file: Path) -> dict[str, float]:
    """What was measured, by name; nothing where no measurement stands yet."""
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def gigabytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"


def held(count: float, setting: SearchSize) -> str:
    return f"{gigabytes(count)}, {accelerators(count, setting)} × {setting.memory / 1e9:.0f} GB"
