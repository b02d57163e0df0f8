"""stub"""

from typing import Any


def begin_realtime(*a: Any) -> Any: ...
