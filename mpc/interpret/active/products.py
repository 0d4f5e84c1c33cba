"""The check of a product: a row and a column, in place of the product on tags.

Of a product z = x y + b with n columns, of which all rows are opened, coins rho_bj = s_b t_j are as good as independent
ones, but for 1/p.  With them what a party adds up is, by the gate's own product on one column,

    s . (x^ ([alpha y] t) - [alpha ax] (y^ t) + [alpha s] t + [alpha b] t) - alpha_i s . (z^ t)

so the second operand is gone through once, whatever the number of rows is (Freivalds 1977; docs/protocols.md,
"Checked runs", has what it adds to the bound).
"""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

from mpc import field as fp
from mpc import kernels
from mpc.gates.base import Gate
from mpc.gates.bilinear import Columned
from mpc.gates.readings import PartyReading
from mpc.prg import Seed, expand_field
from mpc.shares import Share
from mpc.wires import Masking, Wires


def is_joined(gate: Gate, wires: Wires) -> TypeGuard[Columned]:
    """Tell whether a gate is a product that is opened and has columns to join."""
    return isinstance(gate, Columned) and not gate.is_linear(wires) and gate.columns(wires) > 0


def take_offset(gate: Columned, run: PartyReading) -> Share:
    """Return what is added to a product: the tags of s, or of the dealt product and the mask, and those of the bias."""
    derived = run.wire(gate.out).masking is Masking.DERIVED
    offset = run.take("s") if derived else run.take("product") + run.take_mask(gate.out)
    return offset if gate.bias is None else offset + run.share(gate.bias)


def fold_product(
    gate: Columned, run: PartyReading, offset: Share, opened: np.ndarray, coin: Seed, total: np.ndarray
) -> None:
    """Add to the total (1,) what a product's tags, by coins, are more than this party's alpha times what was opened.

    Args:
        run: the gate's reading on tags.
        offset: of `take_offset`.
        opened: z^.
    """
    t = expand_field(coin.derive("columns"), (gate.columns(run.wires),))
    shares = Share(gate.join_result(offset.values, t)) - run.lane.const(gate.join_result(opened, t))
    public = gate.join_second(run.public(gate.second), t)
    masks = gate.join_second(run.mask_share(gate.second).values, t)
    y = gate.lay_out((run.lane.const(public) - Share(masks)).values)  # [alpha y] t, without each element's tag
    crossed = gate.over_field(run.mask_share(gate.x).values, gate.lay_out(public))
    found = gate.over_field(run.public(gate.x), y, fp.sub(shares.values, crossed)).reshape(-1)
    kernels.dot(np.ascontiguousarray(found), expand_field(coin.derive("rows"), found.shape), total)
