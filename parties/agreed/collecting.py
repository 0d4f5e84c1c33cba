"""Collections: rows that many clients enter, one each, of which one noised sum is told and nothing else.

Whoever collects signs what every client consents to before it enters anything: the column, how many clients there have
to be, until when, the one plan that will read the rows, its epsilon and delta, and who learns the sum.  A client's row
is an object of its own, a *contribution*, that names the collection.  When the collection is closed each party signs
the list of those that it has, once and for good; what stands in all lists is the *gathered* object, a block for each,
which all parties sign.  Everything here follows from public bytes, at each party by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mpc.encoding import digest
from mpc.errors import IntegrityError, SessionError
from mpc.privacy.facts import GAUSSIAN, Mechanism
from mpc.wires import Frozen
from parties.addresses import ANY
from parties.agreed.columns import Column
from parties.agreed.fields import OBJECT_NAME, Cluster, DatasetName, Digest, Moment, Process
from parties.agreed.grants import Statement
from parties.agreed.objects import Schema
from parties.agreed.questions import Clients, Delta, Epsilon, Names
from parties.agreed.signed import Signed, dump, read
from parties.trust.chains import Clock, Trust
from parties.trust.identity import Identity

MOST_CONTRIBUTIONS = 10_000
"""Contributions of one collection that count."""
FEWEST_SPARE, SPARE = 16, 4
"""Places at a party beside those that count: so many at least, else one for so many that count."""
MOST_LISTED = MOST_CONTRIBUTIONS + MOST_CONTRIBUTIONS // SPARE
LARGEST_LIST = 1 << 20
FEWEST = 2
"""Clients without whom there is no sum of several."""
SUM_TOLD = "its sum has been told"
"""The reason that parties give for a second sum, which nobody's word allows."""
_LIST = "mpc/v1/contributions"


def _sorted(ids: tuple[str, ...]) -> tuple[str, ...]:
    if list(ids) != sorted({*ids}):
        raise ValueError("contributions are sorted, each of them once")
    return ids


