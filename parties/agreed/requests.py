"""Requests: what somebody asks, as every party shows it to its operator and to the owners of the data, byte for byte.

Each party makes the record by itself from public bytes: the plan, the session's terms, the owners' manifests.  Its
digest is the request's id, so two operators can compare what they see over the telephone.  Whatever a session could
be told apart by is in it, but for the nonces, and the version and times of what is kept: an approval of one record is
of nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer

from mpc.encoding import digest
from mpc.errors import InputError, PlanError
from mpc.plan.plan import Plan, Security
from mpc.plan.program import Program
from mpc.privacy.facts import DELTA_UNIT, Loss
from mpc.text import check_name
from mpc.wires import Dimension, Frozen
from parties.agreed import programs
from parties.agreed.fields import DatasetName, Digest, Process, Text
from parties.agreed.objects import Manifest
from parties.agreed.questions import Count
from parties.agreed.request_words import lines_of
from parties.agreed.signed import dump, read
from parties.agreed.terms import Terms

LARGEST = 1 << 18
"""Bytes of the largest record; what would make a larger one does not wait."""
_MOST = 20_000
_SHOWN = 16


def how_to_approve(request: str) -> str:
    """Return the commands with which a party's operator looks at a request and approves it."""
    return " and ".join(f"mpc {verb} {request[:_SHOWN]} --party config.toml" for verb in ("requests show", "approve"))


def _plain(name: str) -> str:
    try:
        check_name(name, "a name")
    except PlanError as error:
        raise ValueError(error.cause or error.what) from None
    return name


Wire = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)]
"""A name in a plan."""
Shape = Annotated[tuple[Dimension, ...], Field(max_length=64)]
Names = Annotated[tuple[Process, ...], Field(max_length=256)]


class Reads(Frozen):
    """Rows at the parties that a wire stands for.

    Args:
        input: its name in the model; None for a weight.
        object: the id of that version.
        of: rows that it has in all.
        unchecked: it was kept in a session whose runs were not checked, and is read in one whose runs are.
    """

    wire: Wire
    input: Wire | None
    dataset: DatasetName
    version: Annotated[int, Field(ge=1)]
    object: Digest
    columns: Annotated[tuple[Text, ...], Field(min_length=1, max_length=4096)]
    first: Annotated[int, Field(ge=0, lt=1 << 40)]
    rows: Count
    of: Count
    unchecked: bool = False

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if not self.unchecked:  # the bytes of all other lines are as before
            del content["unchecked"]
        return content


class Enters(Frozen):
    """An input that somebody enters for each run, of whatever values."""

    input: Wire
    owner: Process
    shape: Shape


class Weighs(Frozen):
    """Arrays of weights that somebody enters once a session; public ones are told to all parties and the provider."""

    owner: Process
    arrays: Annotated[int, Field(ge=1, le=_MOST)]
    public: bool


class HandsOn(Frozen):
    """A state, which each run writes and the next one of the session reads.

    Args:
        begins: with zeros, or with an array that somebody tells in public or enters.
        who: whose that array is.
    """

    state: Wire
    shape: Shape
    begins: Literal["zeros", "public", "secret"]
    who: Names


class Learns(Frozen):
    """An output, and who is told it.

    Args:
        kept: it stays at the parties besides, as an object.
    """

    output: Wire
    recipients: Names
    shape: Shape
    kept: bool


class Keeps(Frozen):
    """An object that outputs become, and who may see it; its version and its times are those of the day it is made."""

    name: DatasetName
    outputs: Annotated[tuple[Wire, ...], Field(min_length=1, max_length=256)]
    visible: Annotated[tuple[str, ...], Field(max_length=1024)]


