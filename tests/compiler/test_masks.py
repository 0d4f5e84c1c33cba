"""Masks that are constants of a model: a softmax computes nothing of what they hide, and is zero there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from onnx import TensorProto

from mpc.compiler.compile import Compiled, compile_model
from mpc.plan.cost import plan_cost
from tests.support.effort import examples
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, clear, plaintext

LEAST = float(np.finfo(np.float32).min)
HEADS, ROWS, PLACES = 2, 5, 6
SHAPE = ("batch", HEADS, ROWS, PLACES)
RANGE = (-8.0, 8.0)
X = np.random.default_rng(1).uniform(*RANGE, (3, HEADS, ROWS, PLACES)).astype(np.float32)
LATER = np.triu(np.ones((ROWS, PLACES), bool), 1)
PATTERNS: dict[str, np.ndarray] = {
    "causal": LATER,
    "a window": LATER | np.tril(np.ones((ROWS, PLACES), bool), -3),
    "a prefix": np.arange(PLACES) >= 4,
    "only its own place": ~np.eye(ROWS, PLACES, dtype=bool),
    "another a head": np.stack([LATER, np.arange(PLACES)[None] % 2 == np.arange(ROWS)[:, None] % 2]),
}


def added(folder: Path, values: ArrayLike) -> Path:
    nodes = [node("Add", ["x", "mask"], ["s"], name="add"), node("Softmax", ["s"], ["y"], axis=-1, name="shares")]
    return save_model(folder, nodes, {"mask": np.asarray(values, np.float32)}, SHAPE)


def chosen(folder: Path, where: np.ndarray, value: float) -> Path:
    nodes = [node("Where", ["seen", "x", "far"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)]
    return save_model(folder, nodes, {"seen": ~where, "far": np.float32(value)}, SHAPE)


def compared(compiled: Compiled) -> int:
    """Count the elements whose power is computed."""
    gates = [gate for gate in compiled.plan.gates if gate.kind in ("between", "fourier")]
    return int(np.prod([size for size in compiled.plan.wire[gates[0].reads[0]].shape if size != "batch"]))


def kept(where: np.ndarray) -> int:
    return int((~np.broadcast_to(where, (HEADS, ROWS, PLACES))).sum())


@pytest.mark.parametrize("value", [-1e4, -np.inf, LEAST])
@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_hidden_is_not_computed(name: str, value: float, tmp_path: Path) -> None:
    where = PATTERNS[name]
    compiled = assert_agrees(added(tmp_path, np.where(where, value, 0.0)), {"x": X}, {"x": RANGE}, tolerance=1e-4)
    assert compared(compiled) == kept(where)
    y = clear(compiled, X)
    assert not y[np.broadcast_to(where, y.shape)].any()


@pytest.mark.parametrize("value", [-np.inf, LEAST])
def test_scores_that_a_mask_replaces(value: float, tmp_path: Path) -> None:
    compiled = assert_agrees(chosen(tmp_path, LATER, value), {"x": X}, {"x": RANGE}, tolerance=1e-4)
    assert compared(compiled) == kept(LATER)
    assert not any(gate.kind == "multiply" and gate.weight for gate in compiled.plan.gates)


@pytest.mark.parametrize("least", [-np.inf, LEAST])
def test_masked_scores_that_are_no_less_than_the_least_number(least: float, tmp_path: Path) -> None:
    """XGLM has a Max between its masks and the softmax."""
    nodes = [
        node("Add", ["x", "mask"], ["added"]),
        node("Max", ["added", "least"], ["s"]),
        node("Softmax", ["s"], ["y"], axis=-1),
    ]
    constants = {"mask": np.where(LATER, LEAST, 0.0).astype(np.float32), "least": np.float32(least)}
    compiled = assert_agrees(save_model(tmp_path, nodes, constants, SHAPE), {"x": X}, {"x": RANGE}, tolerance=1e-4)
    assert compared(compiled) == kept(LATER)


def test_a_mask_for_every_row_that_is_read_as_a_truth(tmp_path: Path) -> None:
    """MPT makes a mask of the least number for each row of the batch, and asks where it is not 0."""
    nodes = [
        node("Shape", ["x"], ["sizes"]),
        node("Expand", ["seen", "sizes"], ["seen_everywhere"]),
        node("Where", ["seen_everywhere", "zero", "least"], ["mask"], name="mask"),
        node("Cast", ["mask"], ["hidden"], to=TensorProto.BOOL),
        node("Where", ["hidden", "least", "x"], ["s"], name="scores"),
        node("Softmax", ["s"], ["y"], axis=-1),
    ]
    constants = {"seen": ~LATER, "zero": np.float32(0.0), "least": np.float32(LEAST)}
    assert_agrees(save_model(tmp_path, nodes, constants, SHAPE), {"x": X}, {"x": RANGE}, tolerance=1e-4)


@pytest.mark.parametrize("value", [-5.0, -110.0, -900.0])
def test_a_number_that_scores_can_make_up_for_is_no_mask(value: float, tmp_path: Path) -> None:
    compiled = assert_agrees(added(tmp_path, np.where(LATER, value, 0.0)), {"x": X}, {"x": RANGE}, tolerance=1e-4)
    assert compared(compiled) == HEADS * ROWS * PLACES


def test_bounds_decide_whether_a_number_is_a_mask(tmp_path: Path) -> None:
    path = added(tmp_path, np.where(LATER, -2e3, 0.0))
    near, far = (compile_model(path, {"x": (-reach, reach)}) for reach in (900.0, 960.0))
    assert (compared(near), compared(far)) == (kept(LATER), HEADS * ROWS * PLACES)


def test_a_number_added_to_a_whole_row_hides_nothing_of_it(tmp_path: Path) -> None:
    rows = np.where(np.arange(ROWS) == 2, -1e4, 0.0)[:, None]
    values = np.where(LATER & (np.arange(ROWS) != 2)[:, None], -1e4, 0.0) + rows
    compiled = assert_agrees(added(tmp_path, values), {"x": X}, {"x": RANGE}, tolerance=1e-3)
    assert compared(compiled) == kept(LATER & (np.arange(ROWS) != 2)[:, None])


@pytest.mark.parametrize("replaced", [True, False])
def test_shares_of_a_row_that_is_hidden_whole_are_equal(replaced: bool, tmp_path: Path) -> None:
    where = LATER | (np.arange(ROWS) == 3)[:, None]
    path = chosen(tmp_path, where, LEAST) if replaced else added(tmp_path, np.where(where, LEAST, 0.0))
    assert_agrees(path, {"x": X}, {"x": RANGE}, tolerance=1e-4)


def test_a_mask_beside_other_constants(tmp_path: Path) -> None:
    """As a model does that penalises distance: what a mask does not hide keeps what is added to it."""
    slope = -0.5 * np.abs(np.arange(ROWS)[:, None] - np.arange(PLACES))
    compiled = assert_agrees(added(tmp_path, np.where(LATER, LEAST, slope)), {"x": X}, {"x": RANGE}, tolerance=1e-4)
    assert compared(compiled) == kept(LATER)


def test_a_mask_that_is_entered_is_computed(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "x"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)]
    compiled = compile_model(save_model(tmp_path, nodes, {}, SHAPE), {"x": (-1e4, 0.0)})
    assert compared(compiled) == HEADS * ROWS * PLACES


def test_a_mask_costs_no_more_than_what_it_leaves(tmp_path: Path) -> None:
    masked, plain = (compile_model(added(tmp_path, m), RANGE).plan for m in (np.where(LATER, LEAST, 0.0), np.zeros(6)))
    costs = [plan_cost(plan) for plan in (masked, plain)]
    part = kept(LATER) / (HEADS * ROWS * PLACES)
    assert costs[0].rounds <= costs[1].rounds
    assert costs[0].dealt < (part + 0.15) * costs[1].dealt


@examples(15)
@given(
    where=st.lists(st.lists(st.booleans(), min_size=PLACES, max_size=PLACES), min_size=ROWS, max_size=ROWS),
    value=st.sampled_from([-1e4, LEAST]),
    replaced=st.booleans(),
)
def test_any_pattern(
    where: list[list[bool]], value: float, replaced: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hidden, folder = np.array(where), tmp_path_factory.mktemp("pattern")
    path = chosen(folder, hidden, value) if replaced else added(folder, np.where(hidden, value, 0.0))
    assert_agrees(path, {"x": X}, {"x": RANGE}, tolerance=1e-3)


LEFT = np.where(np.arange(5) < 2, -1e4, 0.0)
FORWARDS = np.where(np.triu(np.ones((5, 5), bool), 1), -np.inf, 0.0)


def masked(folder: Path, masks: Sequence[ArrayLike], reach: float) -> np.ndarray:
    """Return shares of scores with several masks, which agree with those of the model."""
    names = ["x", *(f"s{i}" for i in range(len(masks)))]
    nodes = [node("Add", [names[i], f"mask{i}"], [names[i + 1]], name=f"add{i}") for i in range(len(masks))]
    nodes.append(node("Softmax", [names[-1]], ["y"], axis=-1))
    x = np.rint(np.random.default_rng(2).uniform(-reach, reach, (4, 5, 5))).astype(np.float32)
    x[0], x[1] = 0, reach * np.sign(x[1])
    x[2, :, :3] = [-reach, reach, -reach]
    path = save_model(
        folder, nodes, {f"mask{i}": np.asarray(mask, np.float32) for i, mask in enumerate(masks)}, ("batch", 5, 5)
    )
    return clear(assert_agrees(path, {"x": x}, {"x": (-reach, reach)}, tolerance=1e-3), x)


@pytest.mark.parametrize(
    ("masks", "reach"),
    [
        ([FORWARDS, LEFT], 8.0),
        ([LEFT, FORWARDS], 8.0),
        ([FORWARDS + LEFT], 8.0),
        ([[0.0, -np.inf, -1e3, -np.inf, -1e3]], 7000.0),
    ],
)
def test_minus_infinity_has_no_share_beside_finite_masks(masks: list[ArrayLike], reach: float, tmp_path: Path) -> None:
    """A row may have finite masks in all other places, and bounds need not show what these hide."""
    shares = masked(tmp_path, masks, reach)
    hidden = np.isneginf(np.sum([np.broadcast_to(mask, (5, 5)) for mask in masks], axis=0))
    assert not shares[:, hidden].any()


@pytest.mark.parametrize(
    ("masks", "reach"),
    [
        ([[-np.inf, -1500.0, -1500.0, -1600.0, -np.inf]], 100.0),
        ([[-np.inf, -5e5, -5e5, -np.inf, -np.inf]], 1.0),
        ([[-np.inf, -110.0, -100.0, -110.0, -np.inf]], 600.0),
        ([[-np.inf, 0.0, 0.0, 0.0, 0.0], [0.0, -2e3, -2e3, -2e3, -2e3]], 30.0),
    ],
)
def test_hidden_scores_may_be_above_all_others(masks: list[ArrayLike], reach: float, tmp_path: Path) -> None:
    assert not masked(tmp_path, masks, reach)[..., 0].any()


@pytest.mark.parametrize(
    "masks", [[[0.0, -1e9, -1e5, -1500.0, -np.inf]], [[0.0, -6e3, -6e3, 0.0, 0.0], [0.0, -3e4, 0, 0, 0]]]
)
def test_scores_do_not_make_up_for_a_mask_that_is_cut_off(masks: list[ArrayLike], tmp_path: Path) -> None:
    """Scores are beyond 5000, and a wire holds -10000 for what is less."""
    assert not masked(tmp_path, masks, 5100.0)[:, :, 1].any()


@pytest.mark.parametrize(
    ("mask", "reach", "told"),
    [
        ([0.0, -1e9, 0.0, -2e4, 0.0, 0.0], 100.0, False),
        ([-2e4] * PLACES, 100.0, False),
        ([-2e4, -3e4, -2e4, -2e4, -2e4, -2e4], 100.0, True),
        ([0.0, -2e4, 0.0, 0.0, 0.0, 0.0], 15000.0, True),
    ],
)
def test_a_mask_that_is_cut_off_is_told_if_it_can_matter(
    mask: list[float], reach: float, told: bool, tmp_path: Path
) -> None:
    compiled = compile_model(added(tmp_path, mask), {"x": (-reach, reach)})
    assert any("count as -10000" in note for note in compiled.notes) == told


def behind_a_secret(folder: Path, form: str, far: float) -> Path:
    """Scores are hidden where they are positive; `otherwise` where they are not."""
    nodes = [node("Greater", ["x", "zero"], ["bit"])]
    if form == "added":
        nodes += [node("Cast", ["bit"], ["one"], to=1), node("Mul", ["one", "far"], ["mask"])]
        nodes.append(node("Add", ["x", "mask"], ["s"]))
    elif form == "looked up":
        nodes += [node("Cast", ["bit"], ["place"], to=7), node("Gather", ["table", "place"], ["mask"])]
        nodes.append(node("Add", ["mask", "x"], ["s"]))
    elif form == "of two constants":
        nodes += [node("Where", ["bit", "far", "zero"], ["mask"]), node("Add", ["x", "mask"], ["s"])]
    else:
        nodes.append(node("Where", ["bit", *(("x", "far") if form == "otherwise" else ("far", "x"))], ["s"]))
    nodes += [node("Div", ["s", "two"], ["half"]), node("Softmax", ["half"], ["y"], axis=-1)]
    constants = {"zero": 0.0, "far": far, "two": 2.0, "table": [0.0, far]}
    return save_model(folder, nodes, {name: np.array(value, np.float32) for name, value in constants.items()}, SHAPE)


@pytest.mark.parametrize("form", ["added", "looked up", "of two constants", "replaced", "otherwise"])
def test_scores_that_a_secret_hides_have_no_share_or_a_note_says_so(form: str, tmp_path: Path) -> None:
    for reach in (8.0, 3000.0, 4990.0, 12000.0):
        compiled = compile_model(behind_a_secret(tmp_path, form, -1e9), {"x": (-reach, reach)})
        noted = any("bounds do not show" in note for note in compiled.notes)
        assert noted == (reach > (9000 if form in ("otherwise", "replaced") else 4000))
        x = np.random.default_rng(2).uniform(-reach, reach, X.shape).astype(np.float32)
        x[..., 0] = -reach * 0.9  # one is hidden, and one is not, of each row
        x[..., 1] = reach * 0.9
        hidden = clear(compiled, x)[x <= 0 if form == "otherwise" else x > 0]
        assert noted or not hidden.any()


def decided(folder: Path, form: str, numbers: tuple[ArrayLike, ArrayLike]) -> Path:
    """Add to scores one of two numbers, as a bit of each place says; the second is left out where it is a factor."""
    nodes = [node("Greater", ["x", "zero"], ["bit"])]
    if form == "chosen":
        nodes.append(node("Where", ["bit", "far", "near"], ["mask"]))
    else:
        nodes += [node("Cast", ["bit"], ["one"], to=1), node("Mul", ["one", "far"], ["mask"])]
    nodes += [node("Add", ["x", "mask"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)]
    constants = {"zero": 0.0, "far": numbers[0], "near": numbers[1]}
    return save_model(folder, nodes, {k: np.array(v, np.float32) for k, v in constants.items()}, ("batch", 4))


SCORES = np.array([[-1, 2, 3, 4], [1, 2, 3, 4], [-1, -2, -3, 4], [-4, -3, -2, -1]], np.float32)


@pytest.mark.parametrize(
    ("form", "far", "near"),
    [
        ("chosen", -3e4, -2e4),
        ("chosen", [-2e4, -3e4, -4e4, -5e4], 0.0),
        ("chosen", [-20005.0, -20004.0, -20003.0, -2e4], -1.0),
        ("chosen", [-1e4, -1e5, -2e4, -3e4], [0.0, -3.0, -2.0, -1.0]),
        ("multiplied", [-15000.0, -12000.0, -14000.0, -13000.0], 0.0),
    ],
)
def test_numbers_that_secrets_choose_keep_their_order(
    form: str, far: ArrayLike, near: ArrayLike, tmp_path: Path
) -> None:
    """All below -10000 were one number, so what they say of each other was lost."""
    compiled = assert_agrees(decided(tmp_path, form, (far, near)), {"x": SCORES}, {"x": RANGE}, tolerance=1e-3)
    assert not any("hide all scores of a row" not in note for note in compiled.notes)


@pytest.mark.parametrize("far", [LEAST, -1e9, -1e6, -5e4, -1e4, -9e3])
def test_a_row_that_a_secret_may_hide_whole_is_told(far: float, tmp_path: Path) -> None:
    """Beside the least float32 a model loses its scores: shares are equal there, and here they are the scores'."""
    path = decided(tmp_path, "chosen", (far, 0.0))
    told = any("hide all scores of a row" in note for note in compile_model(path, {"x": RANGE}).notes)
    assert told == (far <= -1e4)
    if not told:
        assert_agrees(path, {"x": SCORES}, {"x": RANGE}, tolerance=1e-3)


