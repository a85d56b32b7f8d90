"""What a page is made of: sections with figures, tables and citations. Templates turn them into HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from .style import Figure
from .tables import Table


@dataclass(frozen=True)
class Choice:
    """One value of a switch; `title` becomes the beginning of its figures' headings, where it is given."""

    value: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class Switch:
    """A choice among the variants of some figures.

    Attributes:
        name: in the page.
        legend: what is chosen.
        figures: names of the figures that it switches.
        choices: the first one is chosen at the start.
    """

    name: str
    legend: str
    figures: Sequence[str]
    choices: Sequence[Choice]


@dataclass(frozen=True)
class FigureCard:
    """A figure with its heading, caption and buttons.

    Attributes:
        name: in the page, also that of saved files.
        title: its heading.
        caption: what a reader needs to know, under it.
        variants: by the value of a switch; the first is drawn at the start.
        after: what stays of the heading when a switch changes its beginning.
        switch: one of its own.
    """

    kind: ClassVar[str] = "figure"
    name: str
    title: str
    caption: str
    variants: Mapping[str, Figure]
    after: str = ""
    switch: Switch | None = None


@dataclass(frozen=True)
class Grid:
    """Figures beside each other where there is room, with a switch of all of them."""

    kind: ClassVar[str] = "grid"
    figures: Sequence[FigureCard]
    switch: Switch | None = None


@dataclass(frozen=True)
class TableCard:
    """A table with its buttons; `folded` ones open on a click; `css` is a class of the card."""

    kind: ClassVar[str] = "table"
    table: Table
    folded: bool = False
    css: str = ""


@dataclass(frozen=True)
class Tile:
    """A method's final value in large letters."""

    label: str
    place: int
    value: str
    rest: str
    about: str


@dataclass(frozen=True)
class Tiles:
    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Definitions:
    """Terms and what they mean."""

    kind: ClassVar[str] = "definitions"
    terms: Mapping[str, str]


@dataclass(frozen=True)
class Citation:
    """A BibTeX entry, and the parts that it is of."""

    kind: ClassVar[str] = "citation"
    names: str
    bibtex: str


Block: TypeAlias = FigureCard | Grid | TableCard | Tiles | Definitions | Citation


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    name: str
    title: str
    about: str
    blocks: Sequence[Block] = field(default_factory=tuple)

    def figures(self) -> Iterator[FigureCard]:
        for block in self.blocks:
            if isinstance(block, FigureCard):
                yield block
            elif isinstance(block, Grid):
                yield from block.figures

    def tables(self) -> Iterator[Table]:
        return (block.table for block in self.blocks if isinstance(block, TableCard))

    def citations(self) -> Iterator[Citation]:
        return (block for block in self.blocks if isinstance(block, Citation))
