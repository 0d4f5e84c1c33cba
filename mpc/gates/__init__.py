"""Every gate there is.  A new operator is one module here and its line in `GATES`."""

from __future__ import annotations

from mpc.gates.affine import Affine
from mpc.gates.base import Gate
from mpc.gates.fourier import Fourier
from mpc.gates.input import Input
from mpc.gates.relu import Relu
from mpc.gates.reshape import Reshape

GATES: dict[str, type[Gate]] = {gate.kind: gate for gate in (Affine, Fourier, Input, Relu, Reshape)}
"""Gates by the kind that plans name them by."""

__all__ = ["GATES", "Affine", "Fourier", "Gate", "Input", "Relu", "Reshape"]
