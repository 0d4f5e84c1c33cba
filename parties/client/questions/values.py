"""Values that stand for one a row of a dataset: their shape and type are public, and how they follow from columns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import UsageError
from parties.agreed.objects import Manifest
from parties.client.questions import functions
from parties.client.questions.expression import ROWS, Node, columns
from parties.client.questions.private import Private
from parties.client.questions.unanswered import Unanswered

if TYPE_CHECKING:
    from parties.client.channels import Parties
    from parties.client.questions.pointer import Pointer


class Values(Private):
    """Base of columns, and of what numpy's names make of them.

    Args:
        manifest: the dataset's.
        node: how the values follow from columns.
        parties: where a question about them is asked; None: it can be written, not asked.
    """

    def __init__(self, manifest: Manifest, node: Node, parties: Parties | None = None) -> None:
        self.manifest, self.node, self.parties = manifest, node, parties

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and sizes of one row; both are public."""
        return tuple(self.manifest.rows if size == ROWS else size for size in self.node.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers: float64, int64 or bool."""
        return self.node.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.node.shape)

    @property
    def read(self) -> tuple[str, ...]:
        """Names of the columns that the values are made of."""
        return tuple(columns(self.node))

    @property
    def size(self) -> int:
        """Number of values, which is public."""
        return int(np.prod(self.shape, dtype=int))

    def operands(self, given: Sequence[Any]) -> list[Any]:
        """Return the nodes of pointers, and the rest as it is.

        Raises:
            UsageError: they are rows of two datasets.
        """
        for each in given:
            if isinstance(each, Unanswered):
                raise UsageError(
                    "a question among values of rows",
                    cause="its answer is no number yet",
                    remedy="ask it, and compute with the answer: m = x.mean().get(epsilon=0.5).value, then x - m",
                )
            if isinstance(each, Values) and each.manifest.id != self.manifest.id:
                raise UsageError(
                    f"columns of {self.manifest.name} and of {each.manifest.name} in one question",
                    cause="their rows are not of the same people in the same order",
                    remedy="ask about each of them apart, and combine the answers",
                )
        return [each.node if isinstance(each, Values) else each for each in given]

    @property
    def variables(self) -> list[Node]:
        """List the numbers of a row, each by itself.

        Raises:
            UsageError: a row is no list of numbers.
        """
        if len(self.node.shape) > 2:
            raise UsageError(f"a row of {self.node.shape[1:]} numbers is no list", remedy="x.reshape(-1, 12)")
        if len(self.node.shape) == 1:
            return [self.node]
        return [functions.part(self.node, (slice(None), place)) for place in range(self.node.shape[1])]

    @abstractmethod
    def like(self, node: Node) -> Pointer:
        """Return other values of these rows."""
