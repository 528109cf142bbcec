"""MessagePack as a peer might write it, not as a library would: repeated keys, wide integers, long headers.

The library's encoder stays in charge of every ordinary value; only `Raw` and `Pairs` bring what it refuses to write.
"""

import struct

import msgpack


class Raw(bytes):
    """Bytes that are MessagePack already and are put in as they stand."""


class Pairs(list):
    """A map as a list of pairs, so that a key may come twice."""


def encode(value):
    """Returns the MessagePack of `value`, in which `Raw` and `Pairs` may stand at any depth."""
    packer = msgpack.Packer(use_bin_type=True)
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, dict):
        value = Pairs(value.items())
    if isinstance(value, Pairs):
        return packer.pack_map_header(len(value)) + b"".join(encode(k) + encode(v) for k, v in value)
    if isinstance(value, list):
        return packer.pack_array_header(len(value)) + b"".join(encode(item) for item in value)
    return packer.pack(value)


def every_width(number):
    """Returns `number`, which is in 0..=127, in each of the nine integer forms that can hold it."""
    wide = [
        (0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q"),
        (0xD0, ">b"), (0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q"),
    ]
    return [Raw(bytes([number]))] + [Raw(bytes([head]) + struct.pack(form, number)) for head, form in wide]


def long_str(text, head):
    """Returns `text` under the str header `head` (0xD9, 0xDA or 0xDB), whatever its length."""
    return _headed(text.encode(), head, {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"})


def long_bin(data, head):
    """Returns `data` under the bin header `head` (0xC4, 0xC5 or 0xC6), whatever its length."""
    return _headed(data, head, {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"})


def nested(levels):
    """Returns `levels` arrays, each inside the one before, the innermost empty."""
    return Raw(b"\x91" * (levels - 1) + b"\x90")


def _headed(data, head, forms):
    return Raw(bytes([head]) + struct.pack(forms[head], len(data)) + data)
