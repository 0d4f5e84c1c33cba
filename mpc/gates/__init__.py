"""Every gate there is.  A new operator is one module here and its place in `GATES`."""

from __future__ import annotations

from mpc.gates.affine import Affine
from mpc.gates.base import Gate
from mpc.gates.fourier import Fourier
from mpc.gates.input import Input
from mpc.gates.linear import Combine, Concat, Reshape, Total
from mpc.gates.maximum import Maximum
from mpc.gates.multiply import Multiply
from mpc.gates.relu import Relu
from mpc.gates.truncate import Truncate

_ALL: tuple[type[Gate], ...] = (
    Affine,
    Combine,
    Concat,
    Fourier,
    Input,
    Maximum,
    Multiply,
    Relu,
    Reshape,
    Total,
    Truncate,
)

GATES: dict[str, type[Gate]] = {gate.kind: gate for gate in _ALL}
"""Gates by the kind that plans name them by."""