class Collection(Statement):
    """A collection, as whoever collects has signed it.

    Args:
        owner: who collects, coordinates the one session, and names what is gathered.
        name: "OWNER/NAME", which the gathered object will have.
        column: of the rows.
        at_least, at_most: contributions; with fewer nothing is ever told, and with as many as there may be it may be
            closed before its time.
        contributors: who may enter a row, one each; ("any",) for every client that the parties let put data.
        recipients: who learn the sum.
        mechanism, epsilon, delta: what the sum costs each person, at most.
        plan: digest of the one plan that reads the rows.
        until: seconds since 1970, until when rows are entered, and before which it is not closed.
        expires: when all of it is erased, told or not.
    """

    TAG: ClassVar[str] = "mpc/v1/collection"
    WHAT: ClassVar[str] = "a collection"

    format: Literal["mpc-collection-1"] = "mpc-collection-1"
    name: DatasetName
    parties: Annotated[tuple[Process, ...], Field(min_length=2, max_length=256)]
    provider: Process
    column: Column
    at_least: Annotated[int, Field(ge=FEWEST, le=MOST_CONTRIBUTIONS)]
    at_most: Annotated[int, Field(ge=FEWEST, le=MOST_CONTRIBUTIONS)]
    contributors: Clients = (ANY,)
    recipients: Names
    mechanism: Mechanism = GAUSSIAN
    epsilon: Epsilon
    delta: Delta
    plan: Digest
    created: Moment
    until: Moment
    expires: Moment

    @model_validator(mode="after")
    def _check(self) -> Self:
        owner, _, rest = self.name.partition("/")
        if owner != self.owner or not OBJECT_NAME.fullmatch(rest):
            raise ValueError("its name is OWNER/NAME")
        if self.at_most < self.at_least:
            raise ValueError("it takes fewer contributions than it needs")
        if not self.created < self.until < self.expires:
            raise ValueError("it is made, then closed, and then it expires")
        if self.column.missing_of is not None:
            raise ValueError("its column marks missing numbers of another one")
        if not self.epsilon:
            raise ValueError("its sum has noise: epsilon is above 0")
        return self

    @property
    def id(self) -> str:
        """64 hex digits: the digest of its bytes."""
        return collection_id(dump(self.model_dump(mode="json")))

    @property
    def places(self) -> int:
        """Contributions that a party takes: `at_most`, and some to spare.

        A party knows of none whether all parties have it: a client may vanish half way, and its place would be one that
        nobody else can take.
        """
        return self.at_most + max(FEWEST_SPARE, self.at_most // SPARE)

    def takes(self, client: str) -> bool:
        """May this client enter a row?"""
        return self.contributors == (ANY,) or client in self.contributors


def collection_id(content: bytes) -> str:
    """Digest a collection's canonical bytes: its id, 64 hex digits."""
    return digest("mpc/v1/collection-id", content).hex()


def contribution_name(client: str, collection: str) -> str:
    """Name a client's one row of a collection: a name that is spent takes no second one."""
    return f"{client}/in-{collection[:32]}"


def contribution_fault(schema: Schema, collection: Collection) -> str | None:
    """Say why an object is no contribution of a collection, whoever has put it; None if it is one."""
    if schema.collection != collection.id or schema.name != contribution_name(schema.owner, collection.id):
        return "it has another name than a contribution of this collection"
    if not collection.takes(schema.owner):
        return f"it is not open to {schema.owner}"
    if schema.columns != (collection.column,):
        return "it has another column than the collection"
    if (schema.cluster, schema.parties) != (collection.cluster, collection.parties):
        return "it is for other parties than the collection"
    if schema.expires != collection.expires:
        return "it expires at another time than the collection"
    return None


class ContributionList(Frozen):
    """A party's word on which contributions it has: one list of a collection, for good.

    Args:
        contributions: ids of the objects, sorted.
    """

    format: Literal["mpc-contributions-1"] = "mpc-contributions-1"
    cluster: Cluster
    party: Process
    collection: Digest
    contributions: Annotated[tuple[Digest, ...], Field(max_length=MOST_LISTED), AfterValidator(_sorted)]

    def sign(self, identity: Identity) -> Signed:
        """Sign the list, as that party."""
        return Signed.make(identity, _LIST, dump(self.model_dump(mode="json")))

    @classmethod
    def verify(cls, trust: Trust, signed: Signed, party: str, collection: Collection, clock: Clock) -> ContributionList:
        """Return the list, if that party signed it of this collection.

        Raises:
            IntegrityError: it did not; `peer` is the party.
            InputError: it is malformed.
        """
        found = read(cls, signed.content, LARGEST_LIST, "a list of contributions")
        if (found.party, found.collection, found.cluster) != (party, collection.id, collection.cluster):
            raise IntegrityError(f"this is not {party}'s list of contributions of {collection.name}", peer=party)
        signed.check(trust, _LIST, party, clock)
        return found


def in_all(collection: Collection, lists: Sequence[ContributionList]) -> tuple[str, ...]:
    """Return the contributions that every party has, in the order of their ids; of more than count, the first ones.

    Raises:
        SessionError: there are fewer than the collection needs.
    """
    common = sorted(frozenset.intersection(*(frozenset(each.contributions) for each in lists)))
    if len(common) < collection.at_least:
        raise SessionError(
            f"{collection.name} has {len(common)} rows, and nothing of fewer than {collection.at_least} is ever told",
            cause="it was closed before enough clients had entered one at all parties",
            remedy="open another collection; what was entered in this one stays untold",
        )
    return tuple(common[: collection.at_most])


def gathered_schema(collection: Collection, rows: int) -> Schema:
    """Return the schema of what so many contributions become, a row and a block each."""
    return Schema(
        owner=collection.owner,
        name=collection.name,
        cluster=collection.cluster,
        parties=collection.parties,
        rows=rows,
        columns=(collection.column,),
        visible=tuple(sorted({*collection.recipients} - {collection.owner})),
        created=collection.until,
        expires=collection.expires,
        lengths=(1,) * rows,
        gathered=collection.id,
    )


def gathered_salt(salts: Iterable[bytes]) -> bytes:
    """Digest the salts of all contributions, 32 bytes: a client knows its own alone, and the provider none of them."""
    return digest("mpc/v1/gathered-salt", *salts)
