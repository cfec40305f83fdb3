"""What numbers may be: types for the signatures of whatever a configuration describes, which settings are checked by.

A range stands beside its type, in the signature, so that the command line refuses what lies outside before anything
is paid for, and the documentation of a parameter needs no second place.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator
from pydantic_core import core_schema

Count = Annotated[int, Ge(1)]
"""How many of something there must be: 1, 2, …"""
Batch = Annotated[int, Ge(2)]
"""Samples that statistics are taken over."""
Natural = Annotated[int, Ge(0)]
"""How many of something there may be: 0, 1, …"""
Seed = Annotated[int, Ge(0), Lt(2**63)]
"""Where random numbers begin; PyTorch takes 63 bits."""
Threads = Annotated[int, Ge(1), Le(1024)]
"""Threads of one process; the process ends where the system cannot make as many."""
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
"""A part of something, that may be nothing and all of it."""
Share = Annotated[float, Gt(0), Le(1)]
"""A part of something that is not nothing."""
Density = Annotated[float, Gt(0), Lt(1)]
"""A part that is kept: not nothing, and not everything."""
Growth = Annotated[float, Gt(1)]
"""By which something is multiplied so that it grows."""
Text = Annotated[str, MinLen(1)]


class OneOf:
    """The only values that there may be, where they are not written down as a Literal.

    >>> Annotated[str, OneOf(["cpu", "cuda"])].__metadata__[0].choices
    ('cpu', 'cuda')
    """

    def __init__(self, choices: Iterable[str | int]) -> None:
        self.choices = tuple(choices)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.literal_schema(list(self.choices))


def _project_name(text: str) -> str:
    if not 1 <= len(text) <= 128 or set(text) & set("/\\#?%:"):
        raise ValueError(f"a project has 1 to 128 characters, none of them of / \\ # ? % :, got {text!r}")
    return text


ProjectName = Annotated[str, AfterValidator(_project_name)]
"""A project of Weights & Biases."""
