"""Issuers of tokens for tests: keys made once a process, tokens as an issuer signs them, a key set on a local port."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://login.acme.example/"
AUDIENCE = "outlay"


@lru_cache
def rsa_key(name: str = "one", bits: int = 2048) -> rsa.RSAPrivateKey:
    """A private key; the same name means the same key."""
    del name
    return rsa.generate_private_key(65537, bits)


@lru_cache
def ec_key(name: str = "one") -> ec.EllipticCurvePrivateKey:
    """A private key on P-256."""
    del name
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """The public half."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str, **more: Any) -> dict[str, Any]:
    """The public half as an entry of a key set."""
    name = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    found: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(name).to_jwk(key.public_key()))
    found.pop("key_ops", None)
    return {**found, "kid": kid, "use": "sig", **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    """A key set."""
    return json.dumps({"keys": list(keys)}).encode()


def claims(**more: Any) -> dict[str, Any]:
    """Claims of a good token; None takes one away."""
    now = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 86_400, **more}
    return {name: value for name, value in found.items() if value is not None}


def token(
    key: Any = None, kid: str | None = "k1", algorithm: str = "RS256", head: Any = None, **more: Any
) -> str:
    """A signed token."""
    headers = {**({} if kid is None else {"kid": kid}), **(head or {})}
    payload = json.dumps(claims(**more)).encode()
    return jwt.PyJWS().encode(payload, rsa_key() if key is None else key, algorithm, headers)


def unsigned(head: Any, body: Any, signature: bytes = b"") -> str:
    """Three parts put together by hand; texts and bytes go in as they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, body)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, signature))


class KeyServer:
    """Serves a key set; `body` and `status` may be changed while it runs."""

    def __init__(self, body: bytes) -> None:
        self.body, self.status, self.asked = body, 200, 0
        self.location = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(outer.status)
                if outer.location:
                    self.send_header("location", outer.location)
                self.send_header("content-length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/keys"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.05), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def key_server(body: bytes) -> Iterator[KeyServer]:
    server = KeyServer(body)
    try:
        yield server
    finally:
        server.close()
