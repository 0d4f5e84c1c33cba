"""Datasets and models at the parties are two kinds of one thing: what owners and users of either do alike."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

from mpc.errors import InputError, SessionError, UsageError
from mpc.text import shown
from parties.agreed.grants import Grant
from parties.agreed.listed import Entry
from parties.agreed.objects import Manifest
from parties.client.answering import Silent
from parties.client.at_rest import catalogue
from parties.client.at_rest.listing import Listing
from parties.client.at_rest.said import full_name, own_name
from parties.client.channels import Parties
from parties.client.consent import granting

Lists = TypeVar("Lists", bound=Listing)


class Objects(Generic[Lists]):
    """Objects of one kind that this client owns or may see.

    `_ONE` and `_OTHER` are the words for the kind and for the other one, `_GROUP` is its group of commands and
    `_LISTED` its lists.
    """

    _ONE: ClassVar[str]
    _OTHER: ClassVar[str]
    _GROUP: ClassVar[str]
    _LISTED: ClassVar[type[Listing]]

    def __init__(self, parties: Parties) -> None:
        self._parties, self._me = parties, parties.config.name

    def list(self, versions: bool = False) -> Lists:
        """List those that this client may see; their newest versions, or all."""
        return self.search("", versions)

    def search(self, words: str, versions: bool = False, silent: Silent | None = None) -> Lists:
        """List those with all these words, or words that begin so, in name, description or columns.

        Args:
            silent: a list that takes the errors of parties that do not answer: what is listed then is what all others
                list.

        Raises:
            PeerError: no party answers; or, without `silent`, one does not.
        """
        if not isinstance(words, str):
            raise UsageError("a search is for words", remedy=f"cluster.{self._ONE}s.search('triage')")
        found = self._of_kind(catalogue.search(self._parties, words, silent))
        return self._listed(found if versions else catalogue.newest(found))

    def remove(self, name: str) -> Lists:
        """Remove all versions of one of this client's own, at all parties and for good.

        Raises:
            InputError: there is none of that name.
        """
        full = self._full_own(name)
        found = self._of_kind(catalogue.own(self._parties, full))
        if not found:
            raise InputError(
                f"there is no {self._ONE} {shown(full)} of yours",
                remedy=f"mpc {self._GROUP} list shows which there are",
            )
        for entry in found:
            catalogue.remove(self._parties, entry.id)
        return self._listed(found)

    def revoke(self, grant: str | Grant) -> str:
        """Take a grant of this client's back, by its id or the first digits of it; return its id.

        Raises:
            UsageError: there is no such grant.
        """
        return granting.revoke(self._parties, grant.id if isinstance(grant, Grant) else grant)

    # -- for the kinds

    def _manifest(self, name: str) -> Manifest:
        """Return the newest version's manifest of an object of this kind."""
        full = full_name(self._me, name)
        try:
            manifest = catalogue.describe(self._parties, full)
        except SessionError:
            known = [entry.name for entry in catalogue.search(self._parties)]
            if full in known:  # something else is wrong with it
                raise
            raise self._unknown(full, known) from None
        if (manifest.plan is not None) != self._is_model:
            raise UsageError(
                f"{shown(full)} is a {self._OTHER}, not a {self._ONE}", remedy=f"cluster.{self._OTHER}({full!r})"
            )
        return manifest

    def _unknown(self, name: str, known: Sequence[str]) -> SessionError:
        """Say that there is none of that name; known: names of what this client may see."""
        return SessionError(
            f"there is no {self._ONE} {shown(name)}, or you may not see it",
            remedy=f"mpc {self._GROUP} list shows which you may",
        )

    @property
    def _is_model(self) -> bool:
        return self._ONE == "model"

    def _of_kind(self, found: Iterable[Entry]) -> builtins.list[Entry]:
        return [entry for entry in found if (entry.plan is not None) == self._is_model]

    def _listed(self, found: Iterable[Entry]) -> Lists:
        made: Lists = self._LISTED(found)  # type: ignore[assignment]
        return made

    def _full_own(self, name: str) -> str:
        return f"{self._me}/{own_name(self._me, name)}"
