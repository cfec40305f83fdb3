"""Which code it was: what is kept on disk is found again by the code that made it, and by no other."""

import functools
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parent
CODE = ("structure", "quantize", "importance", "repair", "evaluation")  # packages whose sources decide what is judged


@functools.cache
def code_digest(package: Path = PACKAGE) -> str:
    """Returns a hash of the sources that decide what a plan is judged to: whoever edits a repair judges anew.

    Args:
        package: The folder of autoprune, with the packages that CODE names.

    Raises:
        FileNotFoundError: One of them has no sources there.
    """
    digest = hashlib.sha256()
    for room in CODE:
        sources = sorted((package / room).rglob("*.py"))
        if not sources:
            raise FileNotFoundError(
                f"{package / room} has no sources, by which judged plans are stored; set evaluation.store=null"
            )
        for source in sources:
            digest.update(f"{source.relative_to(package).as_posix()} {source.stat().st_size}\n".encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
