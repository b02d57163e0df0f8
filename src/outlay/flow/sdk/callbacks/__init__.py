"""Callbacks for frameworks that call models themselves: observe what they report, or hold before they call.

Weaker than a wrapped client, and labelled so: a framework reports what it likes, when it likes. `tally` keeps the
books, `litellm_logger` and `langchain_handler` speak the frameworks' languages.
"""
