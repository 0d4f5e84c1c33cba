"""Data, models and collections at the parties, as a client reaches them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from parties.client.channels import Parties

if TYPE_CHECKING:
    from mpc.plan.link import Link
    from parties.client.collections.collection import Collection
    from parties.client.consent.told import Left
    from parties.client.dataset import Dataset
    from parties.client.datasets import Datasets
    from parties.client.model import Model
    from parties.client.models import Models
    from parties.client.selection import Selection
    from parties.client.training.private import PrivateModel


class AtParties:
    """Data, models, budgets and collections at the parties of a cluster, by name.

    Args:
        parties: calls to all of them.
    """

    parties: Parties

    @property
    def datasets(self) -> Datasets:
        """Datasets at the parties: put, list, search, remove."""
        from parties.client.datasets import Datasets  # joining and running do without tables

        return Datasets(self.parties)

    def collect(self, name: str, size: int, low: Any, high: Any, **terms: Any) -> Collection:
        """Open a collection: other clients enter a row each, and this one learns their sum, once and with noise.

        Args:
            name: "NAME", which is spent then.
            size: numbers of a row.
            low, high: that each number lies between; whatever a client enters, it counts as a number between them.
            terms: at_least, at_most: how many rows; epsilon, delta, mechanism: what the sum tells of each client;
                until: when it is closed, seconds from now, a duration or a date; contributors: names of those who may
                enter, or None for all whom the parties let put data; expires; width, bits of each number.

        Raises:
            UsageError, ModelError, PolicyError, SessionError, PeerError: as of `session`.
        """
        from parties.client.collections import collection

        return collection.open_collection(self.parties, name, size, low, high, **terms)

    def collection(self, name: str) -> Collection:
        """Return a collection, "OWNER/NAME", to enter a row of it, or to learn its sum.

        Raises:
            SessionError: there is none that is open to this client.
        """
        from parties.client.collections import collection

        return collection.find(self.parties, name)

    @property
    def models(self) -> Models:
        """Models at the parties: put, list, search, grant, remove."""
        from parties.client.models import Models  # imports onnx

        return Models(self.parties)

    def model(self, name: str) -> Model:
        """Return a model at the parties, "OWNER/NAME", by its owner's word and its plan; its weights stay there.

        Raises:
            SessionError: there is none that this client may see.
        """
        return self.models.get(name)

    def dataset(self, name: str) -> Dataset:
        """Return a dataset, "OWNER/NAME", by what its owner says of it; its values stay where they are.

        Raises:
            SessionError: there is none that this client may see.
        """
        return self.datasets.get(name)

    def budget(self, name: str, delta: Any = None) -> Left:
        """Return what is left of a dataset's budget, for its owner and whoever a grant of it names.

        Args:
            delta: for the owner: `.together` says what all answers of one epsilon tell together at that delta.

        Raises:
            SessionError: there is no such dataset that this client may know of.
        """
        from parties.client.consent import composing, granted, granting

        full = self.datasets.full_name(name)
        if delta is None:
            return granting.budget(self.parties, full)
        return composing.budget(self.parties, full, granted.as_amount(delta, "delta"))

    def set_budget(self, name: str, epsilon: Any, delta: Any = "1/1000000", group: Sequence[str] = ()) -> Left:
        """Set what all noised answers about a dataset of this client's may tell in all, over all its versions.

        It may be more or less than before; what is spent stays spent.

        Args:
            epsilon, delta: numbers, or texts such as "0.1" and "1/3".
            group: further datasets of this client's that share the budget: what is spent on any is spent of it.

        Raises:
            UsageError: they are no numbers, or it is not this client's dataset.
        """
        from parties.client.consent import granted, granting

        full, whole = self.datasets.full_name(name), granted.as_amount(epsilon, "epsilon")
        others = [self.datasets.full_name(each) for each in group]
        return granting.set_budget(self.parties, full, whole, granted.as_amount(delta, "delta"), others)

    def fit_private(
        self,
        x: Selection,
        y: Selection,
        epsilon: Any,
        delta: Any = "1/1000000",
        steps: int | None = None,
        rate: float | None = None,
        margin: float = 3.0,
        center: Any = None,
        spread: Any = None,
        wait: float = 0.0,
        link: Link | str | None = None,
    ) -> PrivateModel:
        """Return a logistic regression of stored columns, trained with noise in every step.

        Its weights tell of each person no more than epsilon and delta, which the owners' budgets are charged once; of
        the data nothing else is told.

        Args:
            x: columns of numbers, each with its range.
            y: one column of 0 and 1, of as many rows.
            epsilon, delta: of all steps together.
            steps: of gradient descent over all rows; under noise, few rows want few steps: one for 150 rows times
                epsilon, from 2 to 16, if none are said.
            rate: how far a step goes, of rows of length 1; 20, or 50 of twelve steps and more, if none is said.
            margin: a row counts until its logit is right by so much, which learns better under noise; 0 for the loss of
                plain logistic regression, whose `probability` is one.
            center, spread: columns are brought to (x - center) / spread, one number for all or one each: what is known
                of such columns' means and standard deviations, without these data.  None: middle and half of the range.
                Then rows are shortened to a third of the root of the number of columns.
            wait: seconds to wait for words that are missing.
            link: what lies between the processes, as `session` takes it.

        Raises:
            UsageError: an argument makes no sense.
            PrivateDataError: an owner's word is missing: whose, and which command says it.
            ModelError: nothing is proved of it.
        """
        from parties.client.training import private as private_training

        return private_training.fit(self.parties, x, y, epsilon, delta, steps, rate, margin, center, spread, wait, link)
