"""What does not open by RSAES-OAEP is told apart by nothing that the caller sees, wherever it fails (Manger 2001)."""

import hashlib

import pytest

from http_front import b64
from oaep import PublicKey, encode
from server_process import BULK_MODE

TEXT = b"text for the holder of the key"
SHA_1, SHA_256 = ("RSAES_OAEP_SHA_1", "sha1"), ("RSAES_OAEP_SHA_256", "sha256")


@pytest.fixture(scope="module")
def pair(server):
    """A key pair that decrypts: what requests name it by, and its public half."""
    with server.login() as connection:
        made = connection.call("CreateKey", {"KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT/DECRYPT"})["KeyMetadata"]
        assert made["ProtectionLevel"] == ("HSM" if BULK_MODE else "SOFTWARE")
        names = {"KeyId": made["KeyId"], "KeyVersionId": made["PrimaryKeyVersion"]}
        pem = connection.call("GetPublicKey", names)["PublicKey"]
    return names, PublicKey(pem)


def spoilt(key, digest):
    """Ciphertexts that fail, each at a place of its own."""
    other = "sha256" if digest == "sha1" else "sha1"
    length = hashlib.new(digest).digest_size
    label_hash = hashlib.new(digest, b"").digest()
    space = key.size - 2 * length - 2 - len(TEXT)

    def sealed(message=TEXT, hash_of=digest, **wrong):
        return key.raw(encode(message, key.size, hash_of, **wrong))

    good = sealed()
    yield "first_byte", sealed(first=1)
    yield "first_byte_and_all_else", key.raw(b"\x01" + bytes(key.size - 1))
    yield "label", sealed(label=b"label")
    for bit in (0, 8 * length - 1):
        flipped = bytearray(label_hash)
        flipped[bit // 8] ^= 1 << (bit % 8)
        yield f"label_hash_{bit}", sealed(label_hash=bytes(flipped))
    yield "no_separator", sealed(bytes(len(TEXT)), separator=0)
    yield "separator_of_2", sealed(separator=2)
    for at in (0, space // 2, space - 1):
        padding = bytearray(space)
        padding[at] = 0x80
        yield f"padding_{at}", sealed(padding=bytes(padding))
    yield "mask_by_another_hash", sealed(mask_digest=other)
    yield "another_hash", sealed(hash_of=other)
    yield "another_hash_for_the_label", sealed(hash_of=other, mask_digest=digest)
    yield "first_byte_and_label", sealed(first=1, label=b"label")
    for name, value in (("0", 0), ("1", 1), ("n_less_1", key.n - 1), ("n", key.n), ("most", (1 << 8 * key.size) - 1)):
        yield f"number_{name}", key.number(value)
    for name, cut in (("empty", b""), ("1_byte", good[:1]), ("1_less", good[:-1]), ("1_less_in_front", good[1:])):
        yield name, cut
    for name, grown in (("1_more", good + b"\x00"), ("1_more_in_front", b"\x00" + good), ("twice", good + good)):
        yield name, grown


@pytest.mark.parametrize("algorithm, digest", [SHA_1, SHA_256], ids=lambda part: part)
def test_whatever_does_not_open_is_answered_alike(front, pair, algorithm, digest):
    names, key = pair
    parameters = names | {"Algorithm": algorithm}

    def decrypt(ciphertext):
        return front.post("AsymmetricDecrypt", parameters | {"CiphertextBlob": b64(ciphertext)})

    good = decrypt(key.raw(encode(TEXT, key.size, digest)))
    if BULK_MODE and good.status != 200 and (algorithm, digest) != SHA_1:
        assert good.error()["Code"] == "UnsupportedOperation", good.body
        pytest.skip(f"the module has no {algorithm}")
    assert good.json()["Plaintext"] == b64(TEXT), "what is put right opens"
    answers = {}
    for name, ciphertext in spoilt(key, digest):
        answer = decrypt(ciphertext)
        error = answer.error()
        face = answer.status, error["Code"], error["Message"], len(answer.body), len(error["RequestId"])
        answers.setdefault(face, []).append(name)
    assert len(answers) == 1, answers
    (status, code, message, *_), = answers
    assert (status, code) == (400, "InvalidParameter")
    # Items of a batch, too, and a good one among them opens.
    ciphertexts = [ciphertext for _, ciphertext in spoilt(key, digest)]
    ciphertexts.insert(7, key.raw(encode(TEXT, key.size, digest)))
    batch = front.call("BatchAsymmetricDecrypt", parameters | {"Items": [b64(item) for item in ciphertexts]})
    failed = [i for i in range(len(ciphertexts)) if i != 7]
    assert batch["Errors"] == [[i, code, message] for i in failed]
    assert batch["Items"] == [b64(TEXT) if i == 7 else None for i in range(len(ciphertexts))]
    assert decrypt(key.raw(encode(TEXT, key.size, digest))).json()["Plaintext"] == b64(TEXT)
