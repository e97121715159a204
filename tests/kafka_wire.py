"""Just enough raw Kafka wire for tests that need to see, or to break, single requests. Standard library only.

Old, non-flexible versions on purpose: their bytes can be read in a trace and damaged by hand.
"""

import io
import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, CREATE_TOPICS, DELETE_TOPICS, API_VERSIONS = 0, 1, 2, 3, 19, 20, 18
DELETE_RECORDS, DESCRIBE_LOG_DIRS = 21, 35
OFFSET_OUT_OF_RANGE = 1
# By the number that a batch's attributes have.
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# Error codes that a client tries again after: what it sent is not there, or nobody knows yet.
RETRIABLE = {
    5: "LEADER_NOT_AVAILABLE", 6: "NOT_LEADER_OR_FOLLOWER", 7: "REQUEST_TIMED_OUT", 19: "NOT_ENOUGH_REPLICAS",
    56: "KAFKA_STORAGE_ERROR", 89: "THROTTLING_QUOTA_EXCEEDED",
}

_CRC_TABLE = []
for _n in range(256):
    _c = _n
    for _ in range(8):
        _c = (_c >> 1) ^ (0x82F63B78 if _c & 1 else 0)
    _CRC_TABLE.append(_c)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(number):
    zigzag = (number << 1) ^ (number >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def string(text):
    return struct.pack(">h", -1) if text is None else struct.pack(">h", len(text)) + text.encode()


def blob(data):
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def batch(values, timestamp_ms=None, count=None, crc=None, length=None, magic=2, last_delta=None):
    """A v2 record batch of `values`, of now; the keyword arguments tell lies in its header."""
    timestamp_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    records = b""
    for delta, value in enumerate(values):
        record = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + varint(0)
        records += varint(len(record)) + record
    covered = struct.pack(
        ">hiqqqhii", 0, len(values) - 1 if last_delta is None else last_delta, timestamp_ms, timestamp_ms, -1, -1, -1,
        len(values) if count is None else count,
    ) + records
    checksum = crc32c(covered) if crc is None else crc
    after_length = struct.pack(">ibI", -1, magic, checksum) + covered
    return struct.pack(">qi", 0, len(after_length) if length is None else length) + after_length


def produce_body(topic, partition, records, acks=-1, timeout_ms=10_000):
    data = array([string(topic) + array([struct.pack(">i", partition) + blob(records)])])
    return string(None) + struct.pack(">hi", acks, timeout_ms) + data


def request(api, version, correlation_id, body, client="test"):
    frame = struct.pack(">hhi", api, version, correlation_id) + string(client) + body
    return struct.pack(">i", len(frame)) + frame


class Reader(io.BytesIO):
    def number(self, form):
        return struct.unpack(">" + form, self.read(struct.calcsize(form)))[0]

    def string(self):
        length = self.number("h")
        return None if length < 0 else self.read(length).decode()

    def blob(self):
        length = self.number("i")
        return None if length < 0 else self.read(length)

    def array(self, item):
        return [item() for _ in range(self.number("i"))]


class Closed(Exception):
    """The broker closed the connection."""


class Connection:
    """One request at a time; answers are matched by correlation id."""

    def __init__(self, bootstrap, timeout_s=10):
        host, port = bootstrap.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation_id = 0

    @property
    def local_port(self):
        return self.socket.getsockname()[1]

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.socket.sendall(data)

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError as reset:
                raise Closed("reset") from reset
            if not piece:
                raise Closed(f"after {len(data)} of {count} bytes")
            data += piece
        return bytes(data)

    def receive(self):
        """(correlation id, reader behind it)."""
        (length,) = struct.unpack(">i", self._exactly(4))
        body = self._exactly(length)
        return struct.unpack(">i", body[:4])[0], Reader(body[4:])

    def call(self, api, version, body):
        self.correlation_id += 1
        self.send(request(api, version, self.correlation_id, body))
        correlation_id, reader = self.receive()
        assert correlation_id == self.correlation_id, f"correlation id {correlation_id}, sent {self.correlation_id}"
        return reader

    def api_versions(self):
        reader = self.call(API_VERSIONS, 0, b"")
        code = reader.number("h")
        return code, {key: (low, high) for key, low, high in reader.array(
            lambda: (reader.number("h"), reader.number("h"), reader.number("h")))}

    def create_topics(self, names, partitions=3, configs=None, replicas=None):
        """With one replica each, or these of each partition, by its number."""
        own = array([string(key) + string(str(value)) for key, value in (configs or {}).items()])
        numbers = [array([struct.pack(">i", broker) for broker in brokers]) for brokers in replicas or []]
        assigned = array([struct.pack(">i", partition) + brokers for partition, brokers in enumerate(numbers)])
        count = struct.pack(">ih", -1, -1) if replicas else struct.pack(">ih", partitions, 1)
        topics = array([string(name) + count + assigned + own for name in names])
        reader = self.call(CREATE_TOPICS, 2, topics + struct.pack(">ib", 30_000, 0))
        reader.number("i")
        answers = reader.array(lambda: (reader.string(), reader.number("h"), reader.string()))
        return {name: (code, message) for name, code, message in answers}

    def delete_topics(self, names):
        """{name: error}"""
        body = array([string(name) for name in names]) + struct.pack(">i", 30_000)
        reader = self.call(DELETE_TOPICS, 1, body)
        reader.number("i")
        return dict(reader.array(lambda: (reader.string(), reader.number("h"))))

    def metadata(self, topics, auto_create=False):
        """{topic: (error, {partition: (error, leader)})}"""
        body = struct.pack(">i", -1) if topics is None else array([string(topic) for topic in topics])
        reader = self.call(METADATA, 4, body + struct.pack(">b", auto_create))
        reader.number("i")
        reader.array(lambda: (reader.number("i"), reader.string(), reader.number("i"), reader.string()))
        reader.string()
        reader.number("i")

        def partition():
            code, index, leader = reader.number("h"), reader.number("i"), reader.number("i")
            reader.array(lambda: reader.number("i"))
            reader.array(lambda: reader.number("i"))
            return index, (code, leader)

        def topic():
            code, name, _ = reader.number("h"), reader.string(), reader.number("b")
            return name, (code, dict(reader.array(partition)))

        return dict(reader.array(topic))

    def produce(self, topic, partition, records, acks=-1, timeout_ms=10_000):
        """(error code, base offset)"""
        reader = self.call(PRODUCE, 7, produce_body(topic, partition, records, acks, timeout_ms))
        return self.produce_answer(reader)

    @staticmethod
    def produce_answer(reader):
        reader.number("i")
        reader.string()
        reader.number("i")
        reader.number("i")
        return reader.number("h"), reader.number("q")

    def delete_records(self, topic, partition, before, timeout_ms=10_000):
        """(low watermark, error code)"""
        wanted = array([string(topic) + array([struct.pack(">iq", partition, before)])])
        reader = self.call(DELETE_RECORDS, 0, wanted + struct.pack(">i", timeout_ms))
        reader.number("i")
        reader.number("i")
        reader.string()
        reader.number("i")
        reader.number("i")
        return reader.number("q"), reader.number("h")

    def log_sizes(self):
        """{(topic, partition): bytes}"""
        reader = self.call(DESCRIBE_LOG_DIRS, 1, struct.pack(">i", -1))
        reader.number("i")
        sizes = {}
        for _ in range(reader.number("i")):
            reader.number("h")
            reader.string()
            for _ in range(reader.number("i")):
                topic = reader.string()
                for _ in range(reader.number("i")):
                    partition, size = reader.number("i"), reader.number("q")
                    reader.number("q")
                    reader.number("b")
                    sizes[topic, partition] = size
        return sizes

    def start_offset(self, topic, partition):
        return self.end_offset(topic, partition, -2)

    def end_offset(self, topic, partition, which=-1):
        body = struct.pack(">i", -1) + array([string(topic) + array([struct.pack(">iq", partition, which)])])
        reader = self.call(LIST_OFFSETS, 1, body)
        reader.number("i")
        reader.string()
        reader.number("i")
        reader.number("i")
        code, _, offset = reader.number("h"), reader.number("q"), reader.number("q")
        assert code == 0, f"ListOffsets of {topic}-{partition}: error {code}"
        return offset

    def fetch(self, topic, partition, offset, max_wait_ms=500, max_bytes=8 << 20):
        """(error code, high watermark, record bytes)"""
        wanted = array([string(topic) + array([struct.pack(">iqi", partition, offset, max_bytes)])])
        reader = self.call(FETCH, 4, struct.pack(">iiiib", -1, max_wait_ms, 1, 16 << 20, 0) + wanted)
        reader.number("i")
        reader.number("i")
        reader.string()
        reader.number("i")
        reader.number("i")
        code, high, _ = reader.number("h"), reader.number("q"), reader.number("q")
        aborted = reader.number("i")
        reader.read(max(aborted, 0) * 16)
        return code, high, reader.blob() or b""

    def count_records(self, topic, partition):
        """How many records a partition has, all of them fetched and none missing between two; for much data: no CRCs."""
        return sum(self.records_by_codec(topic, partition).values())

    def records_by_codec(self, topic, partition):
        """The same, by the name of the codec in which they are stored."""
        end, offset, found = self.end_offset(topic, partition), 0, {}
        while offset < end:
            code, _, data = self.fetch(topic, partition, offset)
            assert code == 0, f"Fetch of {topic}-{partition} at {offset}: error {code}"
            before = offset
            for base, count, codec in batches(data):
                assert base <= offset, f"{topic}-{partition}: a batch at {base} where {offset} was due"
                more = max(base + count - offset, 0)
                found[codec] = found.get(codec, 0) + more
                offset += more
            assert offset > before, f"{topic}-{partition}: nothing at offset {offset} below the end {end}"
        return found

    def read_values(self, topic, partition, checked=True):
        """[(offset, value)] of a whole partition of uncompressed records; `checked` costs 0.2 s per MB."""
        end, offset, values = self.end_offset(topic, partition), 0, []
        while offset < end:
            code, _, data = self.fetch(topic, partition, offset)
            assert code == 0, f"Fetch of {topic}-{partition} at {offset}: error {code}"
            before = offset
            for found, value in decode(data, checked):
                if found >= offset:
                    assert found == offset, f"{topic}-{partition}: offset {found} where {offset} was due"
                    values.append((found, value))
                    offset = found + 1
            assert offset > before, f"{topic}-{partition}: nothing at offset {offset} below the end {end}"
        return values


def _read_varint(data, at):
    shift = number = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return (number >> 1) ^ -(number & 1), at


def batches(data):
    """(base offset, record count, name of the codec) of each whole batch."""
    start = 0
    while start + 61 <= len(data):
        base, length = struct.unpack_from(">qi", data, start)
        if start + 12 + length > len(data):
            return
        yield base, struct.unpack_from(">i", data, start + 57)[0], CODECS[data[start + 22] & 7]
        start += 12 + length


def decode(data, checked=True):
    """[(offset, value)] of uncompressed batches; a partial batch at the end is left out."""
    records, start = [], 0
    while start + 61 <= len(data):
        base, length = struct.unpack_from(">qi", data, start)
        end = start + 12 + length
        if end > len(data):
            break
        (crc,) = struct.unpack_from(">I", data, start + 17)
        assert not checked or crc == crc32c(data[start + 21:end]), f"CRC of the batch at offset {base} is wrong"
        (count,) = struct.unpack_from(">i", data, start + 57)
        at = start + 61
        for _ in range(count):
            size, at = _read_varint(data, at)
            next_record = at + size
            _, at = _read_varint(data, at + 1)
            delta, at = _read_varint(data, at)
            key, at = _read_varint(data, at)
            at += max(key, 0)
            size, at = _read_varint(data, at)
            records.append((base + delta, data[at:at + size]))
            at = next_record
        start = end
    return records
