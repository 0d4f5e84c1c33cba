"""The running digest of what was opened tells any two histories apart."""

from __future__ import annotations

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mpc.transcript import Transcript
from tests.support import crypto
from tests.support.effort import examples

entries = st.lists(st.tuples(st.integers(0, 9), st.text(max_size=3), st.binary(max_size=4)), max_size=4)


def digest(history: list, *context: str) -> bytes:
    transcript = Transcript(*context)
    for entry in history:
        transcript.absorb(*entry)
    return transcript.digest


@examples(100)
@given(entries, entries)
def test_equal_only_for_equal_histories(first: list, second: list) -> None:
    assert (digest(first) == digest(second)) == (first == second)


def test_it_is_blake3_over_the_canonical_encodings() -> None:
    encoded = (
        crypto.canonical("mpc/v1/transcript", "s") + crypto.canonical(0, "gate", b"x") + crypto.canonical(1, "g", b"")
    )
    assert digest([(0, "gate", b"x"), (1, "g", b"")], "s") == blake3(encoded).digest()


def test_context_and_order_count() -> None:
    a, b = (0, "g", b"1"), (0, "g", b"2")
    assert len({digest([a, b]), digest([b, a]), digest([a]), digest([a, b], "c"), digest([a, b], "d"), digest([])}) == 6


def test_reading_the_digest_does_not_end_it() -> None:
    transcript = Transcript()
    before = transcript.digest
    assert transcript.digest == before
    transcript.absorb("more")
    assert transcript.digest != before
