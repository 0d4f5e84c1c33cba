"""Every gate there is.  A new operator is one module here and its place in `GATES`."""

from __future__ import annotations

from mpc.gates.base import Gate
from mpc.gates.between import Between
from mpc.gates.bound import Bound
from mpc.gates.convolution import Convolution
from mpc.gates.draw import Draw
from mpc.gates.fourier import Fourier
from mpc.gates.gaussian import Gaussian
from mpc.gates.input import Input
from mpc.gates.linear import Combine, Total, Weigh
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.multiply import Multiply
from mpc.gates.onehot import OneHot
from mpc.gates.open import Open
from mpc.gates.pieces import Pieces
from mpc.gates.relu import Relu
from mpc.gates.rows import Rows
from mpc.gates.scatter import Scatter
from mpc.gates.select import Select
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate

_ALL: tuple[type[Gate], ...] = (
    Between,
    Bound,
    Combine,
    Concat,
    Convolution,
    Draw,
    Fourier,
    Gaussian,
    Input,
    Matmul,
    Maximum,
    Multiply,
    OneHot,
    Open,
    Pieces,
    Relu,
    Reshape,
    Rows,
    Scatter,
    Select,
    Step,
    Take,
    Total,
    Truncate,
    Weigh,
)

GATES: dict[str, type[Gate]] = {gate.kind: gate for gate in _ALL}
"""Gates by the kind that plans name them by."""
