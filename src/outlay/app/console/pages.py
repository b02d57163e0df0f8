"""The two human pages, as text that loads nothing: what this is, and the API's operations. Pure."""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{font-family:ui-monospace,monospace}td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}"
    ":root{color-scheme:light dark}"
)


def index_page() -> str:
    """What this is and where to go on."""
    return _page(
        "Outlay console",
        "<p>Outlay holds what an AI call can cost before it is sent, and books what it did cost. "
        "This is the operators' JSON API of one gateway.</p>"
        "<ul><li><a href='/docs'>/docs</a>: the operations</li>"
        "<li><a href='/openapi.json'>/openapi.json</a>: the same for programs</li>"
        "<li><a href='/healthz'>/healthz</a>: is it well? (no token)</li>"
        "<li><code>/metrics</code>: Prometheus text</li></ul>"
        "<p>All but these pages and <code>/healthz</code> need <code>Authorization: Bearer</code> with "
        "<code>console.admin_token</code> of outlay.yaml.</p>",
    )


def docs_page(schema: Mapping[str, Any]) -> str:
    """One row for each operation of an OpenAPI document."""
    rows = "".join(
        f"<tr><td><code>{method.upper()}</code></td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(operation.get('description') or operation.get('summary', ''))}</td></tr>"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    )
    return _page(
        "Outlay console API",
        "<p>Fields and types: <a href='/openapi.json'>/openapi.json</a>. Errors are "
        '<code>{"error": {"code", "message", "key"}}</code>.</p>'
        f"<table><tr><th>Method</th><th>Path</th><th></th></tr>{rows}</table>",
    )


def _page(title: str, body: str) -> str:
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>"
    )
