"""The SDK takes what onnxruntime takes, and refuses the rest with the form that is right, never with a traceback."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from mpc.compiler.arguments import as_array
from mpc.errors import InputError, MpcError, UsageError
from mpc.plan.link import Link
from parties.client.cluster import Cluster
from parties.client.running.stocks import Stock
from parties.client.session import Session
from tests.support.graphs import node, save_model
from tests.support.parties import InProcess, data, tiny_answer, tiny_model

RANGES = {"x": (-4.0, 4.0)}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with (
        InProcess(tmp_path_factory.mktemp("cluster"), 2) as running,
        Cluster(running.client().config) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def session(client: Cluster, model: Path) -> Iterator[Session]:
    with client.session(model, (-4, 4)) as opened:
        yield opened


def right(outputs: list[Any], x: np.ndarray) -> bool:
    [y] = outputs
    return bool(np.abs(y - tiny_answer(x)).max() < 1e-3)


def test_every_way_to_call_run(session: Session) -> None:
    x = data(3)
    rows = x.tolist()
    for outputs in (
        session.run(None, {"x": x}),
        session.run(["y"], {"x": rows}),
        session.run(("y",), {"x": [tuple(row) for row in rows]}),
        session.run([], x),
        session.run(None, rows),
        session.run(None, [x]),
        session.run(None, {"x": x}, onnxruntime.RunOptions()),
        session.run(output_names=None, input_feed={"x": x}, run_options=onnxruntime.RunOptions()),
        session.run(None, {"x": x}, np.int64(3)),
        session.run(feeds=list(x), batch=3),
    ):
        assert right(outputs, x)


@pytest.mark.parametrize("security", ["passive", "active"])
def test_a_link_makes_a_run_a_round_shorter(client: Cluster, model: Path, security: str) -> None:
    x, rounds = data(3), []
    for link in (None, "wan", Link(40, 100)):
        with client.session(model, RANGES, security=security, link=link) as opened:
            assert right(opened.run(None, {"x": x}), x)
            rounds.append(opened.last_run.rounds)
    assert rounds == [rounds[0], rounds[0] - 1, rounds[0] - 1]


def test_what_was_dealt_for_a_link_is_used(client: Cluster, model: Path) -> None:
    [stock] = client.deal(model, 1, 3, ranges=RANGES, link="wan")
    with client.session(model, RANGES, batch=3) as other:  # that has another plan
        assert right(other.run(None, {"x": data(3)}), data(3)) and listed(client, stock)
    with client.session(model, RANGES, batch=3, link="wan") as opened:
        assert right(opened.run(None, {"x": data(3)}), data(3)) and not listed(client, stock)


def listed(client: Cluster, stock: Stock) -> bool:
    return stock.terms.session_id in {each.terms.session_id for each in client.stocks()}


def test_whole_numbers_in_lists_are_a_models_reals(session: Session) -> None:
    x = np.array([[1, -2, 3]], dtype=np.float32)
    assert right(session.run(None, {"x": [[1, -2, 3]]}), x)


@pytest.mark.parametrize(
    ("values", "dtype", "becomes"),
    [
        ([[1, 2]], "float32", "float32"),
        ([[0.1, 2]], "float32", "float32"),
        ([[True]], "float64", "float64"),
        ([[1, 2]], "int8", "int8"),
        ([[1, 300]], "int8", "int64"),
        ([[-1]], "uint8", "int64"),
        ([[1.5]], "int64", "float64"),
        ([[1]], "bool", "int64"),
        ([[False]], "bool", "bool"),
    ],
)
def test_lists_take_the_models_type_if_that_changes_no_number(values: list, dtype: str, becomes: str) -> None:
    """Where it would, they keep their own, and are refused as an array of it is."""
    found = as_array(values, dtype, "x")
    assert found.dtype == becomes and found.tolist() == np.array(values, dtype=becomes).tolist()


def test_what_onnxruntime_says_of_a_model(session: Session, model: Path) -> None:
    theirs = onnxruntime.InferenceSession(str(model)).get_modelmeta()
    ours = session.get_modelmeta()
    for name in ("producer_name", "graph_name", "domain", "description", "graph_description", "custom_metadata_map"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert isinstance(session.get_providers(), list) and all(isinstance(one, str) for one in session.get_providers())
    assert [one.name for one in session.get_inputs()] == ["x"]


def test_ranges_shapes_and_models_in_their_other_forms(client: Cluster, model: Path, session: Session) -> None:
    known = session.plan.digest
    for form in (model, str(model), model.read_bytes(), io.BytesIO(model.read_bytes()), onnx.load(model)):
        with client.session(form, RANGES) as one:
            assert one.plan.digest == known
    for ranges in ((-4, 4), [-4.0, 4.0], np.array([-4, 4]), {"x": [-4, 4]}, "-4:4", {"x": "-4:4"}):
        with client.session(model, ranges, shapes=(None, 3)) as one:
            assert one.plan.digest == known
    with client.session(model, ([-4] * 3, [4] * 3)) as one:
        assert right(one.run(None, data(2)), data(2))


def test_one_range_for_several_inputs_but_no_feeds_without_names(client: Cluster, tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 4])
    path = save_model(tmp_path, [node("Add", ["x", "z"], ["y"])])
    loaded = onnx.load(path)
    loaded.graph.input.append(value)
    one = np.ones((2, 4), dtype=np.float32)
    with client.session(loaded, (-2, 2)) as session:
        assert {given.name: (given.low, given.high) for given in session.plan.inputs} == {
            "x": ((-2,), (2,)),
            "z": ((-2,), (2,)),
        }
        for feeds in (one, [one, one], (one, one)):
            with pytest.raises(UsageError, match="there are 2 inputs: x, z") as caught:
                session.run(None, feeds)
            assert caught.value.remedy == "feeds={'x': array, ...}"
        [y] = session.run(None, {"x": one, "z": one})
        assert np.abs(y - 2).max() < 1e-3


# ----------------------------------------------------------------------------------- all else


class Hostile:
    """An object that fails whatever is done with it."""

    def _fails(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("not even that")

    __iter__ = __array__ = __len__ = __getitem__ = __float__ = __index__ = read = _fails


ODD = (
    0,
    -1,
    2.5,
    True,
    float("nan"),
    10**30,
    "",
    "x",
    "y",
    "a:b",
    b"x",
    None,
    [],
    (),
    {},
    set(),
    [[1], [1, 2]],
    [["red"]],
    [None],
    {"x": None},
    {1: 2},
    {"x": "red"},
    {"x": [[1, 2, 3], [4]]},
    {None: [[1.0, 2.0, 3.0]]},
    {"x": {"y": 1}},
    object(),
    Hostile(),
    len,
    np.array("red"),
    np.array([["red"]]),
    np.array([[object()]]),
    np.zeros((0, 3)),
    np.zeros((2, 3), complex),
    np.float64(3),
    {"x": np.zeros((2, 3), "datetime64[s]")},
    {"x": Hostile()},
    [Hostile()],
    range(3),
    iter([1, 2]),
    ("x", "y", "z"),
    [(-4, 4), (-4, 4)],
    {"x": (-4, 4, 4)},
    {"x": (None, 4)},
    {"x": 3},
    {"x": ((1,),)},
)
"""What people and programs put where something else belongs."""


def refused_or_taken(call: Any, *arguments: Any, **more: Any) -> None:
    """An argument is taken, or refused by an error of ours that says what to do; Python's own errors never get out."""
    try:
        found = call(*arguments, **more)
    except MpcError as error:
        assert error.exit_code in (2, 3, 4, 5), (arguments, more, str(error))
        assert error.code in ("usage", "input", "model", "config", "plan", "policy"), (arguments, more, str(error))
    else:
        if hasattr(found, "abandon"):
            found.abandon()


