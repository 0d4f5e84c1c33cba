"""F_p against Python's integers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import field as fp
from mpc import kernels
from mpc.field import P
from tests.support.effort import FULL, examples
from tests.support.elements import EDGES, KINDS, LIMB_EXTREMES, adversarial

elements = st.one_of(st.sampled_from(EDGES), st.integers(0, P - 1))
signed = st.one_of(st.sampled_from([0, 1, -1, P - 1, 1 - P]), st.integers(1 - P, P - 1))
pairs = st.lists(st.tuples(elements, elements), min_size=1, max_size=20)


def array(values: list) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def ints(values: np.ndarray) -> list:
    assert values.dtype == np.uint64
    return values.astype(object).tolist()


def columns(pairs: list) -> tuple[np.ndarray, np.ndarray]:
    left, right = zip(*pairs, strict=True)
    return array(list(left)), array(list(right))


# ------------------------------------------------------------------ elementwise


def test_every_pair_of_edges() -> None:
    rows = list(product(EDGES, EDGES))
    a, b = columns(rows)
    assert ints(fp.add(a, b)) == [(x + y) % P for x, y in rows]
    assert ints(fp.sub(a, b)) == [(x - y) % P for x, y in rows]
    assert ints(fp.mul(a, b)) == [x * y % P for x, y in rows]


@examples(50)
@given(pairs)
def test_add_sub_mul_neg(rows: list) -> None:
    a, b = columns(rows)
    assert ints(fp.add(a, b)) == [(x + y) % P for x, y in rows]
    assert ints(fp.sub(a, b)) == [(x - y) % P for x, y in rows]
    assert ints(fp.mul(a, b)) == [x * y % P for x, y in rows]
    assert ints(fp.neg(a)) == [-x % P for x, _ in rows]


@examples(50)
@given(st.lists(elements, min_size=1, max_size=20), st.integers(-(1 << 70), 1 << 70))
def test_scale_and_add_a_public_integer(values: list, constant: int) -> None:
    assert ints(fp.scale(array(values), constant)) == [v * constant % P for v in values]
    assert ints(fp.add_int(array(values), constant)) == [(v + constant) % P for v in values]
    assert int(fp.from_int(constant)) == constant % P


@examples(30)
@given(st.lists(st.lists(elements, min_size=3, max_size=3), min_size=1, max_size=9))
def test_total_sums_the_first_axis(rows: list) -> None:
    assert ints(fp.total(array(rows))) == [sum(column) % P for column in zip(*rows, strict=True)]
    stacked = array(rows).reshape(len(rows), 3, 1)
    assert fp.total(stacked).shape == (3, 1)


def test_total_of_many_largest_elements_does_not_overflow() -> None:
    assert ints(fp.total(np.full((1000, 2), P - 1, dtype=np.uint64))) == [-1000 % P] * 2


@examples(50)
@given(st.lists(signed, min_size=1, max_size=20))
def test_signed_integers_become_residues(values: list) -> None:
    assert ints(fp.from_signed(np.array(values, dtype=np.int64))) == [v % P for v in values]


@examples(50)
@given(st.lists(elements, min_size=1, max_size=20))
def test_residues_become_the_nearest_integers(values: list) -> None:
    expected = [v if v <= P // 2 else v - P for v in values]
    assert fp.to_signed(array(values)).tolist() == expected
    assert ints(fp.from_signed(fp.to_signed(array(values)))) == values


@pytest.mark.parametrize("shapes", [((3, 4), (4,)), ((3, 1), (1, 4)), ((3, 4), ()), ((), (3, 4)), ((2, 1, 4), (3, 1))])
def test_broadcasting_is_numpys(shapes: tuple) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, P, size=shape, dtype=np.uint64) for shape in shapes)
    expected = a.astype(object) * b.astype(object) % P
    got = fp.mul(a, b)
    assert got.shape == expected.shape and (got.astype(object) == expected).all()


def test_views_of_any_layout_are_read_in_their_own_order() -> None:
    base = np.random.default_rng(1).integers(0, P, size=(6, 8), dtype=np.uint64)
    for view in (base.T, base[::2, ::-1], base[:, 3], np.broadcast_to(base[0], (4, 8))):
        before = view.copy()
        assert (fp.add(view, view).astype(object) == view.astype(object) * 2 % P).all()
        assert (fp.scale(view, 3).astype(object) == view.astype(object) * 3 % P).all()
        assert (fp.total(view).astype(object) == view.astype(object).sum(axis=0) % P).all()
        assert (view == before).all()


@pytest.mark.parametrize("operation", [fp.add, fp.sub, fp.mul])
def test_operands_stay_as_they_are_and_results_are_new(operation: object) -> None:
    a, b = array([1, P - 1]), array([P - 1, 5])
    out = operation(a, b)  # type: ignore[operator]
    out[:] = 0
    assert ints(a) == [1, P - 1] and ints(b) == [P - 1, 5]


def test_empty_arrays() -> None:
    empty = fp.zeros((0, 3))
    assert fp.add(empty, empty).shape == fp.scale(empty, 2).shape == (0, 3)


def test_scalars_stay_scalars() -> None:
    five = np.full((), 5, dtype=np.uint64)
    for result in (fp.add(five, five), fp.mul(five, five), fp.neg(five), fp.scale(five, 2), fp.add_int(five, 1)):
        assert result.shape == ()


# ------------------------------------------------------------------ limbs


def split(values: np.ndarray) -> list[list[int]]:
    return [[int(v) for v in row] for row in fp.limbs(values)]


@examples(50)
@given(st.lists(elements, min_size=1, max_size=30))
def test_limbs_add_up_and_keep_their_bounds(values: list) -> None:
    check_limbs(values)


def test_limbs_of_edges_and_extremes() -> None:
    check_limbs(EDGES + LIMB_EXTREMES)
    check_limbs(np.random.default_rng(2).integers(0, P, size=20_000).tolist())


def check_limbs(values: list) -> None:
    for value, (l0, l2, plus, minus, half) in zip(values, zip(*split(array(values)), strict=True), strict=True):
        l1 = plus - l0 - l2
        assert (l0 + (l1 << 20) + (l2 << 40)) % P == value
        assert abs(l0) <= 1 << 19 and abs(l1) <= 1 << 19 and abs(l2) <= 1 << 20
        assert (minus, half) == (l0 - l1 + l2, 4 * l0 + 2 * l1 + l2)
        assert max(map(abs, (plus, minus, half))) < 1 << 22


def test_largest_limb_sums_stay_exact_at_the_largest_inner_dimension() -> None:
    """The argument for 512: that many products of the largest values of limbs stay below 2^53."""
    largest = (1 << 22) - 1
    assert fp.MAX_INNER * largest**2 < 1 << 53 <= (fp.MAX_INNER + 1) * largest**2


def test_values_at_five_points_recombine_to_the_product_at_their_bounds() -> None:
    """Sums as large as an inner dimension of 512 lets them be, of one sign and of several."""
    rng = np.random.default_rng(9)
    for kind in KINDS:
        a, b = (adversarial(kind, shape, rng) for shape in ((fp.THIN_ROWS + 1, 512), (512, 3)))
        for signed in (a, (P - a) % P):
            assert (fp.matmul(signed, b).astype(object) == exact(signed, b)).all(), kind


# ------------------------------------------------------------------ matrix products

INNER = [1, 31, 32, 33, 34, 64, 65, 512, 513, 1024, 8000]
ROWS = [1, fp.THIN_ROWS, fp.THIN_ROWS + 1]


def exact(a: np.ndarray, b: np.ndarray, offset: np.ndarray | int = 0) -> np.ndarray:
    return (a.astype(object) @ b.astype(object) + offset) % P


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("inner", INNER)
def test_products_are_exact(inner: int, rows: int) -> None:
    rng = np.random.default_rng([inner, rows])
    for kind in KINDS:
        a, b = adversarial(kind, (rows, inner), rng), adversarial(kind, (inner, 2), rng)
        offset = adversarial("edges", (1, 2), rng)
        assert (fp.matmul(a, b).astype(object) == exact(a, b)).all(), kind
        assert (fp.matmul(a, b, offset).astype(object) == exact(a, b, offset.astype(object))).all(), kind


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize("inner", [1, 33, 8000])
def test_products_with_one_column_are_exact_and_take_nothing_apart(inner: int, public: bool) -> None:
    rng = np.random.default_rng(inner)
    for kind in KINDS:
        a, b = adversarial(kind, (fp.THIN_ROWS + 1, inner), rng), adversarial(kind, (inner, 1), rng)
        offset, operand = adversarial("edges", (1,), rng), fp.Operand(b, public)
        operand.lay_out(len(a), fp.Room())
        assert (fp.matmul(a, operand, offset).astype(object) == exact(a, b, offset.astype(object))).all(), kind
        assert operand.kept is None and "rows" in vars(operand)


@pytest.mark.parametrize("rows", [fp.THIN_ROWS + 1])
def test_the_adversarial_operands_are_adversarial(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the split of the inner dimension they do break the float64 product."""
    monkeypatch.setattr(fp, "MAX_INNER", 1 << 30)
    rng = np.random.default_rng(3)
    a, b = (adversarial("negative limbs", shape, rng) for shape in ((rows, 8000), (8000, 2)))
    assert not (fp.matmul(a, b).astype(object) == exact(a, b)).all()


