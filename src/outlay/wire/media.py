"""A tally of what a request brings besides text, filled while its content is read. Must not know any dialect."""

from outlay.wire.intent import Modality


class Media:
    """Images that a formula bounds, the bytes they take in the body, and input that nothing in the body bounds."""

    __slots__ = ("images", "inline_bytes", "is_referenced", "modalities")

    def __init__(self) -> None:
        self.images = 0
        self.inline_bytes = 0
        """Bytes of the body that are images, and so count by the formula instead."""
        self.is_referenced = False
        self.modalities: set[Modality] = set()

    def add_image(self, inline_bytes: int) -> None:
        """An image, `inline_bytes` of which stand in the body (0 if it is named)."""
        self.images += 1
        self.inline_bytes += inline_bytes
        self.modalities.add(Modality.IMAGE)

    def add_reference(self, *modalities: Modality) -> None:
        """Input without a bound, which may be billed as these besides text."""
        self.is_referenced = True
        self.modalities.update(modalities)

    def tokens(self, tokens_per_image: int) -> int:
        """What to add to a bound by the body's bytes; it may be negative, but never takes text away."""
        return self.images * tokens_per_image - self.inline_bytes

    def kinds(self) -> tuple[Modality, ...]:
        """The modalities, sorted: they are a key of price tables."""
        return tuple(sorted(self.modalities))
