"""Asking: a question is compiled, a session bound to its dataset runs it once, and its reader finishes the sums."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.noising import Noising
from mpc.errors import ModelError, MpcError, PolicyError, SessionError, UsageError, warn
from mpc.privacy.facts import Loss, StoredFacts
from mpc.privacy.gaussian import MOST_DELTA
from mpc.privacy.law import MOST_EPSILON
from mpc.text import shown
from mpc.wires import MAX_BATCH
from parties.agreed.objects import Manifest
from parties.client.at_rest import bound
from parties.client.consent.remaining import Remaining, affordable, remaining
from parties.client.consent.told import Amount
from parties.client.questions import model
from parties.client.questions.expression import ROWS, Node, columns
from parties.client.questions.kinds import kinds
from parties.client.questions.refusals import Asked, exact_is_private, missing, private
from parties.client.running.roles import PASSIVE, PUBLIC, assign, read_link
from parties.client.selection import Selection
from parties.client.session import Session

if TYPE_CHECKING:
    from mpc.plan.link import Link
    from mpc.plan.plan import Security
    from parties.client.channels import Parties
    from parties.client.questions.aggregates import Question
    from parties.client.questions.values import Values


@dataclass(frozen=True)
class Answer:
    """An answer.

    Args:
        value: a number, or an array of them.
        std: standard deviation of the noise in it, of each element if they differ; 0 if it is exact.
        epsilon: what was asked for; None if it is exact.
        left: epsilon that is left of the dataset's budget, if one is set and the parties tell; prints as how many more
            questions like this one that is, and `left.more` is their number.
        labels: what each element is about, of a question by categories.
        delta: what the answer costs beside epsilon; 0 if it is exact.
        mechanism: which noise: "laplace", "gaussian", or "gaussian+laplace" on different sums; None if it is exact.
    """

    value: Any
    std: Any
    epsilon: Fraction | None
    left: Remaining | None = None
    labels: tuple[str, ...] = ()
    delta: Fraction = Fraction(0)
    mechanism: str | None = None

    def __str__(self) -> str:
        if self.epsilon is None:
            return f"{self.value}, exactly"
        value, std = _rounded(self.value, self.std), _rounded(self.std, self.std)
        told = f"{value}, give or take {std} (one standard deviation), at epsilon {Amount(self.epsilon)}"
        return told if self.left is None else f"{told}; left: {self.left}"

    def __repr__(self) -> str:
        return f"<{self}>"


def get(
    question: Question,
    epsilon: Any,
    mechanism: Any = None,
    delta: Any = None,
    wait: float = 0.0,
    link: Link | str | None = None,
) -> Answer:
    """Ask a question once; the other arguments are `Question.get`'s.

    Args:
        wait: seconds to wait for words that are missing, its owner's or an operator's.

    Raises:
        PrivateDataError: somebody's word is missing still: whose, and which command says it; or an exact answer is
            somebody else's.
        ModelError: nothing is proved of it.
    """
    pointer = question.pointer
    parties = _require_parties(pointer)
    rows = pointer.manifest.rows
    if epsilon is None:
        if question.exact is not None:
            node, finish = question.exact
            [rows_read] = _rows(pointer, {"values": node}, question.text, wait, link).values()
            return Answer(_plain(finish(rows_read)), 0.0, None)
        values = _rows(pointer, question.sums, question.text, wait, link)
        sums = {name: np.asarray(value.sum(axis=0), dtype=float) for name, value in values.items()}
        value, _ = question.finish(sums, dict.fromkeys(sums, 0.0), rows)
        return Answer(_plain(value), 0.0, None, labels=question.labels)
    spent = as_epsilon(epsilon)
    compiled = compiled_with_noise(question, spent, parties.identity.name, mechanism, delta, link)
    answers = _run(parties, compiled, pointer.manifest, question.read, question.text, spent, wait)
    sums = {name: np.asarray(value, dtype=float) for name, value in answers.items()}
    value, spread = question.finish(sums, deviations(compiled), rows)
    cost, kinds = _cost(compiled)
    left = _left(parties, pointer.manifest, cost)
    return Answer(_plain(value), _plain(spread), spent, left, question.labels, cost.delta, kinds)


def rows_of(pointer: Values, epsilon: Any, wait: float = 0.0, link: Link | str | None = None) -> Answer:
    """Return the values of rows to their owner.

    Raises:
        UsageError: noise is asked for, which is for sums.
        PrivateDataError: they are somebody else's.
    """
    if epsilon is not None:
        raise UsageError(
            "noise protects people in sums over rows, not their rows",
            remedy="x.mean().get(epsilon=0.5); also sum, count, var, std, histogram(edges), quantile(q), group_by",
        )
    _require_parties(pointer)
    name = repr(pointer).strip("<>").removesuffix(", private")
    [values] = _rows(pointer, {"values": pointer.node}, name, wait, link).values()
    return Answer(values, 0.0, None)


def explain(
    question: Question, epsilon: Any, mechanism: Any = None, delta: Any = None, link: Link | str | None = None
) -> str:
    """Say what a question reads, whose that is, and what it costs."""
    manifest, sums = question.pointer.manifest, len(question.sums)
    told = [
        question.text,
        f"reads {', '.join(map(shown, question.read))}, which are {manifest.owner}'s: {manifest.rows:,} rows, at most "
        f"{manifest.rows_per_person} of one person",
        f"computed as {sums} sum{'s that share the epsilon evenly' * (sums > 1)} over the rows",
    ]
    if epsilon is None:
        told.append("costs the epsilon that is asked with: .get(epsilon=0.5), .explain(epsilon=0.5)")
        return "\n".join(told)
    spent = as_epsilon(epsilon)
    parties = question.pointer.parties
    me = "asker" if parties is None else parties.identity.name
    compiled = compiled_with_noise(question, spent, me, mechanism, delta, link)
    spreads = ", ".join(f"{value:.3g}" for value in deviations(compiled).values())
    cost, noises = _cost(compiled)
    told.append(
        f"costs epsilon {float(spent):g} of {manifest.name}, delta {float(cost.delta):.2g}; {noises} noise of standard "
        f"deviation {spreads} on the sums"
    )
    return "\n".join(told)


def compiled_with_noise(
    question: Question,
    epsilon: Fraction,
    me: str,
    mechanism: Any = None,
    delta: Any = None,
    link: Link | str | None = None,
) -> Compiled:
    """Compile a question's sums, each with noise for its part of an epsilon.

    Raises:
        UsageError: a run cannot take so many rows, or the link is none.
        ModelError: nothing is proved of it.
    """
    manifest = question.pointer.manifest
    if manifest.rows > MAX_BATCH:
        raise UsageError(
            f"a question goes over all rows in one run: {manifest.rows:,}, where {MAX_BATCH:,} are possible",
            remedy=f"{manifest.owner} can put the rows as several datasets that share a budget (mpc budget set NAME "
            "--with OTHER --epsilon E); ask about each, and add the answers up",
        )
    data = _selections(manifest, question.read)
    origin = f"{manifest.id.hex()}:0"
    facts = {name: StoredFacts(manifest.rows, manifest.rows_per_person, origin) for name in data}
    parts = dict.fromkeys(_outputs(question.sums), epsilon / len(question.sums))
    sums = list(question.sums.values())
    mechanisms, most = kinds(question.pointer.parties, manifest, sums, epsilon, mechanism, delta)
    part = min(most / len(sums), MOST_DELTA)
    noise = Noising(parts, most=manifest.rows, stored=facts, mechanisms=mechanisms, delta=part)
    return _compiled(_outputs(question.sums), True, data, me, noise, question.pointer.parties, link)


def deviations(compiled: Compiled) -> dict[str, float]:
    """Return the standard deviation of the noise on each of a question's sums."""
    return {name.removesuffix(_SUFFIX): spread for name, spread in compiled.deviations.items()}


