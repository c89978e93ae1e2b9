"""What a method says of itself in five sentences."""

from __future__ import annotations

from typing import NamedTuple


class MethodText(NamedTuple):
    """Five sentences on a method, Markdown with formulas between dollars.

    Label and reference are those of its class: they stand here too, since pages import no torch.
    """

    label: str
    reference: str
    idea: str
    formula: str
    needs: str
    cost: str
    misleads: str

    @property
    def name(self) -> str:
        """The label without what stands in brackets, or after a comma."""
        return self.label.partition(" (")[0].partition(",")[0]

    @property
    def sentences(self) -> dict[str, str]:
        """Head -> sentence, in the order to read them in."""
        return dict(zip(HEADS, self[2:], strict=True))


HEADS = ("Idea", "Formula", "Requirements", "Cost", "When it misleads")
