"""Who is refused over HTTP: signatures absent, altered, late, replayed, or not over what they must cover."""

import json
from datetime import datetime, timedelta, timezone

import pytest

import acs3
from http_front import JSON, b64, encrypt_body

UNAUTHENTICATED = range(400, 405)


def test_requests_without_a_signature_are_refused(front, cmk):
    body = json.dumps(encrypt_body(cmk)).encode()
    signed = front.sign("Encrypt", body)
    bare = {name: value for name, value in signed.items() if name != "authorization"}
    good = signed["authorization"]
    for headers in (
        bare, {"host": front.host, "content-type": JSON},
        bare | {"authorization": ""}, bare | {"authorization": good.split(",Signature=")[0]},
        bare | {"authorization": good.split("Signature=")[0] + "Signature="},
        bare | {"authorization": good.replace("ACS3-HMAC-SHA256", "none")},
        bare | {"authorization": good.replace("ACS3-HMAC-SHA256", "ACS3-HMAC-SM3")},
        bare | {"authorization": "Basic " + b64(b"a:b")}, bare | {"authorization": good[:-1]},
    ):
        answer = front.send("/v1/Encrypt", headers, body)
        assert answer.status in UNAUTHENTICATED and answer.error()["Code"], headers


def test_a_wrong_secret_or_an_unknown_id_is_refused(front, cmk):
    real = front.credentials
    for wrong in (acs3.Credentials(real.access_key_id, real.access_key_secret + "x"),
                  acs3.Credentials(real.access_key_id[:-1], real.access_key_secret), acs3.Credentials("", "")):
        front.credentials = wrong
        answer = front.post("Encrypt", encrypt_body(cmk))
        assert answer.status in UNAUTHENTICATED
        assert real.access_key_secret not in answer.error()["Message"]


def test_a_tampered_body_is_refused(front, cmk):
    """Each body is one that would be served if it were signed; each signature is new, so that no nonce is in the way."""
    body = json.dumps(encrypt_body(cmk)).encode()
    for other in (body + b" ", b" " + body[:-1] + b"}", body.replace(b64(b"plain").encode(), b64(b"PLAIN").encode())):
        assert front.post("Encrypt", other).status == 200
        answer = front.send("/v1/Encrypt", front.sign("Encrypt", body), other)
        assert answer.status in UNAUTHENTICATED and answer.error(), other
    assert front.send("/v1/DescribeLimits", front.sign("DescribeLimits", b"{}"), b"").status in UNAUTHENTICATED


@pytest.mark.parametrize("name, value", [
    ("x-acs-action", "Decrypt"), ("x-acs-version", "2016-01-21"), ("x-acs-signature-nonce", "0" * 32),
    ("x-acs-content-sha256", "0" * 64), ("content-type", "application/json; charset=utf-8"), ("host", "localhost"),
], ids=lambda part: part if len(part) < 40 and part.strip("0") else "zeros")
def test_a_tampered_header_is_refused(front, cmk, name, value):
    body = json.dumps(encrypt_body(cmk)).encode()
    answer = front.send("/v1/Encrypt", front.sign("Encrypt", body) | {name: value}, body)
    assert answer.status in UNAUTHENTICATED and answer.error()


def test_a_tampered_date_is_refused(front, cmk):
    body, now = json.dumps(encrypt_body(cmk)).encode(), datetime.now(timezone.utc)
    late, good = (front.sign("Encrypt", body, now=now + timedelta(seconds=seconds)) for seconds in (30, 0))
    answer = front.send("/v1/Encrypt", good | {"x-acs-date": late["x-acs-date"]}, body)
    assert answer.status in UNAUTHENTICATED and answer.error()


def test_the_path_and_the_query_are_signed(front, cmk):
    body = json.dumps(encrypt_body(cmk)).encode()
    for path in ("/v1/Decrypt", "/v1/DescribeLimits", "/v1/Encrypt?KeyId=x", "/v1/Encrypt/", "/v1//Encrypt"):
        answer = front.send(path, front.sign("Encrypt", body), body)
        assert 400 <= answer.status < 500, path


def test_the_action_must_be_the_operation_of_the_path(front, cmk):
    answer = front.post("Encrypt", encrypt_body(cmk), action="Decrypt")
    assert 400 <= answer.status < 500 and answer.error()
    answer = front.post("Encrypt", encrypt_body(cmk), version="2015-01-20")
    assert 400 <= answer.status < 500 and answer.error()


@pytest.mark.parametrize("name", [
    "host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce",
])
def test_headers_that_must_be_signed_are(front, cmk, name):
    answer = front.post("Encrypt", encrypt_body(cmk), unsigned=(name,))
    assert answer.status in UNAUTHENTICATED and answer.error()


@pytest.mark.parametrize("minutes", [-16, 16, -60 * 24 * 365, 60 * 24 * 365])
def test_a_date_more_than_15_minutes_off_is_refused(front, cmk, minutes):
    answer = front.post("Encrypt", encrypt_body(cmk), now=datetime.now(timezone.utc) + timedelta(minutes=minutes))
    assert answer.status in UNAUTHENTICATED
    assert answer.error()["Code"] in ("InvalidTimeStamp.Expired", "InvalidTimeStamp.Format", "IllegalTimestamp")


@pytest.mark.parametrize("minutes", [-14, 14])
def test_a_date_within_15_minutes_is_taken(front, cmk, minutes):
    answer = front.post("Encrypt", encrypt_body(cmk), now=datetime.now(timezone.utc) + timedelta(minutes=minutes))
    assert answer.status == 200, answer.body


def test_a_nonce_is_good_for_one_verified_request(front, cmk):
    body = json.dumps(encrypt_body(cmk)).encode()
    headers = front.sign("Encrypt", body)
    forged = headers | {"authorization": headers["authorization"][:-4] + "0000"}
    assert front.send("/v1/Encrypt", forged, body).status in UNAUTHENTICATED
    # A forged request must not burn the nonce of the true one.
    assert front.send("/v1/Encrypt", headers, body).status == 200
    replayed = front.send("/v1/Encrypt", headers, body)
    assert (replayed.status, replayed.error()["Code"]) == (400, "SignatureNonceUsed")
    again = front.post("Decrypt", {"CiphertextBlob": b64(b"x")}, nonce=headers["x-acs-signature-nonce"])
    assert (again.status, again.error()["Code"]) == (400, "SignatureNonceUsed")
