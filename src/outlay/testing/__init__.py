"""Test parts that are part of the product: the mock provider with a meter of its own."""