@pytest.mark.parametrize("offset_shape", [(), (5,), (1, 5), (7, 1), (7, 5)])
@pytest.mark.parametrize("rows", [1, 7])
def test_offsets_broadcast(rows: int, offset_shape: tuple) -> None:
    rng = np.random.default_rng(4)
    offset_shape = tuple(rows if d == 7 else d for d in offset_shape)
    a, b = (rng.integers(0, P, size=shape, dtype=np.uint64) for shape in ((rows, 3), (3, 5)))
    offset = rng.integers(0, P, size=offset_shape, dtype=np.uint64)
    kept = offset.copy()
    assert (fp.matmul(a, b, offset).astype(object) == exact(a, b, offset.astype(object))).all()
    assert (offset == kept).all()


def test_offset_counts_once_however_the_inner_dimension_is_split() -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, P, size=shape, dtype=np.uint64) for shape in ((9, 7300), (7300, 3)))
    offset = np.full((9, 3), P - 1, dtype=np.uint64)
    assert (fp.matmul(a, b, offset).astype(object) == exact(a, b, P - 1)).all()


@examples(200 if FULL else 40)
@given(st.integers(1, 12), st.integers(1, 70), st.integers(1, 9), st.integers(0, 1 << 30), st.sampled_from(KINDS))
def test_products_of_any_small_shape(m: int, k: int, n: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = adversarial(kind, (m, k), rng), adversarial(kind, (k, n), rng)
    assert (fp.matmul(a, b).astype(object) == exact(a, b)).all()
    transposed = np.asfortranarray(a)
    assert (fp.matmul(transposed, fp.Operand(b)).astype(object) == exact(a, b)).all()


def test_an_operand_is_split_once_and_serves_both_paths() -> None:
    rng = np.random.default_rng(6)
    b = rng.integers(0, P, size=(12, 4), dtype=np.uint64)
    operand, room = fp.Operand(b), fp.Room()
    for rows in (1, 20, 1, 20):
        operand.lay_out(rows, room)
        a = rng.integers(0, P, size=(rows, 12), dtype=np.uint64)
        assert (fp.matmul(a, operand).astype(object) == exact(a, b)).all()
    assert operand.kept is not None and room.left == fp.KEPT_BYTES - operand.kept.nbytes
    assert operand.rows is operand.rows and operand.values.base is operand.rows


@pytest.mark.parametrize(("k", "n"), [(20, 7), (7, 20), (3641, 3), (3, 300), (64, 64)])
@pytest.mark.parametrize("kind", ["random", "p-1", "negative limbs", "extremes"])
def test_what_is_split_in_parts_gives_the_whole_product(
    k: int, n: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng([k, n])
    a, b = adversarial(kind, (9, k), rng), adversarial(kind, (k, n), rng)
    offset = adversarial("edges", (9, n), rng)
    whole, expected = fp.Operand(b), fp.matmul(a, b, offset)
    for size in (48, 48 * 5, 48 * 70, 48 * 1000):
        monkeypatch.setattr(fp, "LIMB_BYTES", size)
        for operand in (fp.Operand(b), fp.Operand(np.asfortranarray(b))):
            assert (fp.matmul(a, operand, offset) == expected).all()
            assert operand.kept is None
    whole.lay_out(9, fp.Room())
    assert (fp.matmul(a, whole, offset) == expected).all()


@pytest.mark.parametrize("rows", [1, 9])
def test_a_large_operand_takes_no_more_than_its_elements(rows: int) -> None:
    operand = fp.Operand(np.ones((40, 30), dtype=np.uint64))
    room = fp.Room(fp.limb_bytes((40, 30)) - 1)
    operand.lay_out(rows, room)
    fp.matmul(np.ones((rows, 40), dtype=np.uint64), operand)
    arrays = {id(a if a.base is None else a.base): a for a in vars(operand).values() if isinstance(a, np.ndarray)}
    assert sum(array.nbytes for array in arrays.values()) == 8 * 40 * 30
    assert room.left == fp.limb_bytes((40, 30)) - 1


def test_inner_dimensions_have_to_agree() -> None:
    with pytest.raises(ValueError, match="inner dimensions"):
        fp.matmul(fp.zeros((2, 3)), fp.zeros((4, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("inner", [511, 512, 513, 1024, 1025, 20_000])
def test_wide_products_with_extremes(inner: int) -> None:
    rng = np.random.default_rng(inner)
    for kind in KINDS:
        a, b = adversarial(kind, (12, inner), rng), adversarial(kind, (inner, 9), rng)
        assert (fp.matmul(a, b).astype(object) == exact(a, b)).all(), kind


# ------------------------------------------------------------------ stacks of matrices


def stacks(a: tuple, b: tuple, rng: np.random.Generator, kind: str = "random") -> tuple[np.ndarray, np.ndarray]:
    return adversarial(kind, a, rng), adversarial(kind, b, rng)


LEADS = [((3,), ()), ((), (3,)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (3,)), ((2, 1), (1, 3)),
         ((1, 3), (2, 1)), ((3,), (1,)), ((1, 1), (1, 1)), ((2, 3), (2, 3)), ((2, 3), (1, 1, 1)),
         ((2, 3, 2), (3, 1))]  # fmt: skip


@pytest.mark.parametrize("rows", [1, fp.THIN_ROWS + 1])
@pytest.mark.parametrize(("left", "right"), LEADS)
def test_stacks_of_matrices_broadcast(left: tuple, right: tuple, rows: int) -> None:
    rng = np.random.default_rng([rows, len(left), len(right)])
    for kind in ("random", "edges"):
        a, b = stacks((*left, rows, 5), (*right, 5, 4), rng, kind)
        expected = exact(a, b)
        lead = expected.shape[:-2]
        assert (fp.matmul(a, b).astype(object) == expected).all()
        for shape in ((), (4,), (rows, 1), (1, 4), expected.shape, (*lead[:1], *[1] * (len(lead) - 1), rows, 4)):
            offset = adversarial("edges", shape, rng)
            kept, shifted = offset.copy(), exact(a, b, offset.astype(object))
            assert (fp.matmul(a, b, offset).astype(object) == shifted).all(), shape
            assert (fp.matmul(a, fp.Operand(b), offset).astype(object) == shifted).all(), shape
            assert (offset == kept).all()


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("inner", [3640, 3641, 7400])
def test_stacked_products_are_exact_however_the_inner_dimension_is_split(inner: int, rows: int) -> None:
    rng = np.random.default_rng([inner, rows])
    for kind in ("p-1", "negative limbs", "extremes"):
        a, b = stacks((2, rows, inner), (2, inner, 2), rng, kind)
        offset = adversarial("edges", (2, 1, 2), rng)
        assert (fp.matmul(a, b, offset).astype(object) == exact(a, b, offset.astype(object))).all(), kind


def test_a_stacked_operand_is_laid_out_once() -> None:
    rng = np.random.default_rng(7)
    for right in ((3,), (1,), (1, 3)):
        a, b = stacks((2, 3, 9, 5), (*right, 5, 4), rng)
        operand = fp.Operand(b)
        rows = 18 if right[-1] == 3 else 54
        operand.lay_out(rows, fp.Room())
        before = [matrix.kept for matrix in operand.stack.values()]
        assert not [matrix for matrix in operand.stack.values() if "rows" in vars(matrix)]
        assert (fp.matmul(a, operand).astype(object) == exact(a, b)).all()
        assert all(matrix.kept is kept is not None for matrix, kept in zip(operand.stack.values(), before, strict=True))
        assert not [matrix for matrix in operand.stack.values() if "rows" in vars(matrix)]


def test_stacks_have_to_agree() -> None:
    for a, b in (((2, 3, 4), (2, 5, 6)), ((2, 3, 4), (3, 4, 5)), ((3, 4), (2, 5, 6))):
        with pytest.raises(ValueError):
            fp.matmul(fp.zeros(a), fp.zeros(b))


def test_inner_products_of_rows_are_products_of_stacks() -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, P, shape, dtype=np.uint64) for shape in ((2, 3, 1, 70), (2, 3, 70, 1)))
    a[0, 0], b[0, 0] = P - 1, P - 1
    expected = (a.astype(object) @ b.astype(object)) % P
    assert (fp.matmul(a, b) == expected).all()
    assert (fp.matmul(a, b, array([5])) == (expected + 5) % P).all()


# ------------------------------------------------------------------ words


def test_words_are_masked_to_61_bits_and_p_is_counted() -> None:
    words = array([0, P, P - 1, (1 << 64) - 1, 1 << 61, (1 << 61) | 5, (5 << 61) | P])
    assert kernels.mask_61(words) == 3
    assert ints(words) == [0, P, P - 1, P, 0, 5, P]


def test_what_is_not_canonical_is_counted() -> None:
    assert kernels.count_not_canonical(array([0, P - 1, P, P + 1, (1 << 64) - 1])) == 3


# ------------------------------------------------------------------ public matrices of small integers


def small_matrix(bits: int, k: int, n: int, kind: str) -> np.ndarray:
    """Signed integers of at most so many bits."""
    rng, most = np.random.default_rng(bits), (1 << bits) - 1
    if kind == "largest":  # every partial sum as large as it can be
        return np.full((k, n), most, dtype=np.int64)
    if kind == "one column":
        found = rng.integers(-1, 2, (k, n))
        found[:, 0] = -most
        return found
    return rng.integers(-most, most, (k, n), endpoint=True)


@pytest.mark.parametrize("kind", ["largest", "one column", "any"])
@pytest.mark.parametrize("bits", [1, 9, 16, 20, 24, 27, 30, 36, 45, 58])
def test_products_with_public_matrices_are_exact(bits: int, kind: str) -> None:
    """Elements whose digits are extreme and all of one sign, so that sums do not cancel."""
    k, rows = 400, fp.THIN_ROWS + 4
    w = fp.from_signed(small_matrix(bits, k, 3, kind))
    a = np.random.default_rng(1).integers(0, fp.P, (rows, k), dtype=np.uint64)
    for row, width in enumerate(range(13, 27, 4)):  # digits of 2^(width - 1) - 1, the largest there are
        digit = (1 << (width - 1)) - 1
        a[row] = sum(digit << (width * j) for j in range(60 // width)) % fp.P
        a[row, ::2] = a[row, 1::2]
    a[4:8] = np.array([[0], [1], [fp.P - 1], [fp.P // 2]], dtype=np.uint64)
    offset = np.random.default_rng(2).integers(0, fp.P, 3, dtype=np.uint64)
    expected = (a.astype(object) @ w.astype(object) + offset.astype(object)) % fp.P
    assert (fp.matmul(a, fp.Operand(w, public=True), offset).astype(object) == expected).all()
    assert (fp.matmul(a[:2], fp.Operand(w, public=True), offset).astype(object) == expected[:2]).all()


def test_small_public_matrices_take_fewer_products() -> None:
    """And a matrix that is not public is never looked at."""
    small, large = (fp.from_signed(small_matrix(bits, 784, 4, "any")) for bits in (20, 58))
    chosen = fp.Operand(small, public=True).small
    assert chosen is not None and fp.BITS // chosen.width + 1 <= fp.FEWER_PRODUCTS
    assert fp.Operand(large, public=True).small is None
    assert fp.Operand(small).small is None
    assert fp.Operand(np.zeros((0, 3), dtype=np.uint64), public=True).small is None


@pytest.mark.parametrize("reach", [(1 << 40) - 1, 1 << 40, (1 << 40) + 1, (1 << 39) + 1])
def test_the_bound_of_a_column_is_the_sum_of_its_sizes(reach: int) -> None:
    """At, below and above a power of two: digits of `width` bits times the sum stay below 2^52 all the same."""
    column = np.array([[reach - 3], [-1], [1], [-1]], dtype=np.int64)
    chosen = fp.Operand(fp.from_signed(column), public=True).small
    assert chosen is None or (reach << (chosen.width - 1)) <= 1 << 52
