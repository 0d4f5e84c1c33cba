"""Notes on a model's nodes: what is to be said of many of them is said once."""

from __future__ import annotations

from mpc.compiler.graph.graph import Origin
from mpc.compiler.graph.notes import Notes


def test_a_note_that_is_of_many_nodes_is_told_once_and_names_the_first() -> None:
    notes = Notes()
    for layer in range(12):
        notes.of(Origin(f"layer {layer}", "Softmax"), "scores are large")
    notes.add("bounds rest on samples")
    for node in ("a", "b", "b"):
        notes.of(Origin(node, "Div"), "it could be zero")
    notes.of(Origin("c", "Sqrt"), "it could be zero")
    assert notes.told() == [
        "nodes 'layer 0', 'layer 1', 'layer 2' and 9 more (Softmax): scores are large",
        "bounds rest on samples",
        "nodes 'a' and 'b' (Div): it could be zero",
        "node 'c' (Sqrt): it could be zero",
    ]