def as_epsilon(epsilon: Any) -> Fraction:
    """Read an epsilon as it is written: 0.1 is a tenth.

    Raises:
        UsageError: it is none.
    """
    try:
        found = Fraction(str(epsilon))
    except ValueError:
        found = Fraction(0)
    if isinstance(epsilon, bool) or not 0 < found <= MOST_EPSILON:
        raise UsageError(f"an epsilon of {epsilon!r}", remedy=f"a number above 0 and up to {MOST_EPSILON}")
    return found


_SUFFIX = " over rows"
"""Ends the names of outputs, which a column's name might equal otherwise."""


def _outputs(sums: Mapping[str, Node]) -> dict[str, Node]:
    return {name + _SUFFIX: node for name, node in sums.items()}


def _selections(manifest: Manifest, names: tuple[str, ...]) -> dict[str, Selection]:
    return {name: Selection(manifest, (name,), False) for name in names}


def _compiled(
    ends: Mapping[str, Node],
    summed: bool,
    data: Mapping[str, Selection],
    me: str,
    noise: Noising | None,
    parties: Parties | None,
    link: Link | str | None,
) -> Compiled:
    security: Security = PASSIVE if parties is None else parties.config.security
    between, rows = read_link(link), max((each.manifest.rows for each in data.values()), default=1)
    whole = None if between is None else between.for_rows(rows)  # one run takes all of them
    roles = assign(me, bound.owners(data), weights=PUBLIC, security=security, link=whole)
    stored = {name: bound.described(selection) for name, selection in data.items()}
    try:
        return compile_model(model.write(ends, summed), roles=roles, stored=stored, noise=noise)
    except ModelError as refused:
        if refused.remedy is None or "--range" not in refused.remedy:
            raise
        raise refused.with_(
            remedy="narrow it first: np.clip(x, low, high), or divide by a constant; ranges are the owner's word"
        ) from None