@pytest.mark.filterwarnings("ignore:no range is declared for input:mpc.errors.MpcWarning")
@pytest.mark.parametrize("odd", range(len(ODD)))
def test_no_argument_ends_in_a_traceback(client: Cluster, session: Session, model: Path, odd: int) -> None:
    given = ODD[odd]
    x = data(1)
    refused_or_taken(session.run, given, {"x": x})
    refused_or_taken(session.run, None, given)
    refused_or_taken(session.run, None, {"x": given})
    if not (isinstance(given, int) and given > 1):
        refused_or_taken(session.run, None, {"x": x}, given)
    refused_or_taken(client.session, given)
    for name in ("ranges", "owners", "recipients", "samples", "shapes", "batch", "weights", "link"):
        refused_or_taken(client.session, model, **{name: given})
    for name in ("runs", "batch", "sessions", "ranges", "other"):
        if not (isinstance(given, int) and given > 1):
            refused_or_taken(client.deal, model, **{"runs": 1, name: given})
    refused_or_taken(client.open, given)
    refused_or_taken(client.join, given)
    refused_or_taken(client.join, session.ticket, given)
    refused_or_taken(Cluster.connect, given)
    for name in ("parties", "threads", "clients", "link"):
        if name != "threads" or not isinstance(given, int):
            refused_or_taken(broken, **{name: given})
    assert session.run(None, {"x": x})


def broken(**more: Any) -> None:
    """A cluster that starts nothing: what is wrong is found before, or there is nothing wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parties.local.launcher.start", stop)
        try:
            Cluster.local(**{"parties": 2, **more})
        except Nothing:
            return


class Nothing(Exception):
    pass


def stop(*_: Any, **__: Any) -> None:
    raise Nothing


def test_the_odd_things_are_odd(session: Session) -> None:
    """Most of them are refused as data, one by one, with a remedy."""
    refusals = 0
    for given in itertools.chain(ODD, ({"x": one} for one in ODD)):
        try:
            session.run(None, given)
        except (UsageError, InputError) as error:
            refusals += 1
            assert error.remedy, str(error)
    assert refusals == 2 * len(ODD)
