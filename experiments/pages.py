"""The pages of what is committed as data: comparisons of the ladder's runs, fidelity studies, sizes on the disk."""

import argparse
import json
from pathlib import Path

from autoprune.comparison.compare_runs import compare
from autoprune.comparison.run_summary import read_summaries
from autoprune.report.comparison_page import render_comparison
from autoprune.report.compression_page import render_compression
from autoprune.report.fidelity_page import render_fidelity

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments/build_pages", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs" / "pages", help="the folder of the pages")
    for page in build_pages(parser.parse_args().out):
        print(page)


def build_pages(out: Path, *, data: Path = HERE) -> list[Path]:
    """Every page stands in the folder, named after its data. Returns their paths.

    Args:
        out: where they are written; it is made where it is missing.
        data: holds `ladder/NAME.jsonl.gz`, `fidelity/NAME.json` and `deep_compression/results.json`.
    """
    out.mkdir(parents=True, exist_ok=True)
    texts = {f"ladder_{file.name.split('.')[0]}": _comparison(file) for file in sorted(data.glob("ladder/*.jsonl.gz"))}
    for file in sorted(data.glob("fidelity/*.json")):
        texts[f"fidelity_{file.stem}"] = render_fidelity(json.loads(file.read_text()))
    for file in data.glob("deep_compression/results.json"):
        texts["deep_compression"] = render_compression(json.loads(file.read_text()))
    for name, text in texts.items():
        (out / f"{name}.html").write_text(text)
    return [out / f"{name}.html" for name in texts]


def _comparison(file: Path) -> str:
    return render_comparison(json.loads(json.dumps(compare(read_summaries(file)))))