class Proves(Frozen):
    """Bound of what one run tells of a person through a dataset.

    Args:
        epsilon, delta: in billionths and in units of 10^-18, rounded up; None: nothing is proved, the answer is exact.
        apart: other datasets that are read, if the bound is of a person who is in none of these.
    """

    dataset: DatasetName
    epsilon: Annotated[int, Field(ge=0)] | None
    delta: Annotated[int, Field(ge=0)] | None
    apart: Annotated[tuple[DatasetName, ...], Field(max_length=_MOST)] = ()

    @classmethod
    def of(cls, dataset: str, loss: Loss | None, apart: tuple[str, ...] = ()) -> Self:
        """Make the record of what is proved of a dataset, if anything is."""
        if loss is None:
            return cls(dataset=dataset, epsilon=None, delta=None)
        return cls(dataset=dataset, epsilon=loss.charge, delta=-(-loss.delta * DELTA_UNIT // 1), apart=apart)

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if not self.apart:  # the bytes of a bound of everybody are as before
            del content["apart"]
        return content


class Request(Frozen):
    """One question that somebody asks.

    Args:
        cluster: its id; None if the parties have none.
        key: digest of the coordinator's public key.
        plan: digest of its bytes.
        gates: how many there are of each kind.
        states: what runs hand on.
        program: what differs from run to run: rows, rates, and which outputs are told when; None: nothing does.
        security: "active" if each run is checked before anything of it is told.
    """

    format: Literal["mpc-request-1"] = "mpc-request-1"
    cluster: str | None
    provider: Process
    parties: Annotated[tuple[Process, ...], Field(min_length=2, max_length=256)]
    coordinator: Process
    key: Digest
    plan: Digest
    gates: Annotated[dict[str, int], Field(max_length=256)]
    reads: Annotated[tuple[Reads, ...], Field(max_length=_MOST)]
    enters: Annotated[tuple[Enters, ...], Field(max_length=_MOST)]
    weighs: Annotated[tuple[Weighs, ...], Field(max_length=_MOST)]
    learns: Annotated[tuple[Learns, ...], Field(min_length=1, max_length=_MOST)]
    keeps: Annotated[tuple[Keeps, ...], Field(max_length=256)]
    proves: Annotated[tuple[Proves, ...], Field(max_length=_MOST)]
    states: Annotated[tuple[HandsOn, ...], Field(max_length=1024)] = ()
    program: Program | None = None
    security: Security = "passive"

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if self.security == "passive":
            del content["security"]
        if not self.states and self.program is None:  # the bytes of a request without are as before
            del content["states"], content["program"]
        return content

    @classmethod
    def parse(cls, content: bytes) -> Request:
        """Read a record from its one encoding; raise InputError if it is malformed."""
        return read(cls, content, LARGEST, "a request")

    @property
    def content(self) -> bytes:
        """Canonical bytes."""
        return dump(self.model_dump(mode="json"))

    @property
    def id(self) -> str:
        """64 hex digits: the digest of its bytes."""
        return request_id(self.content)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that it reads, each once."""
        return tuple(dict.fromkeys(each.dataset for each in self.reads))

    @property
    def owners(self) -> tuple[str, ...]:
        """Names of the owners of these, each once."""
        return tuple(dict.fromkeys(name.partition("/")[0] for name in self.datasets))

    @property
    def recipients(self) -> tuple[str, ...]:
        """Names of all that learn something, in order."""
        return tuple(sorted({name for each in self.learns for name in each.recipients}))

    @property
    def handed_on(self) -> dict[str, Any]:
        """Return states and the program, as `programs.said` reads them."""
        program = None if self.program is None else self.program.model_dump(mode="json", exclude_none=True)
        return {"states": [each.model_dump(mode="json") for each in self.states], "program": program}

    @property
    def lines(self) -> tuple[str, ...]:
        """Text for people, equal wherever it is shown."""
        return lines_of(self)


def request_id(content: bytes) -> str:
    """Digest a record's canonical bytes: the request's id, 64 hex digits."""
    return digest("mpc/v1/request", content).hex()


def make_request(
    plan: Plan,
    terms: Terms,
    cluster: str | None,
    coordinator: str,
    key: bytes,
    manifests: Mapping[bytes, Manifest],
    proves: Sequence[Proves],
) -> Request:
    """Describe a session before it is opened.

    Args:
        coordinator, key: who asks, and the digest of its public key.
        manifests: of the objects that are bound, by id.
        proves: what a run tells of a person through each dataset.

    Raises:
        InputError: the record would be too large.
    """
    inputs = {wire: given.name for given in plan.inputs for wire in given.wires}
    weights = Counter((_holder(plan, gate.out), gate.is_public(plan.wire)) for gate in plan.entered_once)
    try:
        made = Request(
            cluster=cluster,
            provider=terms.provider,
            parties=terms.parties,
            coordinator=coordinator,
            key=key.hex(),
            plan=terms.plan_digest.hex(),
            gates=dict(sorted(Counter(gate.kind for gate in plan.gates).items())),
            reads=tuple(
                Reads(
                    wire=each.wire,
                    input=inputs.get(each.wire),
                    dataset=manifests[each.object].name,
                    version=manifests[each.object].version,
                    object=each.object.hex(),
                    columns=each.columns,
                    first=each.first,
                    rows=each.rows,
                    of=manifests[each.object].rows,
                    unchecked=plan.is_checked and not manifests[each.object].is_checked,
                )
                for each in terms.bindings
            ),
            enters=tuple(
                Enters(input=each.name, owner=_holder(plan, each.wire), shape=plan.wire[each.wire].shape)
                for each in plan.entered_inputs
            ),
            weighs=tuple(
                Weighs(owner=owner, arrays=arrays, public=public) for (owner, public), arrays in sorted(weights.items())
            ),
            learns=tuple(
                Learns(
                    output=each.name,
                    recipients=tuple(sorted(plan.wire[each.wire].holders)),
                    shape=each.shape,
                    kept=each.keep,
                )
                for each in plan.outputs
            ),
            keeps=tuple(Keeps(name=each.name, outputs=each.outputs, visible=each.visible) for each in terms.keeps),
            proves=tuple(sorted(proves, key=lambda each: each.dataset)),
            states=tuple(HandsOn.model_validate(each) for each in programs.described(plan).get("states", ())),
            program=plan.program,
            security=plan.security,
        )
        content = made.content
    except ValueError as error:
        raise InputError("what is asked cannot be written down as a request", cause=str(error)[:200]) from None
    if len(content) > LARGEST:
        raise InputError(f"a request of {len(content):,} bytes, where {LARGEST:,} can wait for a word")
    return made


def _holder(plan: Plan, wire: str) -> str:
    return plan.wire[wire].holders[0]
