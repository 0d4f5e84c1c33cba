"""Schema and provenance of an object that the parties keep, from public bytes alone.

Every party works this out by itself, and what differs is found when they sign.  A refresh of an object (see
`refreshing`) has the schema of that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pydantic import ValidationError

from mpc.errors import InputError
from mpc.plan.ends import PlanOutput
from mpc.plan.plan import Plan
from mpc.privacy.dependence import dependence
from mpc.stored import BLOCK_ROWS
from mpc.text import label_fault, shown
from mpc.wires import BATCH
from parties.agreed.bindings import parts_of
from parties.agreed.columns import Column
from parties.agreed.keeps import Keep
from parties.agreed.objects import Manifest, Schema
from parties.agreed.provenance import Origin, Provenance
from parties.agreed.refreshing import refreshed
from parties.agreed.terms import Terms


@dataclass(frozen=True)
class Read:
    """An object that a session reads: its manifest, and the digest of its owner's public key."""

    manifest: Manifest
    key: bytes


def kept_schema(
    keep: Keep, plan: Plan, terms: Terms, cluster: str, read: Mapping[bytes, Read], lengths: Sequence[int]
) -> Schema:
    """Return the schema of an object that a session keeps.

    Args:
        plan: verified, not bound.
        cluster: the cluster's id.
        read: what the session reads, by id.
        lengths: rows of each block; of what has no rows (1,).

    Raises:
        InputError: no object can be made of it.
    """
    rows, found = sum(lengths), _provenance(keep, plan, terms, read)
    before = refreshed(keep, plan, terms, {each: found.manifest for each, found in read.items()})
    said = {
        "owner": keep.owner,
        "name": keep.name,
        "version": keep.version,
        "previous": keep.previous,
        "cluster": cluster,
        "parties": terms.parties,
        "rows": rows,
        "lengths": () if is_full(lengths) else tuple(lengths),
        "created": keep.created,
        "expires": _expiry(keep, plan, terms, read),
        "kept": found,
    }
    if before is not None:
        taken = set(Schema.model_fields) - set(said)
        said |= {name: getattr(before, name) for name in taken}
        said["expires"] = before.expires
        earlier = (before.id.hex(), *(before.kept.refreshes if before.kept else ()))
        said["kept"] = found.model_copy(update={"refreshes": earlier})
    else:
        outputs = {out.name: out for out in plan.outputs}
        people = [each.rows_per_person for each in found.origins]
        said["columns"] = tuple(kept_column(plan, outputs[name]) for name in keep.outputs)
        said |= {"visible": keep.visible, "rows_per_person": max(people, default=1)}
    try:
        return Schema(**said)
    except ValidationError as error:
        raise InputError(f"{keep.name} cannot be kept: {shown(error.errors()[0]['msg'])}") from None


def kept_column(plan: Plan, out: PlanOutput) -> Column:
    """Describe the column that an output becomes: what the plan says of it, and nothing of its values."""
    wire, labels = plan.wire[out.wire], out.labels
    shape = tuple(int(size) for size in out.shape if size != BATCH)
    if labels is not None and not shape and wire.scale == 1 and _are_categories(labels):
        texts = tuple(map(str, labels))
        return Column(name=out.name, type="category", low=Fraction(0), high=Fraction(len(texts) - 1), categories=texts)
    most = Fraction((1 << wire.bits) - 1) / wire.scale
    whole = wire.scale == 1 and not out.dtype.startswith("float")
    kind = "array" if shape else "integer" if whole else "number"
    return Column(name=out.name, type=kind, scale=wire.scale, low=-most, high=most, shape=shape)


def _are_categories(labels: Sequence[int | str]) -> bool:
    texts = list(map(str, labels))
    return len({*texts}) == len(texts) and not any(label_fault(each) or len(each) > 256 for each in texts)


def is_full(lengths: Sequence[int]) -> bool:
    """Are all blocks full but for the last one?"""
    return all(each == BLOCK_ROWS for each in lengths[:-1])


def _provenance(keep: Keep, plan: Plan, terms: Terms, read: Mapping[bytes, Read]) -> Provenance:
    """Find what the outputs of one object came from."""
    sources = dependence(plan)
    found: dict[tuple[str, int], Origin] = {}
    for output in keep.outputs:
        for wire, by_row in sources[output].items():
            parts = parts_of(terms.bindings, wire)
            for origin in (each for part in parts for each in origins_of(read[part.object], part.first)):
                key = (origin.object, origin.first)
                rows = by_row and origin.by_row and found.get(key, origin).by_row and len(parts) == 1
                found[key] = origin.model_copy(update={"by_row": rows})
    checked = plan.is_checked and all(read[each.object].manifest.is_checked for each in terms.bindings)
    return Provenance(
        plan=terms.plan_digest.hex(),
        session=terms.session_id.hex(),
        objects=tuple(sorted({each.object.hex() for each in terms.bindings})),
        origins=tuple(found[key] for key in sorted(found)),
        security="active" if checked else "passive",
    )


def origins_of(read: Read, first: int = 0) -> tuple[Origin, ...]:
    """Return where the rows of an object from `first` on come from: itself, if its owner put it."""
    whole = read.manifest
    if whole.kept is not None:
        return tuple(each.model_copy(update={"first": each.first + first}) for each in whole.kept.origins)
    said = {"name": whole.name, "owner": whole.owner, "key": read.key.hex(), "by_row": True}
    return (Origin(object=whole.id.hex(), first=first, rows_per_person=whole.rows_per_person, **said),)


def _expiry(keep: Keep, plan: Plan, terms: Terms, read: Mapping[bytes, Read]) -> int | None:
    ends: Iterable[int | None] = [keep.expires or None, *(each.manifest.expires for each in read.values())]
    return min((each for each in ends if each is not None), default=None)
