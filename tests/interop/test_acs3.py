"""The ACS3 signer against requests that the official Python SDK signed with throw-away keys and a frozen clock."""

from datetime import datetime, timezone

import acs3

THROW_AWAY = acs3.Credentials("KMTESTAKID0000000001", "KmTestSecret/+=~0001abcdEFGH")
SDK_HEADERS = {
    "host": "127.0.0.1:18443",
    "x-acs-version": "2016-01-20",
    "user-agent": "keymill-vector-agent/1.0",
    "x-acs-date": "2026-01-02T03:04:05Z",
    "accept": "application/json",
    "x-acs-credentials-provider": "static_ak",
}


def test_a_query_of_the_sdk_gives_its_signature():
    headers = SDK_HEADERS | {
        "x-acs-action": "CreateKey",
        "x-acs-signature-nonce": "ca9424ba55fed5d4cd628a59dca7f508",
        "x-acs-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    query = [
        ("RotationInterval", "7d"),
        ("Description", "Schlüssel für 密钥 *~ a/b"),
        ("KeySpec", "Aliyun_AES_256"),
        ("EnableAutomaticRotation", "True"),
    ]
    assert acs3.authorization("POST", "/", query, headers, THROW_AWAY) == (
        "ACS3-HMAC-SHA256 Credential=KMTESTAKID0000000001,SignedHeaders=accept;host;user-agent;x-acs-action;"
        "x-acs-content-sha256;x-acs-credentials-provider;x-acs-date;x-acs-signature-nonce;x-acs-version,"
        "Signature=f989e67862e030662e485c467944e737d3caa022dfad0ea3c30caeb9e1a545b9"
    )


def test_a_body_of_the_sdk_gives_its_signature():
    headers = SDK_HEADERS | {
        "x-acs-action": "PutSecretValue",
        "content-type": "application/x-www-form-urlencoded",
        "x-acs-signature-nonce": "fd0067ee8594fa4a99db2aabab7255bc",
        "x-acs-content-sha256": "edf9e75b64d2d8c5c498a103028b2926e8f3f79854ea882d16e9c276cebc8f14",
    }
    query = [("SecretName", "db/conn"), ("VersionId", "v2"), ("VersionStages", '["ACSCurrent"]')]
    signed = acs3.authorization("POST", "/", query, headers, THROW_AWAY)
    assert signed.endswith("Signature=89d0557d4ac04451349ce2706dc1574fca6c9c96277faf4a2675f08e01dc0de9")


def test_a_signed_post_covers_path_body_and_every_header():
    def sign(operation="Encrypt", body=b"{}", **other):
        instant = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
        given = {"now": instant, "nonce": "00" * 16} | other
        return acs3.signed_post(operation, "127.0.0.1:8470", body, THROW_AWAY, **given)["authorization"]

    plain = sign()
    assert plain == sign()
    assert (
        "SignedHeaders=content-type;host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;"
        "x-acs-version," in plain
    )
    others = [
        sign(operation="Decrypt", action="Encrypt"), sign(body=b"{} "), sign(nonce="11" * 16), sign(action="Decrypt"),
        sign(content_type="application/msgpack"), sign(now=datetime(2026, 1, 2, 3, 4, 6, tzinfo=timezone.utc)),
        sign(version="2016-01-21"), sign(unsigned=("host",)),
    ]
    assert len({plain, *others}) == len(others) + 1
