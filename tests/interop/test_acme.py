"""ACME (RFC 8555): certbot obtains, renews and revokes, and its protocol library says what certbot does not. Names are looked up at a DNS server of
a few lines, over TCP, which knows every name of this machine's loopback."""

import base64
import json
import datetime
import os
import socket
import socketserver
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

pytest.importorskip("certbot", reason="certbot is not here: requirements-acme.txt has it")

import josepy as jose
from acme import challenges, client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store
from http_front import Front
from server_process import ServerProcess

CERTBOT = Path(sys.executable).parent / "certbot"
LATER = datetime.datetime.now() + datetime.timedelta(minutes=10)
REQUESTER = "RbacPermission/Template/CertificateRequester"
NAMES = ["*.shop.example", "shop.example", "127.0.0.1"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Names(socketserver.ThreadingTCPServer):
    """A resolver over TCP: every name is at 127.0.0.1, and the texts of a name are the lines of a file."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, directory):
        super().__init__(("127.0.0.1", 0), Answer)
        self.texts = directory
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        asked = self.rfile.read(int.from_bytes(self.rfile.read(2), "big"))
        labels, at = [], 12
        while length := asked[at]:
            labels.append(asked[at + 1:at + 1 + length].decode())
            at += 1 + length
        file = self.server.texts / ".".join(labels).lower()
        kind = int.from_bytes(asked[at + 1:at + 3], "big")
        texts = file.read_text().split() if kind == 16 and file.exists() else []
        found = {1: [bytes([127, 0, 0, 1])], 16: [bytes([len(text)]) + text.encode() for text in texts]}.get(kind, [])
        records = b"".join(b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1\0\0\0\x3c" + len(data).to_bytes(2, "big") + data for data in found)
        answer = asked[:2] + b"\x81\x80\0\1" + len(found).to_bytes(2, "big") + b"\0\0\0\0" + asked[12:at + 5] + records
        self.wfile.write(len(answer).to_bytes(2, "big") + answer)


class Ca:
    """A server that offers ACME, for an authority `issuing` below a root."""

    def __init__(self, directory):
        self.texts, self.http_port = directory / "texts", free_port()
        self.texts.mkdir()
        self.names, port = Names(self.texts), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.config = directory / "acme.toml"
        self.config.write_text(f"""
[acme]
url = "{self.url}"
authority = "issuing"
[acme.validation]
resolvers = ["127.0.0.1:{self.names.server_address[1]}"]
reach = ["127.0.0.0/8"]
http_port = {self.http_port}
rest_ms = 50
""")
        self.process = ServerProcess(directory, config=self.config, http=f"127.0.0.1:{port}")
        self.front = Front(self.process.http, self.process.credentials)
        self("CreateCertificateAuthority", AuthorityName="root", Subject="CN=Root,O=Example")
        self("CreateCertificateAuthority", AuthorityName="issuing", Parent="root", Subject="CN=Issuing,O=Example", PathLength=0,
             AccessPoints=[{"AccessPoint": name, "Profiles": ["server"], "AllowedNames": NAMES} for name in ("shop", "till")])
        self("CreatePolicy", Name="issue", KmsInstance="shared", Permissions=[REQUESTER], Resources=["authority/issuing"])
        for name in ("shop", "till", "stranger"):
            self("CreateApplicationAccessPoint", Name=name, Policies=["issue"])

    def __call__(self, operation, **parameters):
        return self.front.call(operation, parameters)

    def binding(self, aap="shop"):
        return self("CreateAcmeBinding", AapName=aap)

    def get(self, path):
        return self.front.send(path, {"host": self.front.host}, method="GET")

    def authority(self, name):
        return x509.load_der_x509_certificate(self.get(f"/pki/{name}.crt").body)

    def revoked(self):
        return {row.serial_number for row in x509.load_der_x509_crl(self.get("/pki/issuing.crl").body)}

    def trusts(self, chain, host):
        """Validates a chain, leaf first, for a host."""
        leaf, *others = x509.load_pem_x509_certificates(chain)
        verifier = PolicyBuilder().store(Store([self.authority("root")])).build_server_verifier(host)
        return verifier.verify(leaf, others)[0]


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    ca = Ca(tmp_path_factory.mktemp("acme"))
    yield ca
    code = ca.process.stop()
    assert code == 0, f"the server exited with {code}:\n{ca.process.log_tail()}"


class Certbot:
    """certbot, with folders and an account of its own."""

    def __init__(self, ca, directory):
        self.ca, self.directory = ca, directory
        binding = ca.binding()
        self.ini = directory / "eab.ini"
        self.ini.write_text(f"eab-kid = {binding['ClientKeyId']}\neab-hmac-key = {binding['HmacKey']}\n")

    def __call__(self, command, *arguments, check=True):
        folders = [part for name in ("config", "work", "logs") for part in (f"--{name}-dir", self.directory / name)]
        done = subprocess.run(
            [CERTBOT, command, "--config", self.ini, *folders, "--server", f"{self.ca.url}/acme/directory", "-n", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=120, env=os.environ | {"HOME": str(self.directory)})
        told = (done.stdout + done.stderr).decode()
        if check:
            assert done.returncode == 0, f"{told}\n{self.ca.process.log_tail()}"
        return done.returncode == 0, told

    def obtain(self, name, *arguments, by=("--standalone",), **options):
        return self("certonly", *by, "--http-01-port", str(self.ca.http_port), "--http-01-address", "127.0.0.1", "--agree-tos", "-m",
                    "pki@example.com", "--no-eff-email", "--cert-name", name, *arguments, **options)

    def file(self, name, part):
        return self.directory / "config" / "live" / name / f"{part}.pem"

    def leaf(self, name):
        return x509.load_pem_x509_certificate(self.file(name, "cert").read_bytes())


@pytest.fixture
def certbot(ca, tmp_path):
    return Certbot(ca, tmp_path)


def test_certbot_obtains_renews_and_revokes(ca, certbot):
    certbot.obtain("web", "-d", "web.shop.example", "-d", "shop.example")
    first = certbot.leaf("web")
    for host in ("web.shop.example", "shop.example"):
        assert ca.trusts(certbot.file("web", "fullchain").read_bytes(), x509.DNSName(host)) == first
    assert len(x509.load_pem_x509_certificates(certbot.file("web", "fullchain").read_bytes())) == 2, "the root is not among them"

    certbot("renew", "--force-renewal", "--no-random-sleep-on-renew")
    second = certbot.leaf("web")
    assert second.serial_number != first.serial_number
    ca.trusts(certbot.file("web", "fullchain").read_bytes(), x509.DNSName("web.shop.example"))

    assert not ca.revoked() & {first.serial_number, second.serial_number}
    certbot("revoke", "--cert-path", certbot.file("web", "cert"), "--reason", "superseded", "--no-delete-after-revoke")
    assert second.serial_number in ca.revoked() and first.serial_number not in ca.revoked()
    is_done, told = certbot("revoke", "--cert-path", certbot.file("web", "cert"), "--no-delete-after-revoke", check=False)
    assert not is_done and "revoked already" in told


def test_certbot_revokes_by_the_key_of_the_certificate(ca, certbot, tmp_path):
    certbot.obtain("key", "-d", "key.shop.example")
    leaf = certbot.leaf("key")
    other = tmp_path / "other.pem"
    other.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    revoke = ["revoke", "--cert-path", certbot.file("key", "cert"), "--no-delete-after-revoke", "--key-path"]
    assert not certbot(*revoke, other, check=False)[0] and leaf.serial_number not in ca.revoked()
    certbot(*revoke, certbot.file("key", "privkey"))
    assert leaf.serial_number in ca.revoked()


def test_certbot_shows_a_wildcard_in_the_dns(ca, certbot, tmp_path):
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\necho "$CERTBOT_VALIDATION" >>"{ca.texts}/_acme-challenge.$CERTBOT_DOMAIN"\n')
    hook.chmod(0o700)
    by = ("--manual", "--preferred-challenges", "dns", "--manual-auth-hook", hook)
    certbot.obtain("all", "-d", "*.shop.example", "-d", "shop.example", by=by)
    ca.trusts(certbot.file("all", "fullchain").read_bytes(), x509.DNSName("any.shop.example"))
    # A file on a host does not speak for all below a name.
    is_done, told = certbot.obtain("file", "-d", "*.web.shop.example", check=False)
    assert not is_done and not certbot.file("file", "cert").exists(), told


def test_certbot_is_told_what_it_may_not_have(ca, certbot):
    is_done, told = certbot.obtain("no", "-d", "www.bank.example", check=False)
    assert not is_done and "may not ask the authority issuing for DNS:www.bank.example" in told
    # Somebody answers there, and not with the proof.
    with Refusing(ca.http_port):
        is_done, told = certbot.obtain("no", "-d", "web.shop.example", by=("--webroot", "-w", certbot.directory), check=False)
    assert not is_done and "answered 404" in told


class Refusing(socketserver.ThreadingTCPServer):
    """Answers every request on a port with 404."""

    allow_reuse_address = daemon_threads = True

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    def __init__(self, port):
        super().__init__(("127.0.0.1", port), self.Handler)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Account:
    """An account by the protocol library; `key` is of any kind that it has."""

    def __init__(self, ca, binding=None, key=None, register=True):
        self.ca = ca
        self.key = key or jose.JWKRSA(key=rsa.generate_private_key(65537, 2048))
        algorithm = jose.RS256 if isinstance(self.key, jose.JWKRSA) else jose.ES256
        self.net = client.ClientNetwork(self.key, alg=algorithm, user_agent="test")
        directory = messages.Directory.from_json(self.net.get(f"{ca.url}/acme/directory").json())
        self.client = client.ClientV2(directory, net=self.net)
        if register:
            self.register(binding or ca.binding())

    def register(self, binding):
        bound = binding and messages.ExternalAccountBinding.from_data(
            account_public_key=self.key.public_key(), kid=binding["ClientKeyId"], hmac_key=binding["HmacKey"],
            directory=self.client.directory)
        asked = messages.NewRegistration.from_data(email="pki@example.com", external_account_binding=bound, terms_of_service_agreed=True)
        self.account = self.client.new_account(asked)

    def order(self, *names):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        return self.client.new_order(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def obtain(self, *names):
        """Shows names in the DNS, and has the certificate issued."""
        order = self.order(*names)
        for one in order.authorizations:
            (dns,) = [body for body in one.body.challenges if isinstance(body.chall, challenges.DNS01)]
            name = one.body.identifier.value
            with (self.ca.texts / f"_acme-challenge.{name}").open("a") as file:
                file.write(dns.chall.validation(self.key) + "\n")
            self.client.answer_challenge(dns, dns.response(self.key))
        return self.client.poll_and_finalize(order)

    def post(self, url, payload):
        return self.net.post(url, payload, new_nonce_url=self.client.directory["newNonce"])


def refused(kind, call, *arguments):
    with pytest.raises((messages.Error, errors.Error)) as told:
        call(*arguments)
    error = told.value
    assert kind in str(getattr(error, "typ", None) or error), error
    return error


def test_an_account_is_bound_to_an_access_point(ca):
    stranger = Account(ca, register=False)
    refused("externalAccountRequired", stranger.register, None)
    binding = ca.binding()
    for wrong in ({**binding, "HmacKey": ca.binding()["HmacKey"]}, {**binding, "ClientKeyId": f"KAAP.{uuid.uuid4()}"}):
        refused("unauthorized", stranger.register, wrong)
    stranger.register(binding)
    assert stranger.account.body.status == "valid" and stranger.account.body.contact == ("mailto:pki@example.com",)
    # The same key has the same account, and another's binding another account.
    again = Account(ca, key=stranger.key, register=False)
    with pytest.raises(errors.ConflictError) as known:
        again.register(ca.binding("till"))
    assert known.value.location == stranger.account.uri
    # An access point that the authority does not know has nothing issued.
    refused("unauthorized", Account(ca, ca.binding("stranger")).order, "web.shop.example")


def test_who_loses_the_client_key_loses_the_account(ca):
    binding = ca.binding()
    account = Account(ca, binding)
    order = account.order("web.shop.example")
    ca("DeleteClientKey", ClientKeyId=binding["ClientKeyId"])
    for call, *arguments in ((account.order, "web.shop.example"), (account.post, order.uri, None),
                             (account.client.query_registration, account.account)):
        refused("unauthorized", call, *arguments)


def test_accounts_are_kept_apart(ca):
    one, other = Account(ca), Account(ca, key=jose.JWKEC(key=ec.generate_private_key(ec.SECP256R1())))
    order = one.order("web.shop.example")
    urls = [order.uri, order.body.finalize, order.authorizations[0].uri, order.authorizations[0].body.challenges[0].uri]
    for url in urls:
        with pytest.raises(messages.Error) as told:
            other.post(url, None)
        assert "there is nothing here" in told.value.detail
    refused("unauthorized", other.post, one.account.uri, None)
    issued = one.obtain("apart.shop.example")
    leaf = x509.load_pem_x509_certificate(issued.fullchain_pem.encode())
    refused("unauthorized", other.client.revoke, leaf, 0)
    assert leaf.serial_number not in ca.revoked()
    # Who holds all its names may revoke it (RFC 8555 §7.6).
    other.obtain("apart.shop.example")
    other.client.revoke(leaf, 0)
    assert leaf.serial_number in ca.revoked()


def test_the_key_of_an_account_is_changed_and_the_old_one_signs_no_more(ca):
    account, new = Account(ca), jose.JWKRSA(key=rsa.generate_private_key(65537, 2048))
    url = account.account.uri
    inner = json.dumps({"account": url, "oldKey": account.key.public_key().to_partial_json() | {"kty": "RSA"}})
    change = account.client.directory["keyChange"]
    protected = {"alg": "RS256", "jwk": new.public_key().to_partial_json() | {"kty": "RSA"}, "url": change}
    encode = lambda data: base64.urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=").decode()
    message = f"{encode(json.dumps(protected))}.{encode(inner)}"
    signature = jose.RS256.sign(key=new.key, msg=message.encode())
    head, payload = message.split(".")
    body = {"protected": head, "payload": payload, "signature": encode(signature)}
    account.post(change, Plain(body))
    refused("malformed", account.post, url, None)
    account.net.key = new
    assert account.post(url, None).json()["status"] == "valid"
    with pytest.raises(errors.ConflictError) as taken:
        account.post(change, Plain(body))
    assert taken.value.location == url


class Plain:
    """A payload as it is."""

    def __init__(self, value):
        self.value = value

    def json_dumps(self, **_):
        return json.dumps(self.value)


def test_an_account_ends_and_does_not_come_back(ca):
    account = Account(ca)
    ended = account.client.deactivate_registration(account.account)
    assert ended.body.status == "deactivated"
    refused("unauthorized", account.order, "web.shop.example")
    again = Account(ca, key=account.key, register=False)
    refused("unauthorized", again.register, ca.binding())


def test_orders_are_listed_and_given_up(ca):
    account = Account(ca)
    orders = [account.order(f"{name}.shop.example") for name in "ab"]
    listed = account.post(f"{account.account.uri}/orders", None).json()["orders"]
    assert sorted(listed) == sorted(order.uri for order in orders)
    (authorization,) = orders[0].authorizations
    assert account.client.deactivate_authorization(authorization).body.status.name == "deactivated"
    assert account.post(orders[0].uri, None).json()["status"] == "invalid"
    assert account.post(f"{account.account.uri}/orders", None).json()["orders"] == [orders[1].uri]
    refused("orderNotReady", account.post, orders[1].body.finalize, Plain({"csr": "MAA"}))


def test_a_request_is_of_its_order(ca):
    account = Account(ca)
    order = account.obtain("request.shop.example")
    ca.trusts(order.fullchain_pem.encode(), x509.DNSName("request.shop.example"))
    other = account.order("csr.shop.example")
    for one in other.authorizations:
        (dns,) = [body for body in one.body.challenges if isinstance(body.chall, challenges.DNS01)]
        (ca.texts / "_acme-challenge.csr.shop.example").write_text(dns.chall.validation(account.key))
        account.client.answer_challenge(dns, dns.response(account.key))
    other = account.client.poll_authorizations(other, LATER)

    def finalize(names, key=None, subject=()):
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(list(subject)))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        der = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        csr = base64.urlsafe_b64encode(der).rstrip(b"=").decode()
        return account.post(other.body.finalize, Plain({"csr": csr})).json()

    refused("badCSR", finalize, ["other.shop.example"])
    refused("badCSR", finalize, ["csr.shop.example", "other.shop.example"])
    refused("badCSR", finalize, ["csr.shop.example"], account.key.key._wrapped)
    refused("badCSR", account.post, other.body.finalize, Plain({"csr": "MAA"}))
    # What was wrong with them changes nothing of the order.
    assert finalize(["csr.shop.example"])["status"] == "valid"
    refused("orderNotReady", finalize, ["csr.shop.example"])


def test_requests_that_are_not_signed_as_they_are_to_be(ca):
    account = Account(ca)
    url, nonce = account.account.uri, lambda: account.net.head(account.client.directory["newNonce"]).headers["Replay-Nonce"]
    encode = lambda data: base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()

    def post(head, path=None, kind="application/jose+json", payload=b"", **more):
        head = {name: value for name, value in {"alg": "RS256", "kid": url, "url": url, "nonce": nonce()}.items() if name not in head} | head
        message = f"{encode(head)}.{encode(payload)}"
        body = dict(zip(("protected", "payload"), message.split("."))) | {"signature": encode(jose.RS256.sign(key=account.key.key, msg=message.encode()))}
        body = json.dumps(body | more).encode()
        answer = ca.front.send(path or url.removeprefix(ca.url), {"host": ca.front.host, "content-type": kind}, body)
        assert answer.headers["replay-nonce"] and "no-store" in answer.headers["cache-control"]
        told = json.loads(answer.body) if answer.body else {}
        return answer.status, told.get("type", "").rpartition(":")[2]

    used = nonce()
    assert post({"nonce": used})[0] == 200
    assert post({"nonce": used}) == (400, "badNonce")
    assert post({"nonce": "AAAA"}) == (400, "badNonce")
    assert post({"url": f"{ca.url}/acme/new-order"}) == (403, "unauthorized")
    assert post({"alg": "none"}) == (400, "badSignatureAlgorithm")
    assert post({"alg": "HS256"}) == (400, "badSignatureAlgorithm")
    assert post({"alg": "ES256"}) == (400, "badSignatureAlgorithm")
    assert post({"crit": ["x"]}) == (400, "malformed")
    assert post({"kid": f"{ca.url}/acme/account/{uuid.uuid4()}"}) == (400, "accountDoesNotExist")
    assert post({}, signature=encode(bytes(256))) == (400, "malformed")
    assert post({}, header={"alg": "RS256"}) == (400, "malformed")
    assert post({}, kind="application/json") == (415, "malformed")
    assert post({}, payload=b"x" * 70_000) == (413, "malformed")
    assert post({"url": f"{ca.url}/acme/nothing"}, path="/acme/nothing") == (404, "malformed")
    answer = ca.get("/acme/new-order")
    assert (answer.status, answer.headers["content-type"]) == (405, "application/problem+json")
    assert ca.get("/acme/directory").status == 200 and ca.get("/acme/new-nonce").status == 204


def test_what_was_done_is_in_the_audit_and_survives_a_restart(tmp_path):
    own = Ca(tmp_path)
    account = Account(own)
    order, waiting = account.obtain("audit.shop.example"), account.order("waiting.shop.example")
    (begun,) = [body for body in waiting.authorizations[0].body.challenges if isinstance(body.chall, challenges.DNS01)]
    account.client.answer_challenge(begun, begun.response(account.key))
    assert own.process.stop() == 0
    lines = "".join(file.read_text() for file in own.process.data.rglob("*.jsonl"))
    for operation in ("AcmeNewAccount", "AcmeNewOrder", "AcmeAnswerChallenge", "AcmeValidate", "AcmeFinalize", "IssueCertificate", "AcmeIssue"):
        assert f'"{operation}"' in lines, operation

    (own.texts / "_acme-challenge.waiting.shop.example").write_text(begun.chall.validation(account.key))
    own.process = ServerProcess(tmp_path, config=own.config, http=own.process.http)
    assert "quarantined" not in own.process.log_tail() and "without an audit record" not in own.process.log_tail()
    # Nonces of before are none any more; the library asks once more by itself.
    assert account.post(order.body.certificate, None).text == order.fullchain_pem
    # What was being looked for is looked for again.
    issued = account.client.poll_and_finalize(waiting)
    own.trusts(issued.fullchain_pem.encode(), x509.DNSName("waiting.shop.example"))
    assert own.process.stop() == 0
