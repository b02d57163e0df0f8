"""Requests that the gateway signs for a provider (AWS SigV4), after every change to them; botocore does the signing."""

from functools import lru_cache
from typing import Any

from outlay.flow.gateway.forward import Sign
from outlay.flow.gateway.snapshot import Provider, parse_base_url
from outlay.kernel.errors import ConfigError
from outlay.wire.intent import Dialect

SERVICE = "bedrock"


def signer_of(provider: Provider) -> Sign | None:
    """What signs this provider's requests; None where its key does. Raises ConfigError without botocore."""
    if provider.dialect is not Dialect.BEDROCK or provider.api_key:
        return None
    _auth(provider)  # a missing library or credential is told before a call depends on it
    return sign


def sign(provider: Provider, method: str, path: bytes, head: bytes, body: bytes) -> bytes:
    """Header lines that sign one request. `path` is what stands in the request line."""
    from botocore.awsrequest import AWSRequest

    address = parse_base_url(provider.base_url)
    scheme = "https" if address.is_tls else "http"
    url = f"{scheme}://{address.host_header}{path.decode()}"
    request = AWSRequest(method=method, url=url, data=body, headers={"host": address.host_header})
    _auth(provider).add_auth(request)
    lines = [
        f"{name.lower()}: {value}\r\n" for name, value in request.headers.items() if name.lower() != "host"
    ]
    return "".join(lines).encode("latin-1")


def _auth(provider: Provider) -> Any:
    return _make_auth(
        provider.name,
        provider.aws_region,
        provider.aws_access_key_id,
        provider.aws_secret_access_key,
        provider.aws_session_token,
    )


@lru_cache(maxsize=64)
def _make_auth(name: str, region: str, access_key: str, secret_key: str, token: str) -> Any:
    try:
        from botocore.auth import SigV4Auth
        from botocore.credentials import Credentials
        from botocore.session import Session
    except ImportError as error:
        raise ConfigError(
            "signing for Bedrock needs botocore: install `outlay[bedrock]`", key=f"providers.{name}"
        ) from error
    if access_key:
        credentials: Any = Credentials(access_key, secret_key, token or None)
    else:
        # the usual chain: environment, profile, instance role
        credentials = Session().get_credentials()
        if credentials is None:
            raise ConfigError("no AWS credentials are found", key=f"providers.{name}")
    return SigV4Auth(credentials, SERVICE, region)
