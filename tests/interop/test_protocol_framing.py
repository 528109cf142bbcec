"""Frames after the welcome: which end the connection, and which unusual ones do not."""

import struct

import pytest

from keymill_tcp import MAX_FRAME, MAX_ID, ProtocolError, ServerError
from raw_msgpack import Pairs, Raw, encode, every_width, long_bin, long_str, nested

EXT = Raw(b"\xd4\x05\x00")
TIMESTAMP = Raw(b"\xd6\xff\x00\x00\x00\x01")
FLOAT_1 = [Raw(b"\xca\x3f\x80\x00\x00"), Raw(b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00")]


def framed(payload):
    return struct.pack(">I", len(payload)) + payload


def request(id_, operation="DescribeLimits", parameters=None):
    return framed(encode([id_, operation, {} if parameters is None else parameters]))


GOOD = encode([1, "DescribeLimits", {}])
ENDS_THE_CONNECTION = {
    "length_zero": struct.pack(">I", 0),
    "length_max_frame_and_one": struct.pack(">I", MAX_FRAME + 1),
    "length_of_all_ones": b"\xff\xff\xff\xff",
    "bytes_after_the_value": framed(GOOD + b"\xc0"),
    "two_values": framed(GOOD + GOOD),
    "value_cut_short": framed(GOOD[:-1]),
    "unused_byte": framed(b"\xc1"),
    "unused_byte_inside": framed(encode([1, "DescribeLimits", {"A": Raw(b"\xc1")}])),
    "array_of_4_gi": framed(b"\xdd\xff\xff\xff\xff"),
    "map_of_4_gi": framed(b"\xdf\xff\xff\xff\xff"),
    "bin_of_4_gib": framed(b"\xc6\xff\xff\xff\xff" + bytes(16)),
    "str_of_4_gib": framed(b"\xdb\xff\xff\xff\xff" + bytes(16)),
    "items_of_4_gi": framed(encode([1, "BatchDecrypt", {"Items": Raw(b"\xdd\xff\xff\xff\xff")}])),
    "item_of_4_gib": framed(encode([1, "BatchDecrypt", {"Items": [Raw(b"\xc6\xff\xff\xff\xff")]}])),
    "17_levels": framed(encode([1, "DescribeLimits", {"A": nested(15)}])),
    "100_000_arrays": framed(nested(100_000)),
    "100_000_maps": framed(b"\x81\xa1a" * 100_000 + b"\x80"),
    "100_000_arrays_in_parameters": framed(encode([1, "DescribeLimits", {"A": nested(100_000)}])),
    "nil": framed(b"\xc0"),
    "integer": framed(b"\x01"),
    "text": framed(encode("DescribeLimits")),
    "map": framed(encode({"Id": 1, "Operation": "DescribeLimits"})),
    "no_members": framed(encode([])),
    "one_member": framed(encode([1])),
    "two_members": framed(encode([1, "DescribeLimits"])),
    "four_members": framed(encode([1, "DescribeLimits", {}, None])),
    "id_0": request(0),
    "id_2_53_and_1": request(MAX_ID + 1),
    "id_2_64_less_1": request(2**64 - 1),
    "id_negative": request(-1),
    "id_float": request(FLOAT_1[0]),
    "id_double": request(FLOAT_1[1]),
    "id_text": request("1"),
    "id_bool": request(True),
    "id_nil": request(None),
    "id_extension": request(EXT),
    "id_bin": request(b"\x01"),
    "operation_bin": request(1, b"DescribeLimits"),
    "operation_integer": request(1, 7),
    "operation_nil": request(1, None),
    "parameters_array": request(1, parameters=Raw(b"\x90")),
    "parameters_nil": request(1, parameters=Raw(b"\xc0")),
    "parameters_text": request(1, parameters="{}"),
    "parameters_bin": request(1, parameters=b"\x80"),
    "parameters_extension": request(1, parameters=EXT),
    "a_response": framed(encode([1, 0, {}])),
    "a_challenge": framed(encode([0, "Challenge", {}])),
    "extension_as_the_value": framed(EXT),
    "timestamp_as_the_value": framed(TIMESTAMP),
    "float_as_the_value": framed(FLOAT_1[1]),
}


@pytest.mark.parametrize("data", ENDS_THE_CONNECTION.values(), ids=ENDS_THE_CONNECTION.keys())
def test_one_error_of_id_0_and_a_close(server, login, data):
    bystander, connection = login(), login()
    connection.send_bytes(data)
    error = connection.fatal()
    assert 400 <= error.status < 500 and not error.retryable, error
    assert bystander.call("DescribeLimits"), "another connection suffered"


@pytest.mark.parametrize("value", [*FLOAT_1, EXT, TIMESTAMP], ids=["float", "double", "extension", "timestamp"])
@pytest.mark.parametrize("place", ["TimeoutMs", "unknown", "item", "context_value"])
def test_floats_and_extensions_in_parameters_are_refused(conn, cmk, place, value):
    """The specification refuses them without saying whether the request or the connection pays: either is right."""
    parameters = {"KeyId": cmk, "Items": [b"a"]}
    parameters |= {
        "TimeoutMs": {"TimeoutMs": value},
        "unknown": {"Unknown": value},
        "item": {"Items": [b"a", value]},
        "context_value": {"EncryptionContext": {"a": value}},
    }[place]
    conn.request("BatchEncrypt", parameters)
    try:
        _, status, _ = conn.response()
    except ServerError as error:
        assert 400 <= error.status < 500
        assert conn.read_value() is None
    else:
        assert 400 <= status < 500
        assert conn.call("DescribeLimits")


def test_requests_before_the_broken_frame_are_answered_or_dropped_but_never_torn(conn):
    ids = [conn.request("DescribeLimits") for _ in range(10)]
    conn.send_frame(b"\xc1")
    answered = []
    with pytest.raises(ServerError) as caught:
        while True:
            answered.append(conn.response()[0])
    assert 400 <= caught.value.status < 500 and set(answered) <= set(ids)
    assert conn.read_value() is None


def test_nothing_after_a_broken_frame_is_done(conn, login):
    alias = "alias/interop-after-broken-frame"
    cmk = login().call("CreateKey")["KeyMetadata"]["KeyId"]
    create = request(2, "CreateAlias", {"AliasName": alias, "KeyId": cmk})
    conn.send_bytes(framed(b"\xc1") + create)
    conn.fatal()
    assert login().refusal("Encrypt", {"KeyId": alias, "Plaintext": b"a"}).status == 404


def test_an_id_in_flight_may_not_be_used_again(conn, cmk):
    # The first answer cannot be written out: it is larger than all socket buffers, and is not read yet.
    conn.request("BatchEncrypt", {"KeyId": cmk, "Items": [bytes(65_536)] * 200}, id_=7)
    conn.request("DescribeLimits", id_=7)
    with pytest.raises(ServerError) as caught:
        conn.response()
        conn.in_flight.add(7)
        conn.response()
    assert 400 <= caught.value.status < 500
    assert conn.read_value() is None


def test_an_id_may_be_used_again_once_answered(conn):
    for _ in range(3):
        conn.request("DescribeLimits", id_=7)
        assert conn.response()[:2] == (7, 0)


def test_ids_need_no_order_and_reach_2_53(conn):
    ids = [MAX_ID, 1, 2**32, 128, 65_536, 2**31]
    for id_ in ids:
        conn.request("DescribeLimits", id_=id_)
    assert {status for status, _ in conn.responses(ids).values()} == {0}


@pytest.mark.parametrize("form", every_width(5), ids=lambda form: form.hex())
def test_integers_may_come_in_any_width(conn, cmk, form):
    conn.in_flight.add(5)
    conn.send([form, "BatchGenerateDataKey", {"KeyId": cmk, "Count": form, "NumberOfBytes": form}])
    id_, status, body = conn.response()
    assert (id_, status) == (5, 0), body
    assert [len(plaintext) for _, plaintext in body["Items"]] == [5] * 5


@pytest.mark.parametrize("form", [b"\xcd\x27\x10", b"\xce\0\0\x27\x10", b"\xcf\0\0\0\0\0\0\x27\x10",
                                  b"\xd1\x27\x10", b"\xd2\0\0\x27\x10", b"\xd3\0\0\0\0\0\0\x27\x10"],
                         ids=lambda form: form.hex())
def test_a_timeout_may_come_in_any_width(conn, cmk, form):
    assert conn.call("Encrypt", {"KeyId": cmk, "Plaintext": b"a", "TimeoutMs": Raw(form)})


@pytest.mark.parametrize("array, str_, bin_, map_", [
    (b"\xdc\0\x03", 0xD9, 0xC4, b"\xde\0\x02"),
    (b"\xdd\0\0\0\x03", 0xDA, 0xC5, b"\xdf\0\0\0\x02"),
    (b"\x93", 0xDB, 0xC6, b"\x82"),
])
def test_headers_may_be_longer_than_needed(conn, cmk, array, str_, bin_, map_):
    pairs = [("KeyId", long_str(cmk, str_)), (long_str("Plaintext", str_), long_bin(b"wide", bin_))]
    parameters = map_ + encode(Pairs(pairs))[1:]
    conn.in_flight.add(1)
    conn.send(Raw(array + encode(1) + long_str("Encrypt", str_) + parameters))
    _, status, body = conn.response()
    assert status == 0, body
    conn.last_id = 1
    assert conn.call("Decrypt", {"CiphertextBlob": body["CiphertextBlob"]})["Plaintext"] == b"wide"


def test_16_levels_are_not_too_deep(conn):
    error = conn.refusal("DescribeLimits", {"Deep": nested(14)})
    assert "Deep" in error.message
    assert conn.call("DescribeLimits")


def test_frames_may_come_byte_by_byte_and_several_at_once(conn):
    conn.in_flight |= {1, 2, 3, 4}
    for byte in request(1):
        conn.send_bytes(bytes([byte]))
    assert conn.response()[:2] == (1, 0)
    conn.send_bytes(request(2) + request(3) + request(4)[:7])
    assert set(conn.responses([2, 3])) == {2, 3}
    conn.send_bytes(request(4)[7:])
    assert conn.response()[:2] == (4, 0)


def test_a_frame_of_exactly_max_frame_is_read(conn):
    padding = MAX_FRAME - len(encode([1, "DescribeLimits", {"Padding": Raw(b"\xc6\0\0\0\0")}]))
    payload = encode([1, "DescribeLimits", {"Padding": long_bin(bytes(padding), 0xC6)}])
    assert len(payload) == MAX_FRAME
    conn.in_flight.add(1)
    conn.send_frame(payload)
    id_, status, body = conn.response()
    assert id_ == 1 and 400 <= status < 500 and "Padding" in body["Message"]
    conn.last_id = 1
    assert conn.call("DescribeLimits")


def test_memory_follows_the_bytes_that_came_not_the_length_announced(server, login):
    connections = [login() for _ in range(64)]
    before = server.memory("VmData")
    for connection in connections:
        # The answer to the whole request shows that the server has read what came in the same packet.
        connection.in_flight.add(1)
        connection.send_bytes(request(1) + struct.pack(">I", MAX_FRAME) + b"\x93\x01")
        assert connection.response()[:2] == (1, 0)
    grown = server.memory("VmData") - before
    assert grown < 256 * 1024 * 1024, f"{grown} bytes for 64 announced frames of {MAX_FRAME}"


def test_a_connection_cut_inside_a_frame_harms_nobody(login):
    for cut in (1, 3, 4, 5, 9):
        connection = login()
        connection.send_bytes(request(1)[:cut])
        connection.finish_sending()
        try:
            answer = connection.read_value()
        except ProtocolError as error:
            raise AssertionError(f"cut after {cut} bytes: {error}") from error
        assert answer is None or (answer[0] == 0 and answer[1] >= 400)
    assert login().call("DescribeLimits")
