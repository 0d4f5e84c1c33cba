"""Owners' words about the use of their data: grants, budgets and revocations, each signed under a tag of its own.

A grant says what may be computed, by whom, for whom, how often and until when; a budget what all answers about one
dataset may tell of a person, over all its versions.  Nothing follows from what else a coordinator says: parties keep
these bytes as they were signed, and decide by them (`parties/party/consent`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from mpc.encoding import digest
from mpc.errors import IntegrityError
from mpc.wires import Frozen
from parties.agreed.fields import Cluster, DatasetName, Digest, Moment, Process
from parties.agreed.questions import ANY, MOST_NAMES, Count, Delta, Epsilon, ExactPlan, Names, Question, distinct
from parties.agreed.signed import Signed, dump, read
from parties.trust.chains import Clock, Trust
from parties.trust.identity import Identity

LARGEST = 1 << 18
"""Bytes of the largest grant."""


class Statement(Frozen):
    """Fields and signatures that all these words have.

    Args:
        cluster: the cluster's id; another cluster's word counts for nothing here.
    """

    TAG: ClassVar[str]
    WHAT: ClassVar[str]

    cluster: Cluster
    owner: Process

    def sign(self, identity: Identity) -> Signed:
        """Sign the statement, as its owner."""
        return Signed.make(identity, self.TAG, dump(self.model_dump(mode="json")))

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a statement from its one encoding; raise InputError if it is malformed."""
        return read(cls, content, LARGEST, cls.WHAT)

    @classmethod
    def verify(cls, trust: Trust, signed: Signed, cluster: str | None, clock: Clock) -> Self:
        """Return the statement, if the owner that it names signed it for this cluster.

        Args:
            clock: when the owner's certificate has to be valid: now, for a lapsed certificate lapses its words.

        Raises:
            IntegrityError: another signer, another signature or another cluster.
            InputError: it is malformed.
        """
        found = cls.parse(signed.content)
        if found.cluster != cluster:
            raise IntegrityError(f"{cls.WHAT} is for another cluster", peer=found.owner)
        signed.check(trust, cls.TAG, found.owner, clock)
        return found


class Grant(Statement):
    """An owner's permission.

    Args:
        dataset: the object's id, 64 hex digits, or OWNER/NAME for all its versions: then not for exact plans.
        parties, provider: which ones; the seeds of the data go to no other provider.
        coordinators: who may ask.
        recipients: who may learn answers.
        uses: runs, or None for as many as the other limits allow.
        security: "active": only of sessions whose runs are checked before anything of them is told, and that read
            nothing kept in unchecked ones.
        created, not_before, expires: seconds since 1970.
    """

    TAG, WHAT = "mpc/v1/grant", "a grant"

    format: Literal["mpc-grant-1"] = "mpc-grant-1"
    dataset: Digest | DatasetName
    parties: Annotated[tuple[Process, ...], Field(min_length=2, max_length=256), AfterValidator(distinct)]
    provider: Process
    coordinators: Names
    recipients: Names
    uses: Count | None = None
    security: Literal["active"] | None = None
    created: Moment
    not_before: Moment
    expires: Moment
    question: Question

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if self.security is None:  # the bytes of a grant of any session are as before
            content.pop("security", None)
        return content

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.expires <= self.not_before:
            raise ValueError("it expires before it begins")
        if self.by_name and self.dataset.partition("/")[0] != self.owner:
            raise ValueError("the dataset is somebody else's")
        dp, exact = self.question.dp, self.question.exact
        if dp is not None and any(name.partition("/")[0] == self.owner for name in dp.apart):
            raise ValueError("people of one owner's datasets are never apart: they share a budget instead")
        if exact is not None and self.by_name:
            raise ValueError("exact plans are of one version of a dataset, which is named by its id")
        reading = [] if exact is None else [self._reads(plan) for plan in exact.plans]
        if exact is not None and not (
            any(reading)
            and all(reads or ANY in plan.weights.values() for reads, plan in zip(reading, exact.plans, strict=True))
        ):
            raise ValueError("a plan does not read the dataset that it is granted of")
        if exact is not None and exact.outputs_bits is not None and self.uses is None:
            raise ValueError("a grant of bits says how many")
        return self

    def _reads(self, plan: ExactPlan) -> bool:
        bound = [*plan.bindings.values(), *(each for each in plan.weights.values() if not isinstance(each, str))]
        every = [one for each in bound for one in (each if isinstance(each, tuple) else (each,))]
        return any(each.dataset == self.dataset for each in every)

    @property
    def by_name(self) -> bool:
        """Is it of all versions of a name?"""
        return "/" in self.dataset

    @property
    def id(self) -> str:
        """64 hex digits: the digest of its bytes."""
        return grant_id(dump(self.model_dump(mode="json")))


def grant_id(content: bytes) -> str:
    """Digest a grant's canonical bytes: its id, 64 hex digits."""
    return digest("mpc/v1/grant-id", content).hex()


class Revocation(Statement):
    """An owner's word that a grant of its own holds no more.

    Args:
        revokes: the grant's id.
        at: seconds since 1970, as the owner says; nothing follows from it.
    """

    TAG, WHAT = "mpc/v1/revocation", "a revocation"

    format: Literal["mpc-revocation-1"] = "mpc-revocation-1"
    revokes: Digest
    at: Moment


class Budget(Statement):
    """Limit on what all noised answers about a dataset may tell of one person, over all its versions and for good.

    The highest sequence counts.  It may be lower than an earlier one; what is spent is spent.

    Args:
        group: further datasets of this owner that the budget is of too: what is spent on any of them is spent of it.
    """

    TAG, WHAT = "mpc/v1/budget", "a budget"

    format: Literal["mpc-budget-1"] = "mpc-budget-1"
    dataset: DatasetName
    sequence: Count
    epsilon: Epsilon
    delta: Delta
    group: Annotated[tuple[DatasetName, ...], Field(max_length=MOST_NAMES), AfterValidator(distinct)] = ()

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if not self.group:  # the bytes of a budget of one dataset are as before
            content.pop("group", None)
        return content

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of all datasets that it is of."""
        return (self.dataset, *self.group)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(name.partition("/")[0] != self.owner for name in self.group) or self.dataset in self.group:
            raise ValueError("a group is of other datasets of the owner's")
        if self.dataset.partition("/")[0] != self.owner:
            raise ValueError("the dataset is somebody else's")
        return self
