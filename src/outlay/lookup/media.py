"""Rates of what is not text: tokens of audio, images and video, and units (images, milliseconds, characters). Pure.

One rule decides what a class without a rate costs. Images and video that are read are text, as every vendor bills them
unless it says otherwise. Audio, and images that are made, cost what text costs only where the price says so
(`bills_media_as_text`); elsewhere they are *not priced*. Problems come back as one sentence.
"""

from collections.abc import Iterable, Sequence

from outlay.kernel.money import Nanos, line_bound, line_cost
from outlay.lookup.price import ModelPrice, Rates
from outlay.wire.intent import Modality, Units, Usage

MUST_BE_PRICED = frozenset({"google_maps", "training_token"})
"""Units that no token stands for."""

Line = tuple[str, int, int, Nanos]
"""As in `lookup.cost`."""


def input_rates(price: ModelPrice, rates: Rates, modalities: Iterable[Modality]) -> tuple[int, ...] | str:
    """Every rate at which input of these modalities may be billed."""
    found: list[int | None] = []
    for modality in modalities:
        match modality:
            case Modality.AUDIO:
                if rates.input_audio is None and not price.bills_media_as_text:
                    return f"{price.model} has no price for audio that is sent to it"
                found += [rates.input_audio, rates.cache_read_audio]
            case Modality.IMAGE:
                found += [rates.input_image, rates.cache_read_image]
            case Modality.VIDEO:
                found.append(rates.input_video)
    return tuple(rate for rate in found if rate is not None)


def output_rates(price: ModelPrice, rates: Rates, modalities: Iterable[Modality]) -> tuple[int, ...] | str:
    """Every rate at which output of these modalities, beside text, may be billed."""
    found: list[int] = []
    for modality in modalities:
        rate = {Modality.AUDIO: rates.output_audio, Modality.IMAGE: rates.output_image}.get(modality)
        if rate is not None:
            found.append(rate)
        elif modality is Modality.VIDEO or not price.bills_media_as_text:
            return f"{price.model} has no price for {modality} that it makes"
    return tuple(found)


def unit_bound(price: ModelPrice, units: Iterable[Units], *, tokens: int) -> int | str:
    """Nanos that the asked units can cost at most; those for which `tokens` are billed instead cost nothing here."""
    total = 0
    for unit in units:
        rate = price.unit_rate(unit.name)
        if rate is not None:
            total += line_bound(unit.count, rate)
        elif price.unit_rates or unit.name in MUST_BE_PRICED or not tokens:
            return f"{price.model} has no price for {unit.name!r}"
    return total


def unit_lines(price: ModelPrice, usage: Usage, asked: Sequence[Units]) -> list[Line] | str:
    """Lines of what was served by the unit. A unit named less exactly than it was asked for has the asked price."""
    lines: list[Line] = []
    for unit in usage.units:
        if unit.count < 0:
            return f"usage contradicts itself: {unit.count} of {unit.name!r}"
        name = unit.name
        exact = [
            (priced, wish.name)
            for wish in asked
            if wish.name.startswith(name + "/") and (priced := price.unit_rate(wish.name)) is not None
        ]
        rate = price.unit_rate(name)
        if exact:
            rate, name = max(exact)
        if rate is None:
            rate = price.tool_fees.get(name)
        if rate is not None:
            if unit.count:
                lines.append((name, unit.count, rate, line_cost(unit.count, rate)))
        elif price.unit_rates or name in MUST_BE_PRICED or not (usage.input_tokens or usage.output_tokens):
            return f"{price.model} has no price for {name!r} ({unit.count} were served)"
    if price.is_by_unit and not usage.units:
        return f"{price.model} is billed by {', '.join(sorted(price.unit_rates))}, and the answer states none"
    return lines


def token_lines(price: ModelPrice, rates: Rates, usage: Usage) -> list[Line] | str:
    """One line for each class of input but cache writes, and of output. The counts of `usage` are consistent."""
    cached_audio, cached_image = usage.cache_read_audio_tokens, usage.cache_read_image_tokens
    cached = usage.cache_read_input_tokens - cached_audio - cached_image
    audio = usage.input_audio_tokens - cached_audio
    image = usage.input_image_tokens - cached_image
    video = usage.input_video_tokens
    plain = (
        usage.input_tokens
        - usage.cache_read_input_tokens
        - usage.cache_creation_input_tokens
        - audio
        - image
        - video
    )
    text_out = usage.output_tokens - usage.output_audio_tokens - usage.output_image_tokens
    if plain < 0:
        # some media was read from or written to the cache without being named there
        lack = min(-plain, cached + usage.cache_creation_input_tokens)
        plain += lack
        taken_video, taken_image = min(lack, video), min(max(lack - video, 0), image)
        video, image = video - taken_video, image - taken_image
        audio -= lack - taken_video - taken_image
    if min(cached, cached_audio, cached_image, audio, image, video, plain, text_out) < 0:
        return f"usage of {price.model} contradicts itself: its kinds of content exceed its totals"
    counts = {"input": plain, "cache_read": cached, "output": text_out}
    for name, count, fallback in (
        ("cache_read_audio", cached_audio, _cached_audio(price, rates)),
        ("cache_read_image", cached_image, _cached_image(rates)),
        ("input_audio", audio, "input" if price.bills_media_as_text else None),
        ("input_image", image, "input"),
        ("input_video", video, "input"),
        ("output_audio", usage.output_audio_tokens, "output" if price.bills_media_as_text else None),
        ("output_image", usage.output_image_tokens, "output" if price.bills_media_as_text else None),
    ):
        if not count:
            continue
        # the rate of its own; else the class it is billed as, which may itself be billed as another
        billed_as = name if getattr(rates, name) is not None else fallback
        if billed_as in {"input_audio", "input_image"} and getattr(rates, billed_as) is None:
            billed_as = "input"
        if billed_as is None:
            return f"{price.model} has no price for {name} tokens ({count} were served)"
        counts[billed_as] = counts.get(billed_as, 0) + count
    if counts["cache_read"] and rates.cache_read is None:
        counts["input"] += counts.pop("cache_read")
    lines: list[Line] = []
    for name, count in counts.items():
        if count:
            rate = getattr(rates, name)
            if rate is None:
                return f"{price.model} has no {name} price but {count} tokens were served"
            lines.append((name, count, rate, line_cost(count, rate)))
    return lines


def _cached_audio(price: ModelPrice, rates: Rates) -> str | None:
    if rates.cache_read is None:
        return "input_audio" if rates.input_audio is not None or price.bills_media_as_text else None
    return "cache_read" if rates.input_audio is None and price.bills_media_as_text else None


def _cached_image(rates: Rates) -> str | None:
    if rates.cache_read is None:
        return "input_image"
    return "cache_read" if rates.input_image is None else None
