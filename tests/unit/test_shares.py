"""Secrets have types that show nothing, decide nothing and convert to nothing; their algebra is right."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import field as fp
from mpc.errors import LocalProtocolError
from mpc.field import P
from mpc.shares import BitShare, Lane, Masked, Share
from tests.support.effort import examples

CANARY = 1234567890123456789
BITS_CANARY = 54321
SECRETS = [
    Share(np.full((2, 2), CANARY, dtype=np.uint64)),
    BitShare(np.full((2, 2), BITS_CANARY, dtype=np.uint16), 16),
    Share(np.full((), CANARY, dtype=np.uint64)),
    Share(np.full((1,), CANARY, dtype=np.uint64)),
]
MASKED = Masked(np.full((2,), CANARY, dtype=np.uint64), SECRETS[0])  # type: ignore[arg-type]

# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "show",
    [repr, str, lambda s: f"{s}", lambda s: f"{s!r}", lambda s: "%s %r" % (s, s), lambda s: str([s, {"k": s}])],  # noqa: UP031
)
@pytest.mark.parametrize("secret", [*SECRETS, MASKED])
def test_nothing_is_shown(secret: object, show: Callable[[object], str]) -> None:
    shown = show(secret)
    for canary in (CANARY, BITS_CANARY):
        assert str(canary) not in shown and f"{canary:x}" not in shown
    assert type(secret).__name__ in shown and "shape" in shown


@pytest.mark.parametrize(
    "use",
    [
        bool,
        float,
        int,
        len,
        iter,
        list,
        operator.index,
        range,
        np.asarray,
        np.array,
        np.sum,
        np.uint64,
        lambda s: np.array([s, s]),
        lambda s: np.arange(4, dtype=np.uint64).reshape(2, 2) + s,
        lambda s: s == s,
        lambda s: s != s,
        lambda s: s == 0,
        lambda s: 0 == s,
        lambda s: s in [object(), s.values],
        lambda s: 1 if s else 0,
        lambda s: not s,
        lambda s: s and s,
        lambda s: [*s],
    ],
)
@pytest.mark.parametrize("secret", SECRETS)
def test_nothing_is_converted_compared_or_decided(secret: Share, use: Callable[[object], object]) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        use(secret)
    assert str(CANARY) not in str(caught.value) and str(BITS_CANARY) not in str(caught.value)


@pytest.mark.parametrize(
    "use", [hash, sorted, lambda s: s < s, lambda s: s[0], lambda s: s + 1, lambda s: -s, complex, bytes]
)
@pytest.mark.parametrize("secret", SECRETS)
def test_what_has_no_meaning_fails(secret: Share, use: Callable[[object], object]) -> None:
    with pytest.raises((TypeError, AttributeError, LocalProtocolError)) as caught:
        use(secret)
    assert str(CANARY) not in str(caught.value)


@pytest.mark.parametrize("secret", [*SECRETS, MASKED])
def test_shares_are_frozen(secret: Share) -> None:
    for name in ("values", "public", "mask", "width"):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
            setattr(secret, name, None)


def test_a_derived_mask_is_nobodys() -> None:
    wire = Masked(np.zeros(2, dtype=np.uint64), None)
    with pytest.raises(LocalProtocolError, match="derived"):
        wire.known_mask()
    with pytest.raises(LocalProtocolError, match="derived"):
        wire.share(Lane.passive(0))


def test_words_of_different_width_do_not_add() -> None:
    with pytest.raises(LocalProtocolError):
        BitShare(np.zeros(2, dtype=np.uint8), 1) ^ BitShare(np.zeros(2, dtype=np.uint8), 7)


# ------------------------------------------------------------------ the algebra


def additive(plain: np.ndarray, parties: int, rng: np.random.Generator) -> list[Share]:
    shares = [rng.integers(0, P, plain.shape, dtype=np.uint64) for _ in range(parties - 1)]
    last = plain
    for share in shares:
        last = fp.sub(last, share)
    return [Share(values) for values in (*shares, last)]


def reconstruct(shares: list[Share]) -> np.ndarray:
    total = shares[0]
    for share in shares[1:]:
        total = total + share
    return total.values


@examples(40)
@given(st.sampled_from([2, 3, 5]), st.integers(0, 1 << 30), st.integers(-(1 << 62), 1 << 62))
def test_linear_operations_commute_with_sharing(parties: int, seed: int, constant: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, public = (rng.integers(0, P, (3, 4), dtype=np.uint64) for _ in range(3))
    bit = rng.integers(0, 2, (3, 4), dtype=np.uint8)
    xs, ys = additive(x, parties, rng), additive(y, parties, rng)
    lanes = [Lane.passive(index) for index in range(parties)]
    for share, plain in (
        (lambda a, b, _: a + b, fp.add(x, y)),
        (lambda a, b, _: a - b, fp.sub(x, y)),
        (lambda a, b, _: a.times(public), fp.mul(x, public)),
        (lambda a, b, _: a.times(constant), fp.scale(x, constant)),
        (lambda a, b, _: a.reshape((2, 6)), x.reshape(2, 6)),
        (lambda a, b, _: a.transpose((1, 0)), x.T),
        (lambda a, b, _: a.sum_first(), fp.total(x)),
        (lambda a, b, _: a.broadcast_to((2, 3, 4)), np.broadcast_to(x, (2, 3, 4))),
        (lambda a, b, _: a.where(bit, b), np.where(bit == 1, x, y)),
        (lambda a, b, lane: lane.const(public), public),
        (lambda a, b, lane: a + lane.const(public), fp.add(x, public)),
        (lambda a, b, lane: Masked(public, a).share(lane), fp.sub(public, x)),
    ):
        results = [share(a, b, lane) for a, b, lane in zip(xs, ys, lanes, strict=True)]
        assert (reconstruct(results) == plain).all()


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_a_selected_bit_is_the_opened_one_without_its_mask(parties: int) -> None:
    rng = np.random.default_rng(parties)
    beta, e = np.array([0, 0, 1, 1], dtype=np.uint64), np.array([0, 1, 0, 1], dtype=np.uint8)
    shares = additive(beta, parties, rng)
    selected = [Lane.passive(index).select_bit(e, share) for index, share in enumerate(shares)]
    assert reconstruct(selected).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_public_bits_enter_once(parties: int) -> None:
    public = np.array([[0, 1], [1, 1]], dtype=np.uint8)
    total = Lane.passive(0).const_bits(public)
    for index in range(1, parties):
        total = total ^ Lane.passive(index).const_bits(public)
    assert total.width == 1 and (total.values == public).all() and (total.reshape((4,)).values == [0, 1, 1, 1]).all()
