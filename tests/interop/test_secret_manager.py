"""The cloud's published caching client of secrets, `aliyun-secret-manager-client`, against the server over HTTPS: values and their cache, the job
that refreshes them, its back-off. It checks no certificate (`verify=False` stands in it), so whoever is on the way can answer it: that is its
own, and no setting of it changes that. The older SDK, which it is made of, does check, and makes the secrets here."""

import base64
import datetime
import importlib
import ipaddress
import json
import logging
import socket
import threading
import time
import uuid

import pytest

pytest.importorskip("alibaba_cloud_secretsmanager_client",
                    reason="aliyun-secret-manager-client is not here: requirements-secret-manager.txt has it")

from alibaba_cloud_secretsmanager_client.model.region_info import RegionInfo
from alibaba_cloud_secretsmanager_client.secret_manager_cache_client_builder import SecretManagerCacheClientBuilder
from alibaba_cloud_secretsmanager_client.service.default_secret_manager_client_builder import DefaultSecretManagerClientBuilder
from alibaba_cloud_secretsmanager_client.service.full_jitter_back_off_strategy import FullJitterBackoffStrategy
from aliyunsdkcore.acs_exception.exceptions import ClientException, ServerException
from aliyunsdkcore.client import AcsClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from server_process import ServerProcess

PATIENCE_S = 30


def certificate(directory):
    """Makes a CA and a certificate of it for 127.0.0.1; returns the paths of both and of the key."""
    now = datetime.datetime.utcnow()

    def signed(name, key, issuer, issuer_key, extension, is_ca):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        if extension:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def named(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = signed(named("interop CA"), ca_key, named("interop CA"), ca_key, None, True)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    own = signed(named("interop"), key, named("interop CA"), ca_key, address, False)
    paths = [directory / name for name in ("ca.pem", "http.pem", "http.key")]
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(ca.public_bytes(pem))
    paths[1].write_bytes(own.public_bytes(pem))
    paths[2].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    paths[2].chmod(0o600)
    return paths


@pytest.fixture(scope="module")
def https(tmp_path_factory):
    """A server that speaks TLS."""
    directory = tmp_path_factory.mktemp("keymill-https")
    directory.chmod(0o700)
    ca, own, key = certificate(directory)
    config = directory / "keymill.toml"
    config.write_text(f'[http.tls]\ncertificate = "{own}"\nkey = "{key}"\n')
    process = ServerProcess(directory, config=config, ca=ca)
    yield process
    assert process.stop() == 0, process.log_tail()


@pytest.fixture
def sdk(https):
    """Calls the older SDK, which checks the server's certificate."""
    keys = https.credentials
    client = AcsClient(keys.access_key_id, keys.access_key_secret, "cn-hangzhou", verify=str(https.ca))

    def call(operation, **parameters):
        module = importlib.import_module(f"aliyunsdkkms.request.v20160120.{operation}Request")
        request = getattr(module, f"{operation}Request")()
        request.set_endpoint(https.http)
        for name, value in parameters.items():
            getattr(request, f"set_{name}")(value)
        return json.loads(client.do_action_with_exception(request))

    return call


@pytest.fixture
def name():
    return f"apps/{uuid.uuid4()}"


@pytest.fixture
def cache(https):
    """Returns a function that makes caching clients; they are closed after the test."""
    opened = []

    def make(endpoint=https.http, back_off=None, **ttls):
        keys = https.credentials
        client = DefaultSecretManagerClientBuilder.standard().with_access_key(keys.access_key_id, keys.access_key_secret)
        # A region is named anew each time: endpoints are kept by it, in the whole process.
        client = client.add_region_info(RegionInfo(f"test-{uuid.uuid4()}", endpoint=endpoint))
        client = client.with_back_off_strategy(back_off or FullJitterBackoffStrategy(3, 10, 50)).build()
        builder = SecretManagerCacheClientBuilder.new_cache_client_builder(client).with_logger(logging.getLogger("quiet"))
        for secret, ttl in ttls.items():
            builder = builder.with_secret_ttl(secret.replace("__", "/").replace("_", "-"), ttl)
        opened.append(builder.build())
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def ttl_of(name, ttl):
    return {name.replace("-", "_").replace("/", "__"): ttl}


def eventually(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.05)


def test_a_value_is_read_and_kept_until_it_is_refreshed(sdk, cache, name):
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="öne &=+%")
    client = cache()
    info = client.get_secret_info(name)
    assert (info.secret_name, info.secret_value, info.version_id) == (name, "öne &=+%", "v1")
    assert (info.secret_data_type, info.secret_type) == ("text", "Generic")
    sdk("PutSecretValue", SecretName=name, VersionId="v2", SecretData="two")
    assert client.get_secret_value(name) == "öne &=+%", "it is cached"
    assert client.refresh_now(name)
    assert client.get_secret_value(name) == "two"
    with pytest.raises(ValueError):
        client.get_binary_value(name)


def test_a_job_refreshes_what_is_cached(sdk, cache, name):
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="one")
    client = cache(**ttl_of(name, 1_000))
    assert client.get_secret_value(name) == "one"
    sdk("PutSecretValue", SecretName=name, VersionId="v2", SecretData="two")
    kept = client.cache_secret_store_strategy
    # What the store holds, not what asking brings: the job alone changes that.
    eventually(lambda: kept.get_cache_secret_info(name).secret_info.secret_value == "two")


def test_bytes_are_read(sdk, cache, name):
    value = base64.b64encode(bytes(range(256))).decode()
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData=value, SecretDataType="binary")
    client = cache()
    assert client.get_secret_info(name).secret_value == value
    with pytest.raises(ValueError):
        client.get_secret_value(name)


def test_a_refusal_is_told_at_once_with_its_code(sdk, cache, name):
    client = cache()
    with pytest.raises(ServerException) as refused:
        client.get_secret_value(name)
    assert (refused.value.get_error_code(), refused.value.get_http_status()) == ("Forbidden.ResourceNotFound", 404)
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="x")
    assert client.get_secret_value(name) == "x"
    sdk("DeleteSecret", SecretName=name, ForceDeleteWithoutRecovery="true")
    assert not client.refresh_now(name)


class Relay:
    """Stands before the server, and hangs up on as many connections as it is told."""

    def __init__(self, target):
        host, port = target.split(":")
        self.target, self.hang_up, self.taken = (host, int(port)), 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.taken += 1
            if self.hang_up:
                self.hang_up -= 1
                connection.close()
                continue
            server = socket.create_connection(self.target)
            for source, sink in ((connection, server), (server, connection)):
                threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def pump(source, sink):
        try:
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_it_backs_off_from_a_server_that_is_away_and_comes_back(https, sdk, cache, name):
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="x")
    relay = Relay(https.http)
    waits = []

    class BackOff(FullJitterBackoffStrategy):
        def get_wait_time_exponential(self, retry_times):
            waits.append(super().get_wait_time_exponential(retry_times))
            # The server is back for the last try that is left.
            relay.hang_up = 0 if retry_times == 2 and is_back else 1_000
            return waits[-1]

    for is_back in (True, False):
        relay.hang_up = 1_000
        waits.clear()
        client = cache(endpoint=relay.address, back_off=BackOff(3, 10, 50))
        if is_back:
            assert client.get_secret_value(name) == "x"
            assert waits == [10, 20, 40]
        else:
            with pytest.raises(ClientException):
                client.get_secret_value(name)
            assert waits == [10, 20, 40, 50, -1]
    relay.listener.close()
