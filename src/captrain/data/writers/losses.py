"""What a form of data can't hold, counted while writing and said in one line each."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Losses:
    """Counts by kind of loss.

    >>> losses = Losses()
    >>> losses.add("kohya holds one caption an image: {amount} captions of {images} images are left out", 4)
    >>> losses.add("kohya holds one caption an image: {amount} captions of {images} images are left out", 2)
    >>> losses.lines()
    ['kohya holds one caption an image: 6 captions of 2 images are left out']
    """

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, what: str, amount: int = 1) -> None:
        """Note one more image; `what` is a sentence with `{images}` and perhaps `{amount}` in it."""
        images, total = self.counts.get(what, (0, 0))
        self.counts[what] = (images + 1, total + amount)

    def lines(self) -> list[str]:
        """One sentence for each kind."""
        return [what.format(images=images, amount=amount) for what, (images, amount) in self.counts.items()]