@pytest.mark.parametrize(("mask", "told"), [([-1e9] * 6, True), ([-2e4] * 6, False), ([LEAST] * 6, False)])
def test_a_row_that_constants_hide_whole_is_told_if_its_shares_are_others(
    mask: list[float], told: bool, tmp_path: Path
) -> None:
    path = added(tmp_path, mask)
    assert any("all scores of a row" in note for note in compile_model(path, {"x": RANGE}).notes) == told
    if not told:
        assert_agrees(path, {"x": X}, {"x": RANGE}, tolerance=1e-3)


CHAINS = {  # which of two masks hide a score: one is public, others are told by x
    "two secrets": ("low", "high"), "public first": ("later", "low"), "secret first": ("low", "later"),
}  # fmt: skip


@pytest.mark.parametrize("far", [LEAST, -np.inf, -1e9, -1e4])
@pytest.mark.parametrize("chain", CHAINS)
def test_masks_may_be_filled_in_one_after_the_other(chain: str, far: float, tmp_path: Path) -> None:
    """As masked_fill does twice; where all of a row is hidden by one number its shares are equal."""
    first, second = CHAINS[chain]
    nodes = [node("Less", ["x", "a"], ["low"]), node("Greater", ["x", "b"], ["high"])]
    nodes += [node("Where", [first, "far", "x"], ["t"], "first"), node("Where", [second, "far", "t"], ["s"], "second")]
    nodes.append(node("Softmax", ["s"], ["y"], axis=-1))
    constants = {"a": np.float32(-3), "b": np.float32(3), "far": np.float32(far), "later": LATER[:, :ROWS]}
    x = X[:, 0, :, :ROWS].copy()
    x[0, 0] = -5.0  # a row that is hidden whole
    x[:, :, 0] = 1.0 if far == -np.inf else x[:, :, 0]
    path = save_model(tmp_path, nodes, constants, ("batch", ROWS, ROWS))
    compiled = assert_agrees(path, {"x": x}, {"x": RANGE}, tolerance=1e-4)
    assert not any("bounds do not show" in note for note in compiled.notes)


