"""What a check of a function says: right on every problem tried, or wrong, where, and on what.

A report prints as text, raises as an AssertionError, and turns into plain JSON.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .snippets import literal

SHOWN = 60
"""Cells of a result that are still shown as a list."""
TITLES = {
    "cs231n": "CS231n",
    "deeplearning_ai": "deeplearning.ai",
    "native": "convkernels",
    "torch": "PyTorch",
    "jax": "JAX",
    "onnxruntime": "ONNX Runtime",
}


@dataclass(frozen=True)
class Finding:
    """What is wrong with a function, on the smallest input that shows it.

    Attributes
    ----------
    words : str
        What is wrong, in a sentence.
    where : str
        The first element that differs, or the name of what is wrong; empty where the call itself failed.
    hint : str
        When it is wrong, or the known mistake that gives these results; empty if neither was found.
    arguments : mapping
        What the function was called with, by name.
    expected, got : mapping
        By the names of the results, what they should be and what they are; empty where the call itself failed.
    snippet : str
        Code to paste that shows it again.
    """

    words: str
    where: str
    hint: str
    arguments: Mapping[str, Any]
    expected: Mapping[str, Any]
    got: Mapping[str, Any]
    snippet: str

    def to_dict(self) -> dict[str, Any]:
        """The finding in types that JSON has.

        Returns
        -------
        dict
            By attribute; arrays are dictionaries of shape, dtype and values.

        Examples
        --------
        >>> finding = Finding("y is 1, but should be 2", "y", "", {"x": np.int64(1)}, {"y": 2}, {"y": 1}, "f(1)")
        >>> finding.to_dict()["arguments"]
        {'x': 1}
        """
        return {name: plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Report:
    """What became of a function that was checked; true in a condition if it was right.

    Attributes
    ----------
    function : str
        Its name.
    operation, convention : str
        What it was held to.
    problems : int
        How many problems it was tried on.
    finding : Finding or None
        What is wrong, if anything.
    remarks : tuple of str
        What is not wrong, and worth knowing.
    """

    function: str
    operation: str
    convention: str
    problems: int
    finding: Finding | None = None
    remarks: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether nothing was wrong."""
        return self.finding is None

    def __bool__(self) -> bool:
        return self.right

    def check(self) -> None:
        """Demand that nothing was wrong.

        Raises
        ------
        AssertionError
            With the whole text, if something was.

        Examples
        --------
        >>> Report("conv", "conv", "native", 100).check()
        """
        if not self.right:
            raise AssertionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """The report in types that JSON has.

        Returns
        -------
        dict
            By attribute, and whether it was right.

        Examples
        --------
        >>> Report("conv", "conv", "native", 100).to_dict()["right"]
        True
        """
        finding = None if self.finding is None else self.finding.to_dict()
        return {**vars(self), "right": self.right, "finding": finding, "remarks": list(self.remarks)}

    def __str__(self) -> str:
        remarks = [f"  remark: {remark}" for remark in self.remarks]
        if self.finding is None:
            return "\n".join([f"{self.function} is right on all {self.problems} problems tried.", *remarks])
        finding = self.finding
        lines = [f"{self.function} is wrong: {finding.words}."]
        if finding.hint:
            lines.append(f"  hint: {finding.hint}")
        for name, value in finding.expected.items():
            pair = {"should be": shown(value), "is": shown(finding.got.get(name))}
            lines += [f"  {name} {verb:9} {text}" for verb, text in pair.items()]
        lines += remarks
        if finding.snippet:
            lines += ["Paste this to see it again:", textwrap.indent(finding.snippet, "    ")]
        return "\n".join(lines)


def shown(value: Any) -> str:
    """A result in a line."""
    if isinstance(value, np.ndarray):
        if value.ndim == 0:
            return str(value)
        return str(value.tolist()) if 0 < value.size <= SHOWN else f"an array of shape {value.shape}"
    return repr(value)


def expression(value: Any) -> str:
    """A value as code.

    Examples
    --------
    >>> expression(np.zeros((1, 2))), expression({"pad": np.int64(0)})
    ('np.array([[0.0, 0.0]])', "{'pad': 0}")
    """
    if isinstance(value, np.ndarray):
        return literal(value).replace(f", {value.dtype.name!r})", ")") if usual(value) else literal(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {expression(entry)}" for key, entry in value.items()) + "}"
    return repr(value.item() if isinstance(value, np.generic) else value)


def usual(array: np.ndarray[Any, Any]) -> bool:
    """Whether NumPy would give the array's values its type by itself."""
    return bool(array.size) and array.dtype == np.array(array.tolist()).dtype


def plain(value: Any) -> Any:
    """A value in types that JSON has; NaN and infinities, which it does not, by their names.

    Examples
    --------
    >>> plain({"x": np.array([1.0, np.inf])})
    {'x': {'shape': [2], 'dtype': 'float64', 'values': [1.0, 'inf']}}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "dtype": value.dtype.name, "values": plain(value.tolist())}
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else repr(value)
