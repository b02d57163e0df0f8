"""What `h11` reads: a strict parser by other people, in another language than llhttp's."""

import h11

from tests.fuzz.reading import End, Message, Reading, comparable

NO_LIMIT = 1 << 30


def reference(data: bytes) -> Reading:
    """Read a connection's bytes to the first error, the last byte, or a request after which no other may come."""
    found = Reading()
    while True:
        if data.startswith(b"\r\n"):
            data = data[2:]  # EMPTY_LINE, see `rule`
        if not data:
            return found
        rest = _one(data, found)
        if rest is None:
            return found
        data = rest


def _one(data: bytes, found: Reading) -> bytes | None:
    """Read one request; returns what is behind it, None if that is not to be read."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=NO_LIMIT)
    connection.receive_data(data)
    head: h11.Request | None = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
    except h11.RemoteProtocolError as error:
        found.end, found.why = End.REFUSED, str(error)
        if head is not None:
            found.messages.append(_message(head, body, None))
        return None
    if head is None:
        return None
    if not isinstance(event, h11.EndOfMessage):
        found.messages.append(_message(head, body, None))
        return None
    if connection.their_state is h11.MIGHT_SWITCH_PROTOCOL:
        # it says whether another request may follow once the switch is refused
        connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
    keeps_alive = connection.their_state is not h11.MUST_CLOSE or _is_kept_1_0(head)
    found.messages.append(_message(head, body, keeps_alive))
    rest = connection.trailing_data[0]
    found.rests.append(rest)
    if not keeps_alive:
        found.end = End.CLOSED
        return None
    return rest


def _message(head: h11.Request, body: bytes, keeps_alive: bool | None) -> Message:
    fields = comparable(list(head.headers))
    return Message(head.method, head.target, fields, body, keeps_alive is not None, keeps_alive)


def _is_kept_1_0(head: h11.Request) -> bool:
    """KEPT_1_0, see `rule`."""
    if head.http_version != b"1.0":
        return False
    said = b",".join(value for name, value in head.headers if name == b"connection").lower()
    words = {word.strip() for word in said.split(b",")}
    return b"keep-alive" in words and b"close" not in words
