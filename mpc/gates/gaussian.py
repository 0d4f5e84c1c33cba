"""Gaussian: noise of two halves, each of which is the whole noise that is needed.

    N = N_P - N_Q         N_P drawn from r, dealt: r is the sum of all parties' expansions, known to the provider alone
                          N_Q drawn from c, common: known to the parties alone

Both have the discrete Gaussian law of one sigma, by the table that every process makes of it (gaussian.py).  Whoever
knows one half - the provider with any recipient, or n - 1 parties with any recipient - lacks the other, which hides
the sum by itself; who knows neither sees the variance twice.  N_P is dealt as it is, eight bytes an element, and -N_Q
is a public constant of the parties: no look-up, nothing opened, no round.  So long vectors cost little; `draw` has
half the variance, and costs hundreds of times as much.

Sources: each party's own whole noise is the distributed generation of Dwork et al. 2006 (Our data, ourselves) for
n - 1 that collude; that two sides are enough where one deals and cannot see what the parties share is ours:
docs/protocols.md, "Gaussian".
"""

from __future__ import annotations

from typing import ClassVar

from mpc import field as fp
from mpc import gaussian
from mpc.gates.base import Correlation, Evaluation, Gate, Name
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Share
from mpc.wires import Masking, Scale, Wires


class Gaussian(Gate):
    """out = noise of both halves; nothing is read.

    `epsilon` is what the plan's author claims to pay, with the delta that follows from sigma and from what is hidden;
    whoever guards data computes it (`mpc.privacy`), and nothing here depends on it.

    Shapes:   out: S, not opened              Scale: out: any, sigma is in its units
    Deals:    N_P: 8 bytes an element
    Rounds:   0               Opens: nothing
    Error:    the law's probabilities to 2^-63
    """

    kind: ClassVar[str] = "gaussian"
    operands: ClassVar[tuple[str, ...]] = ()
    out: Name
    sigma: Scale
    epsilon: Scale

    def check(self, wires: Wires) -> None:
        out = wires[self.out]
        if out.masking is not Masking.UNOPENED:
            raise self.refuse("what it writes is not opened")
        if not gaussian.is_sigma(self.sigma):
            raise self.refuse(
                f"sigma is a multiple of 1/{gaussian.FINEST} above 0 and up to {gaussian.MOST_SIGMA} units",
                remedy="truncate the sum before its noise, so that a unit is larger",
            )
        if 2 * gaussian.reach(self.sigma) >= 1 << out.bits:
            raise self.refuse("the noise does not fit the output's bound")
        if self.epsilon <= 0:
            raise self.refuse("epsilon is not positive")

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        sizes = wires[self.out].sizes
        return (
            Correlation("r", sizes, width=gaussian.WORD_BITS, hidden=True),
            Correlation("noise", sizes, dependent=True),
        )

    def reference(self, run: ClearReading) -> None:
        shape = run.shape(self.out)
        dealt, common = (run.words(self.name, name, shape, gaussian.WORD_BITS) for name in ("r", "c"))
        run.set(self.out, gaussian.drawn(dealt, self.sigma) - gaussian.drawn(common, self.sigma))

    def deal(self, run: DealReading) -> None:
        run.dependent("noise", fp.from_signed(gaussian.drawn(run.uniform("r"), self.sigma)))

    def prepare(self, run: PartyReading) -> Share:
        common = gaussian.drawn(run.common("c", run.shape(self.out), gaussian.WORD_BITS), self.sigma)
        return run.take("noise") + run.lane.const(fp.from_signed(-common))

    def evaluate(self, run: PartyReading, kept: Share) -> Evaluation:
        run.set_share(self.out, kept)
        yield from ()