def test_a_score_in_the_place_of_what_a_mask_hides_is_there(tmp_path: Path) -> None:
    nodes = [node("Less", ["x", "zero"], ["low"]), node("Where", ["later", "far", "x"], ["t"], "hidden")]
    nodes += [node("Where", ["low", "zero", "t"], ["s"], "put back"), node("Softmax", ["s"], ["y"], axis=-1)]
    constants = {"zero": np.float32(0), "far": np.float32(-1e4), "later": LATER[:, :ROWS]}
    path = save_model(tmp_path, nodes, constants, ("batch", ROWS, ROWS))
    assert_agrees(path, {"x": X[:, 0, :, :ROWS]}, {"x": RANGE}, tolerance=1e-3)


def test_masks_of_too_many_numbers_are_told(tmp_path: Path) -> None:
    far = np.array([-2e4, -4e4, -6e4, -8e4])
    for count, told in ((1, False), (2, False), (3, True)):
        nodes = [node("Greater", ["x", "zero"], ["bit"]), node("Where", ["bit", "far", "zero"], ["mask"])]
        nodes += [node("Add", ["x", "mask"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)]
        numbers = np.concatenate([far + 1e5 * i - 1e5 * (count - 1) for i in range(count)]).astype(np.float32)
        constants = {"zero": np.float32(0), "far": numbers}
        compiled = compile_model(save_model(tmp_path, nodes, constants, ("batch", len(numbers))), {"x": RANGE})
        assert any("too many different numbers" in note for note in compiled.notes) == told


@pytest.mark.parametrize("less", [-3e4, -2e4])
def test_masks_that_replace_each_other_by_other_numbers_are_told(less: float, tmp_path: Path) -> None:
    nodes = [node("Greater", ["x", "zero"], ["bit"]), node("Less", ["x", "one"], ["other"])]
    nodes += [node("Where", ["bit", "far", "x"], ["s"]), node("Where", ["other", "less", "s"], ["t"])]
    nodes.append(node("Softmax", ["t"], ["y"], axis=-1))
    constants = {"zero": 0.0, "one": 1.0, "far": -3e4, "less": less}
    path = save_model(tmp_path, nodes, {k: np.float32(v) for k, v in constants.items()}, ("batch", 4))
    notes = compile_model(path, {"x": RANGE}).notes
    assert any("replace each other" in note for note in notes) == (less != -3e4)


@pytest.mark.parametrize(("factor", "held"), [(-2e4, True), (-2e5, True), (-1e7, False)])
def test_a_factor_of_scores_is_no_mask(factor: float, held: bool, tmp_path: Path) -> None:
    """One below -10000 was cut off, and so was a temperature."""
    nodes = [node("Mul", ["x", "factor"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)]
    path = save_model(tmp_path, nodes, {"factor": np.float32(factor)}, SHAPE)
    reach = 10 / abs(factor)
    if held:
        assert_agrees(path, {"x": X / 8 * reach}, {"x": (-reach, reach)}, tolerance=1e-3)
    else:
        assert any("zeros and ones" in note for note in compile_model(path, {"x": (-reach, reach)}).notes)


@pytest.mark.parametrize("first", ["public", "secret", "one"])
@pytest.mark.parametrize("number", [-1e9, -1e4])
def test_rows_that_constants_and_secrets_hide_together_are_told(first: str, number: float, tmp_path: Path) -> None:
    """Shares of a padded query, all of whose keys are padded or later ones, are others than the model's."""
    causal = np.triu(np.ones((4, 4), bool), 1)
    public, secret = ["later", "never", "?"], ["pad", "far", "?"]
    masks = {"public": [public, secret], "secret": [secret, public], "one": [secret]}[first]
    nodes = [node("Greater", ["x", "one"], ["pad"])]
    for place, (where, value, _) in enumerate(masks):
        nodes.append(node("Where", [where, value, f"s{place}" if place else "x"], [f"s{place + 1}"]))
    nodes.append(node("Softmax", [f"s{len(masks)}"], ["y"], axis=-1))
    constants = {"one": np.float32(1), "far": np.float32(number), "never": np.float32(-np.inf), "later": causal}
    used = {name: value for name, value in constants.items() if any(name in each.input for each in nodes)}
    notes = compile_model(save_model(tmp_path, nodes, used, ("batch", 4, 4)), {"x": RANGE}).notes
    assert any("hide all scores of a row" in note for note in notes) == (first != "one")


@pytest.mark.parametrize("form", ["one after the other", "joined"])
@pytest.mark.parametrize("number", [-np.inf, LEAST, -1e9, -1e4])
def test_rows_in_which_one_number_is_in_place_of_all_scores(form: str, number: float, tmp_path: Path) -> None:
    """They have equal shares here and in the model, and nothing is said; of minus infinity a model has no shares."""
    nodes = [node("Greater", ["x", "one"], ["pad"]), node("Where", ["pad", "far", "x"], ["t"], "secret")]
    nodes.append(node("Where", ["later", "far", "t"], ["s"], "public"))
    if form == "joined":
        nodes = [nodes[0], node("Or", ["pad", "later"], ["none"]), node("Where", ["none", "far", "x"], ["s"])]
    nodes.append(node("Softmax", ["s"], ["y"], axis=-1))
    constants = {"one": np.float32(1), "far": np.float32(number), "later": LATER[:, :ROWS]}
    path = save_model(tmp_path, nodes, constants, ("batch", ROWS, ROWS))
    x = X[:, 0, :, :ROWS].copy()
    x[0, 2, :3] = 2.0  # its own scores are hidden by a secret, and the others come later
    x[:, :, 0] = np.where(np.arange(ROWS) == 2, x[:, :, 0], 0.5)
    compiled = compile_model(path, {"x": RANGE})
    told = any("all of it is minus infinity the model has none" in note for note in compiled.notes)
    if number == -np.inf:
        assert told and np.isnan(plaintext(path, {"x": x})[0][0, 2]).all()
    else:
        assert not compiled.notes
        assert_agrees(path, {"x": x}, {"x": RANGE}, tolerance=1e-4)


@pytest.mark.parametrize("level", [-1e9, -1e6])
def test_a_maximum_with_what_a_mask_adds_leaves_it_a_mask(level: float, tmp_path: Path) -> None:
    nodes = [
        node("Greater", ["x", "zero"], ["m"]),
        node("Cast", ["m"], ["hidden"], to=TensorProto.FLOAT),
        node("Mul", ["hidden", "far"], ["mask"]),
        node("Add", ["x", "mask"], ["a"]),
        node("Max", ["a", "level"], ["b"]),
        node("Softmax", ["b"], ["y"], axis=-1),
    ]
    constants = {"zero": np.float32(0), "far": np.float32(-1e9), "level": np.float32(level)}
    path = save_model(tmp_path, nodes, constants)
    x = np.random.default_rng(5).uniform(-1, 1, (9, 4)).astype(np.float32)
    x[:, 0] = -0.5
    compiled = assert_agrees(path, {"x": x}, {"x": (-1.0, 1.0)})
    assert "where masks hide all scores of a row" in "".join(compiled.messages)
    assert sum(gate.kind == "relu" for gate in compiled.plan.gates) == 0


@pytest.mark.parametrize(("ranked", "hidden", "noted"), [(2, 3, True), (2, 2, False), (2, 4, True), (1, 3, False)])
def test_ranks_beyond_what_a_public_mask_leaves_are_said_not_to_be_used(
    ranked: int, hidden: int, noted: bool, tmp_path: Path
) -> None:
    nodes = [node("Add", ["x", "mask"], ["a"]), node("TopK", ["a", "k"], ["v", "i"], axis=1)]
    nodes.append(node("Cast", ["i"], ["y"], to=TensorProto.FLOAT))
    mask = np.where(np.arange(4) >= 4 - hidden, np.float32(-1e9), np.float32(0))
    path = save_model(tmp_path, nodes, {"mask": mask, "k": np.array([ranked])})
    messages = "".join(compile_model(path, (-1.0, 1.0)).messages)
    assert ("do not use these ranks" in messages) == noted


def test_ranks_of_what_a_public_mask_replaces_are_the_models(tmp_path: Path) -> None:
    nodes = [node("Where", ["seen", "x", "far"], ["a"]), node("TopK", ["a", "k"], ["v", "i"], axis=1)]
    nodes.append(node("Cast", ["i"], ["y"], to=TensorProto.FLOAT))
    constants = {"seen": np.array([False, True, False, False]), "far": np.float32(-1e9), "k": np.array([3])}
    path = save_model(tmp_path, nodes, constants)
    x = np.random.default_rng(5).uniform(-1, 1, (9, 4)).astype(np.float32)
    compiled = assert_agrees(path, {"x": x}, {"x": (-1.0, 1.0)})
    assert "a mask that is the model's own" not in "".join(compiled.messages)
