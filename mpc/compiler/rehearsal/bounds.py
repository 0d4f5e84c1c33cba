"""Hold the wires of a rehearsal to their bounds: beyond one the parties' arithmetic would go round unseen.

What is said names gates, wires and nodes, and no value.  Whether a bound is left may hang on secret weights all the
same, so it is for the model's owner alone, in whose process a plan is rehearsed.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpc.compiler.graph.graph import Origin
from mpc.compiler.rehearsal.clear import Clear
from mpc.errors import ModelError
from mpc.plan.plan import Plan


class Bounds:
    """Holds each rehearsed wire to its bound.

    Args:
        notes: what was seen on samples, which may lie beyond what bounds were proved for, or rest on.
    """

    def __init__(self, plan: Plan, origins: Mapping[str, Origin]) -> None:
        self._plan, self._origins = plan, origins
        self.notes: tuple[str, ...] = ()

    def hold(self, clear: Clear, *, sampled: bool) -> None:
        """Raise `ModelError` if a wire has left its bound; of samples note it."""
        if not clear.left:
            return
        wire = clear.left[0]
        gate = next(gate for gate in self._plan.gates if wire in gate.writes)
        origin = self._origins.get(gate.name)
        of = f" of node {origin.node!r} ({origin.operator})" if origin else ""
        where = f"gate {gate.name!r}{of} writes wire {wire!r}"
        if sampled:
            self.notes = (
                f"on the samples themselves {where} beyond its bound: answers for such data are wrong; declare ranges "
                "that hold all data, or give samples that are as large as data are",
            )
            return
        raise ModelError(
            f"{where} beyond the bound that was proved: parties would compute a wrong answer, so there is none",
            cause="a fault of the compiler, which a rehearsal on drawn inputs has found; nothing was entered yet",
            remedy="report it, with the model's structure; narrower ranges, or samples, may do until it is mended",
        )
