"""The feed is compiled once per run, in the child process that the product uses, into a temporary cache."""

import pytest

from outlay.lookup.book import PriceBook
from outlay.lookup.feed import Feed, load_feed


@pytest.fixture(scope="session")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    return load_feed(tmp_path_factory.mktemp("prices"))


@pytest.fixture(scope="session")
def book(feed: Feed) -> PriceBook:
    return PriceBook.build(feed)
