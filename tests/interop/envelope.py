"""The envelope format, version 1, from its document; the stream in it is opened and sealed by Tink itself."""

import io
import struct
import uuid
from dataclasses import dataclass

import tink
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

MAGIC = b"KMENV\x00\x01\x01"
SEGMENT = 1 << 20
START = 40
TAG = 16

streaming_aead.register()


@dataclass
class Header:
    """What stands before the stream; `raw` is its associated data."""

    key_id: str
    edk: bytes
    context: dict
    raw: bytes


def build(key_id, edk, context):
    """Returns the bytes of a header."""
    canonical = struct.pack(">I", len(context))
    for key, value in sorted((key.encode(), value.encode()) for key, value in context.items()):
        canonical += struct.pack(">I", len(key)) + key + struct.pack(">I", len(value)) + value
    return (
        MAGIC + uuid.UUID(key_id).bytes + struct.pack(">H", len(edk)) + edk
        + struct.pack(">I", len(canonical)) + canonical
    )


def parse(envelope):
    """Returns the header and the stream of an envelope."""
    assert envelope[:8] == MAGIC
    key_id = str(uuid.UUID(bytes=envelope[8:24]))
    (length,) = struct.unpack_from(">H", envelope, 24)
    edk, at = envelope[26:26 + length], 26 + length
    (length,) = struct.unpack_from(">I", envelope, at)
    canonical, end = envelope[at + 4:at + 4 + length], at + 4 + length
    (count,) = struct.unpack_from(">I", canonical)
    texts, at = [], 4
    for _ in range(2 * count):
        (length,) = struct.unpack_from(">I", canonical, at)
        texts.append(canonical[at + 4:at + 4 + length].decode())
        at += 4 + length
    assert at == len(canonical)
    context = dict(zip(texts[::2], texts[1::2]))
    raw = envelope[:end]
    assert build(key_id, edk, context) == raw, "the header has one spelling"
    return Header(key_id, edk, context, raw), envelope[end:]


def primitive(data_key):
    """Returns Tink's streaming AEAD of the suite, whose key is the data key."""
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
        version=0,
        key_value=data_key,
        params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
            ciphertext_segment_size=SEGMENT, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
        ),
    )
    keyset = tink_pb2.Keyset(primary_key_id=1)
    keyset.key.add(
        key_data=tink_pb2.KeyData(
            type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
            value=key.SerializeToString(),
            key_material_type=tink_pb2.KeyData.SYMMETRIC,
        ),
        status=tink_pb2.ENABLED,
        key_id=1,
        output_prefix_type=tink_pb2.RAW,
    )
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


def open_stream(data_key, header, stream):
    """Has Tink open a stream."""
    with primitive(data_key).new_decrypting_stream(io.BytesIO(stream), header) as opened:
        return opened.read()


class _Kept(io.BytesIO):
    """Keeps what was written when Tink closes it."""

    def close(self):
        self.kept = self.getvalue()
        super().close()


def seal_stream(data_key, header, payload):
    """Has Tink seal a payload."""
    out = _Kept()
    with primitive(data_key).new_encrypting_stream(out, header) as sealing:
        sealing.write(payload)
    return out.kept
