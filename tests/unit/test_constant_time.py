"""Compiled loops take the same time for all secrets: no branch, address or division depends on one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numba import njit, types

from mpc import kernels
from tests.support.constant_time import Code, branches_for_selects, compiled, leaks

U8, U16, U32, U64, F64 = types.uint8, types.uint16, types.uint32, types.uint64, types.float64
I8, I64 = types.int8, types.int64


def of(kind: types.Type, axes: int = 1) -> types.Array:
    """An array that a kernel is given: contiguous."""
    return types.Array(kind, axes, "C")


MASK, PLACES = of(U64), of(I64)
SPAN = (I64, I64)
"""Where to start and stop."""
LOOPS: dict[str, tuple[tuple[types.Type, ...], tuple[str, ...]]] = {
    "add": ((MASK, MASK, MASK), ("a", "b")),
    "add_constant": ((MASK, U64, MASK), ("a",)),
    "add_received": ((MASK, MASK, MASK), ("own", "received")),
    "count_not_canonical": ((MASK,), ("words",)),
    "mask_61": ((MASK,), ("words",)),
    "mul": ((MASK, MASK, MASK), ("a", "b")),
    "scale": ((MASK, U64, MASK), ("a",)),
    "sub": ((MASK, MASK, MASK), ("a", "b")),
    "sum_rows": ((of(U64, 2), MASK, *SPAN), ("rows",)),
    "deal_thermometers": (
        (of(U64, 2), PLACES, PLACES, I64, MASK, MASK, of(U8), of(U8), *SPAN),
        ("values", "table"),
    ),
    "deal_at_once": (
        (of(U64, 2), PLACES, PLACES, I64, MASK, MASK, of(U16), of(U8, 2), of(U8), of(U8), *SPAN),
        ("values", "mask", "table"),
    ),
    "deal_nodes": ((of(U8), of(I64, 2), I64, of(U8, 2), of(U8)), ("mask", "node")),
    "look_up": (
        (of(U8), of(U64, 2), PLACES, PLACES, I64, MASK, MASK, of(U8), of(U8), of(U8), *SPAN),
        ("table", "mask"),
    ),
    "look_up_at_once": (
        (of(U8, 2), of(U64, 2), PLACES, PLACES, I64, MASK, MASK, of(U16), of(U16), of(U8), *SPAN),
        ("table", "mask"),
    ),
    "resolve_node": (
        (of(U16), of(U16), of(U8, 2), of(U16), of(U8, 2), of(U8), of(U8), U64, of(U8)),
        ("mask", "node"),
    ),
    "resolve_short_node": ((of(U8), of(U8), of(U16), of(U32), of(U8), U64, of(U8)), ("mask", "node")),
    "deal_and_nodes": ((of(U8, 2), of(I64, 2), of(U16, 2), *SPAN), ("bits", "node")),
    "and_nodes": (
        (of(U8, 2), of(I64, 2), of(U8, 2), of(U16, 2), of(U8, 2), U64, of(U8, 2), *SPAN),
        ("node", "fresh"),
    ),
    "deal_selected": (
        (of(U64, 2), of(U8, 2), I64, *[of(U64, 2)] * 5, *SPAN),
        ("r", "beta", "share_beta", "share_r1", "share_m", "share_beta_r1", "share_beta_m"),
    ),
    "choose": ((of(U8, 2), of(U64, 2), MASK, *SPAN), ("dealt",)),
    "select": (
        (of(U64, 2), of(U8, 2), *[of(U64, 2)] * 5, U64, I64, I64, MASK, *SPAN),
        ("beta", "r1", "beta_r1", "m", "beta_m", "out"),
    ),
    "deal_waves": ((MASK, I64, I64, I64, MASK, of(U64, 2), of(U64, 2), *SPAN), ("r", "beta", "share", "chosen")),
    "add_series": (
        (MASK, I64, PLACES, PLACES, I64, of(I64, 2), of(U8), of(U64, 2), of(U64, 2), MASK, *SPAN),
        ("waves", "chosen", "out"),
    ),
    "dot_rows": ((of(U64, 2), of(U64, 2), MASK), ("a", "b", "out")),
    "matmul_thin": ((of(U64, 2), of(U64, 2), of(U64, 2), *SPAN), ("a", "b_rows")),
    "split_limbs": ((MASK, of(F64, 2), *SPAN), ("a",)),
    "split_digits": ((MASK, I64, of(F64, 2), *SPAN), ("a",)),
    "join_digits": ((of(F64, 2), I64, MASK, MASK, *SPAN), ("products", "offset")),
    "recombine": ((of(F64, 2), MASK, MASK, *SPAN), ("products", "offset")),
    "multiply_patches": ((of(U64, 3), of(U64, 3), of(U64, 3)), ("filters", "patches", "sums")),
    "gather_tiles": ((of(U64, 4), *[I64] * 6, of(U64, 3), *SPAN), ("x",)),
    "tiles_to_points": ((of(U64, 3), *SPAN), ("tiles",)),
    "multiply_points": ((of(U64, 3), of(U64, 3), of(U64, 3), *SPAN), ("points", "data")),
    "points_to_tiles": ((of(U64, 3), I64, I64, *SPAN), ("points",)),
    "tag_words": ((of(U8, 2), U64, of(U64, 2)), ("bits", "share")),
    "multiply_windows": ((of(U64, 3), of(U64, 3), PLACES, PLACES, of(U64, 3), *SPAN), ("filters", "x", "sums")),
    "resolve_words": (
        (of(U8), MASK, of(U64, 2), of(I8, 2), of(U8), of(U8), U64, MASK),
        ("masks", "node"),
    ),
    "select_words": ((of(U64, 2), of(U8), of(I8, 2), MASK), ("words", "out")),
    "and_words": (
        (of(U8, 2), of(I64, 2), of(U8, 2), MASK, of(U16), of(U64, 3), U64, of(U64, 3)),
        ("node", "fresh"),
    ),
    "fold_leaves": (
        (of(U64, 2), of(I64, 2), of(U64, 2), MASK, U64, MASK, MASK, of(U8), MASK, MASK),
        ("words", "mask", "selected", "sums"),
    ),
    "fold_words": ((of(U64, 2), MASK, U64, MASK, MASK, MASK), ("words", "sums")),
    "read_words": ((MASK, of(I64, 2), of(U64, 2), *SPAN), ("words",)),
    "pick_words": ((of(U64, 2), PLACES, MASK), ("blocks", "out")),
    "dot": ((MASK, MASK, MASK), ("a", "b", "out")),
    "scatter_tiles": ((of(U64, 3), *[I64] * 4, of(U64, 4), of(U64, 4), *SPAN), ("tiles", "base")),
}
"""Argument types of every kernel that is given secrets, and which arguments those are."""
NOTHING_SECRET = {"P", "find_signs", "find_words", "number_blocks", "offset_columns", "settle"}
"""They read opened values alone."""
ONLY_CALL_OTHERS = {"recombine_images", "split_images"}
QUICK = (
    "deal_at_once",
    "deal_waves",
    "add_series",
    "deal_nodes",
    "deal_and_nodes",
    "split_limbs",
    "recombine",
    "count_not_canonical",
)


def test_every_kernel_is_looked_at() -> None:
    assert set(kernels.__all__) == set(LOOPS) | NOTHING_SECRET | ONLY_CALL_OTHERS


def look_at(name: str) -> None:
    signature, secret = LOOPS[name]
    code = compiled(kernels.loop(name), signature)
    assert code.branches  # there are loops in it: it is the right function
    assert leaks(code, secret) == []
    assert branches_for_selects(code.machine) == []


@pytest.mark.parametrize("name", QUICK)
def test_no_time_depends_on_a_secret(name: str) -> None:
    look_at(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(LOOPS) - set(QUICK)))
def test_no_time_of_any_kernel_depends_on_a_secret(name: str) -> None:
    look_at(name)


# ------------------------------------------------------------------ that it would be noticed


@njit
def table_read(secret: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    for i in range(secret.size):
        out[i] = table[secret[i] & np.uint64(15)]


@njit
def table_read_later(secret: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    kept = np.empty(secret.size, dtype=np.uint64)
    for i in range(secret.size):
        kept[i] = secret[i] & np.uint64(15)
    for i in range(secret.size):
        out[i] = table[kept[i]]


@njit
def branch(secret: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    for i in range(secret.size):
        if secret[i] > np.uint64(5):
            for k in range(table.size):
                out[i] += table[k]


@njit
def early_end(secret: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    for i in range(secret.size):
        if secret[i] == table[i]:
            return
        out[i] = table[i]


@njit
def loop_of_secret_length(secret: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    for i in range(secret[0]):
        out[i] += table[i]


@njit(error_model="numpy")
def division(secret: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    for i in range(secret.size):
        out[i] = table[i] // secret[i]


def code_of(loop: Callable[..., None]) -> Code:
    return compiled(loop, (MASK, MASK, MASK))


@pytest.mark.parametrize(
    "loop", [table_read, table_read_later, branch, early_end, loop_of_secret_length, division], ids=lambda f: f.__name__
)
def test_a_leak_is_found(loop: Callable[..., None]) -> None:
    code = code_of(loop)
    assert leaks(code, ("secret",))
    assert not leaks(code, ("out",))  # what is public may be looked up


def test_a_secret_that_is_no_argument_is_an_error() -> None:
    with pytest.raises(ValueError, match="no array arguments"):
        leaks(code_of(table_read), ("secrets",))


def test_a_branch_in_place_of_a_select_is_found() -> None:
    kept = ["cmpq\t%rax, %rcx", "jb\t.LBB0_2", "xorl\t%eax, %eax", "jmp\t.LBB0_3", ".LBB0_2:", "retq"]
    assert branches_for_selects(kept) == []
    assert branches_for_selects(["cmpq\t%rax, %rcx", "jb\t.LBB0_2", "movq\t%rcx, %rax", ".LBB0_2:", "retq"])
