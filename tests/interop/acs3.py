"""ACS3-HMAC-SHA256, the request signature of the cloud's API, for `POST /v1/<Operation>`.

Made from the published canonical form alone; `test_acs3.py` holds it to requests that an official SDK signed.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import quote

ALGORITHM = "ACS3-HMAC-SHA256"
API_VERSION = "2016-01-20"


@dataclass(frozen=True)
class Credentials:
    access_key_id: str
    access_key_secret: str


def signed_post(operation, host, body, credentials, content_type="application/json", now=None, nonce=None,
                action=None, version=API_VERSION, unsigned=()):
    """Returns the headers of a signed `POST /v1/<operation>`, all signed but those named in `unsigned`.

    What follows `content_type` is for tests: another instant, nonce, action or version than the right one.
    """
    now = datetime.now(timezone.utc) if now is None else now
    headers = {
        "host": host,
        "content-type": content_type,
        "x-acs-action": operation if action is None else action,
        "x-acs-version": version,
        "x-acs-date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": secrets.token_hex(16) if nonce is None else nonce,
        "x-acs-content-sha256": hashlib.sha256(body).hexdigest(),
    }
    signed = {name: value for name, value in headers.items() if name not in unsigned}
    headers["authorization"] = authorization("POST", f"/v1/{operation}", [], signed, credentials)
    return headers


def authorization(method, path, query, headers, credentials):
    """Returns the `Authorization` value that signs `headers`, whose names are lower-case."""
    canonical = canonical_request(method, path, query, headers)
    to_sign = f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(credentials.access_key_secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    return (
        f"{ALGORITHM} Credential={credentials.access_key_id},"
        f"SignedHeaders={';'.join(sorted(headers))},Signature={signature}"
    )


def canonical_request(method, path, query, headers):
    """Returns the six parts of the canonical request, joined by line feeds."""
    pairs = sorted((percent(name), percent(value)) for name, value in query)
    block = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    return "\n".join([
        method,
        path,
        "&".join(f"{name}={value}" for name, value in pairs),
        block,
        ";".join(sorted(headers)),
        headers["x-acs-content-sha256"],
    ])


def percent(text):
    return quote(text, safe="-_.~")
