"""Every hand-worked price: feed, corrections and arithmetic together must give it to the nano-dollar."""

import pytest
import vectors_anthropic
import vectors_media
import vectors_openai
import vectors_others
from price_vector import Vector

from outlay.lookup.book import PriceBook
from outlay.lookup.cost import Cost, Request, cost
from outlay.lookup.price import ModelPrice

VECTORS = (
    vectors_openai.VECTORS
    + vectors_anthropic.VECTORS
    + vectors_anthropic.MORE
    + vectors_others.VECTORS
    + vectors_media.VECTORS
)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector.name.replace(" ", "-") for vector in VECTORS])
def test_a_served_call_costs_what_the_price_page_says(book: PriceBook, vector: Vector) -> None:
    price = book.find(vector.provider, vector.model, vector.at)
    assert isinstance(price, ModelPrice), price
    asked = vector.asked or Request(operation=vector.operation)
    priced = cost(price, vector.usage, vector.at, asked)
    assert isinstance(priced, Cost), priced
    assert (priced.total_nanos, sum(line[3] for line in priced.lines)) == (vector.nanos, vector.nanos), (
        priced.lines
    )


def test_the_tables_are_broad_and_sourced() -> None:
    assert len(VECTORS) >= 130
    assert len({(vector.provider, vector.model) for vector in VECTORS}) >= 65
    assert all(vector.source and vector.read for vector in VECTORS)
    assert len({vector.name for vector in VECTORS}) == len(VECTORS)