def _rows(
    pointer: Values, ends: Mapping[str, Node], text: str, wait: float, link: Link | str | None
) -> dict[str, np.ndarray]:
    """Return values of rows, which are the asker's own."""
    manifest, parties = pointer.manifest, _require_parties(pointer)
    me = parties.identity.name
    names = tuple(columns(*ends.values()))
    if manifest.owner != me:
        raise exact_is_private(Asked(manifest, me, text, None, affordable(parties, manifest)))
    for node in ends.values():
        if node.shape[:1] != (ROWS,):
            raise UsageError("this has no rows", remedy="compute with columns")
    compiled = _compiled(_outputs(ends), False, _selections(manifest, names), me, None, parties, link)
    return _run(parties, compiled, manifest, names, text, None, wait)


def _run(
    parties: Parties,
    compiled: Compiled,
    manifest: Manifest,
    names: tuple[str, ...],
    text: str,
    epsilon: Fraction | None,
    wait: float,
) -> dict[str, np.ndarray]:
    """Run a plan once, on all rows; nothing is dealt before all have allowed it."""
    read = _selections(manifest, names)
    bindings = bound.bindings(compiled.plan, read)
    for note in bound.unchecked(read, compiled.plan):
        warn(note)
    asked = Asked(manifest, parties.identity.name, text, epsilon)
    try:
        session = Session(parties, compiled, bindings=bindings, wait=wait)
    except (PolicyError, SessionError) as refused:
        asked = replace(asked, affordable=affordable(parties, manifest))
        raise private(asked, refused, missing(parties, compiled.plan, bindings)) from refused
    try:
        found = session.run(None, {})
        with suppress(MpcError):  # the answer is here, and paid for
            session.close()
    except PolicyError as refused:  # parties decide again before they tell
        raise private(asked, refused) from refused
    finally:
        session.abandon()
    return {out.name.removesuffix(_SUFFIX): value for out, value in zip(compiled.plan.outputs, found, strict=True)}


def _left(parties: Parties, manifest: Manifest, cost: Loss) -> Remaining | None:
    """Return what is left of a dataset's budget, if one is set and told: the answer is here in any case."""
    with suppress(MpcError):
        return remaining(parties, manifest, cost)
    return None


def _cost(compiled: Compiled) -> tuple[Loss, str]:
    """Return what a run costs, and which noise it has."""
    if compiled.guarantee is None:
        return Loss(), ""
    wires = [gate.out for gate in compiled.plan.stored]
    return compiled.guarantee.of(wires), "+".join(compiled.guarantee.mechanisms(wires))


def _require_parties(pointer: Values) -> Parties:
    if pointer.parties is None:
        raise UsageError(
            "this dataset was described without a cluster to ask", remedy="cluster.dataset('owner/name') has one"
        )
    return pointer.parties


def _rounded(value: Any, std: Any) -> str:
    """Write numbers as finely as the first two digits of the smallest standard deviation above 0 are."""
    noisy = np.asarray(std, dtype=float).reshape(-1)
    noisy = noisy[np.isfinite(noisy) & (noisy > 0)]
    if not noisy.size:
        return str(value)
    places = 1 - int(np.floor(np.log10(noisy.min())))
    rounded = np.round(np.asarray(value, dtype=float), places)
    return f"{float(rounded):.{max(places, 0)}f}" if rounded.ndim == 0 else str(rounded)


def _plain(value: Any) -> Any:
    """Return a number where an array has no axes."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value)
