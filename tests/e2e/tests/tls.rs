//! D12, D13 and E6 of the security cases: what is spoken under TLS, by whom, and for how long.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use keymill_client::{ClientError, Connection, Credentials, HttpClient, Options};
use keymill_core::operation::{DescribeLimitsRequest, Reply};
use keymill_e2e::{Authority, Issued, Place, Web, eventually, metric};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use keymill_tls::{ClientCertificates, MinVersion, Outcome, ServerTls, read_peer};
use keymill_wire::hello::{self, Auth, EXPORTER_LABEL, Hello};

const HERE: &[&str] = &["127.0.0.1", "localhost"];
const PATIENCE: Duration = Duration::from_secs(20);

fn begin(tls: ServerTls) -> (Live, Credentials) {
    let Started { live, credentials } = Live::start_with(Setup::new(EngineConfig::default()).with_tls(tls));
    (live, credentials)
}

fn log_in(live: &Live, credentials: &Credentials, options: &Options) -> Result<Connection, ClientError> {
    Connection::open(live.address, credentials, options)
}

fn ask(connection: &mut Connection) {
    connection.send(&DescribeLimitsRequest::default().into()).unwrap();
    let answer = connection.receive().unwrap();
    assert!(matches!(answer.result().unwrap(), Reply::DescribeLimits(_)));
}

/// Expects that there is no channel, and returns why.
fn unsafe_to<T>(outcome: Result<T, ClientError>) -> String {
    match outcome.err().expect("it is refused") {
        ClientError::Tls(why) => why,
        other => panic!("{other:?}"),
    }
}

/// Sends bytes and reads all that comes back until the server closes in good order.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Makes the first message of a client: `version` at most, these suites, P-256, and by choice the extended master secret (RFC 7627).
fn client_hello(version: u16, suites: &[u16], has_ems: bool) -> Vec<u8> {
    let be = |number: u16| number.to_be_bytes();
    let vector = |bytes: &[u8]| [&be(bytes.len() as u16)[..], bytes].concat();
    let extension = |id: u16, body: &[u8]| [&be(id)[..], &vector(body)].concat();
    let mut extensions =
        [extension(10, &vector(&be(23))), extension(11, &[1, 0]), extension(13, &vector(&[4, 3, 8, 4]))]
            .concat();
    if has_ems {
        extensions.extend(extension(23, &[]));
    }
    let suites: Vec<u8> = suites.iter().flat_map(|suite| be(*suite)).collect();
    let body = [&be(version)[..], &[7; 32], &[0], &vector(&suites), &[1, 0], &vector(&extensions)].concat();
    let message = [&[1, 0][..], &vector(&body)].concat();
    [&[22, 3, 1][..], &vector(&message)].concat()
}

const GCM: u16 = 0xc02b;
const FATAL: u8 = 2;
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

/// Returns the description of the alert that an answer is, where it is nothing else.
fn alert(answer: &[u8]) -> Option<u8> {
    match answer {
        [21, 3, _, 0, 2, FATAL, description] => Some(*description),
        _ => None,
    }
}

#[test]
fn d12_older_versions_and_weaker_suites_are_refused() {
    let authority = Authority::new("servers");
    let place = Place::with(&authority.server(HERE));
    let (live, credentials) = begin(place.open());
    for (name, version) in [("1.0", 0x301), ("1.1", 0x302), ("1.2", 0x303)] {
        let answer = exchange(live.address, &client_hello(version, &[GCM, 0xc009, 0x2f], true));
        assert_eq!(alert(&answer), Some(PROTOCOL_VERSION), "{name}: {answer:x?}");
    }
    ask(&mut log_in(&live, &credentials, &place.to_here(&authority, None)).unwrap());

    let older =
        keymill_tls::Options { min_version: MinVersion::Tls12, ..place.options(keymill_msgpack::ALPN) };
    let (live, credentials) = begin(ServerTls::open(older).unwrap());
    for version in [0x301, 0x302] {
        let answer = exchange(live.address, &client_hello(version, &[GCM, 0xc009, 0x2f], true));
        assert_eq!(alert(&answer), Some(PROTOCOL_VERSION), "{answer:x?}");
    }
    // ECDHE with CBC, RSA with GCM and CBC, RC4.
    for suites in [&[0xc009, 0xc023][..], &[0x9c, 0x2f], &[0x05, 0xc007]] {
        let answer = exchange(live.address, &client_hello(0x303, suites, true));
        assert_eq!(alert(&answer), Some(HANDSHAKE_FAILURE), "{suites:x?}: {answer:x?}");
    }
    let answer = exchange(live.address, &client_hello(0x303, &[GCM], false));
    assert_eq!(
        alert(&answer),
        Some(HANDSHAKE_FAILURE),
        "a login of 1.2 is tied to its channel by the extended master secret"
    );
    let mut stream = TcpStream::connect(live.address).unwrap();
    stream.write_all(&client_hello(0x303, &[GCM], true)).unwrap();
    let mut head = [0; 6];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[0], head[5]), (22, 2), "1.2 by choice: a server hello");
    drop(stream);
    ask(&mut log_in(&live, &credentials, &place.to_here(&authority, None)).unwrap());
}

#[test]
fn d12_a_client_refuses_a_server_that_is_not_the_one_it_asked_for() {
    let (authority, other) = (Authority::new("servers"), Authority::new("others"));
    let self_signed = {
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    };
    let place = Place::with(&authority.server(HERE));
    let tls = place.open();
    let web_tls = ServerTls::open(place.options(keymill_http::ALPN)).unwrap();
    let (live, credentials) = begin(tls.clone());
    let web = Web::with(&live, Some(web_tls.clone()));
    let options = place.to_here(&authority, None);
    let client = place.client(&authority, None);
    let over_http = |credentials: &Credentials| {
        let url = format!("https://{}", web.address);
        HttpClient::over_tls(&url, PATIENCE, &client)?.call(DescribeLimitsRequest::default(), credentials)
    };
    ask(&mut log_in(&live, &credentials, &options).unwrap());
    over_http(&credentials).unwrap();

    let refuses = |what: &str, why: &str| {
        assert_eq!((tls.reload(), web_tls.reload()), (Outcome::Renewed, Outcome::Renewed), "{what}");
        for told in [unsafe_to(log_in(&live, &credentials, &options)), unsafe_to(over_http(&credentials))] {
            assert!(told.contains(why), "{what}: {told}");
        }
    };
    place.serve(&authority.server(&["elsewhere.example"]));
    refuses("a wrong name", "not valid for name");
    place.serve(&other.server(HERE));
    refuses("another authority", "UnknownIssuer");
    place.put("server.crt", &self_signed.0);
    place.put("server.key", &self_signed.1);
    refuses("self-signed", "invalid peer certificate");
    drop(web);

    // One that is expired is not taken over from a good one, but a server may have started with it.
    place.serve(&authority.expired(HERE));
    let (live, credentials) = begin(place.open());
    let told = unsafe_to(log_in(&live, &credentials, &options));
    assert!(told.contains("expired"), "{told}");
}

fn asking(
    place: &Place,
    mode: ClientCertificates,
    clients: &Authority,
    revoked: Option<&str>,
) -> keymill_tls::Options {
    let client_ca = vec![place.put("clients.crt", &clients.pem())];
    let crl = revoked.map(|list| place.put("clients.crl", list)).into_iter().collect();
    let options = place.options(keymill_msgpack::ALPN);
    keymill_tls::Options { client_certificates: mode, client_ca, crl, ..options }
}

#[test]
fn d12_client_certificates_are_asked_for_and_checked() {
    let (authority, clients, others) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let (good, revoked, stranger) =
        (clients.client("urn:good"), clients.client("urn:revoked"), others.client("urn:good"));
    let place = Place::with(&authority.server(HERE));
    let list = clients.revoke(&[&revoked]);
    let options = asking(&place, ClientCertificates::Required, &clients, Some(&list));
    let tls = ServerTls::open(options.clone()).unwrap();
    let web_tls = ServerTls::open(keymill_tls::Options { alpn: keymill_http::ALPN, ..options }).unwrap();
    let (live, credentials) = begin(tls.clone());
    let web = Web::with(&live, Some(web_tls));
    let mut stands = None;
    for (identity, is_let_in) in
        [(Some(&good), true), (None, false), (Some(&stranger), false), (Some(&revoked), false)]
    {
        let over_tcp = log_in(&live, &credentials, &place.to_here(&authority, identity));
        let client = place.client(&authority, identity);
        let over_http = HttpClient::over_tls(&format!("https://{}", web.address), PATIENCE, &client)
            .unwrap()
            .call(DescribeLimitsRequest::default(), &credentials);
        if is_let_in {
            over_http.unwrap();
            stands = Some(over_tcp.unwrap());
        } else {
            unsafe_to(over_tcp);
            unsafe_to(over_http);
        }
    }
    assert!(metric(&live, "keymill_tls_handshakes_total{frontend=\"msgpack\",outcome=\"refused\"}") >= 3.0);

    // A revocation is in force with the next connection; the one that stands goes on.
    place.put("clients.crl", &clients.revoke(&[&revoked, &good]));
    assert_eq!(tls.look(), Outcome::Renewed);
    unsafe_to(log_in(&live, &credentials, &place.to_here(&authority, Some(&good))));
    ask(&mut stands.unwrap());
    drop(web);

    let (live, credentials) =
        begin(ServerTls::open(asking(&place, ClientCertificates::Optional, &clients, None)).unwrap());
    for identity in [Some(&good), None] {
        ask(&mut log_in(&live, &credentials, &place.to_here(&authority, identity)).unwrap());
    }
    unsafe_to(log_in(&live, &credentials, &place.to_here(&authority, Some(&stranger))));
}

#[test]
fn a_listener_knows_who_is_at_the_other_end() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let place = Place::with(&authority.server(HERE));
    let tls = ServerTls::open(asking(&place, ClientCertificates::Optional, &clients, None)).unwrap();
    let Started { live, .. } = Live::start(EngineConfig::default());
    let gate = live.gate();
    let met = |identity: Option<&Issued>| {
        let client = place.client(&authority, identity);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let far = std::thread::spawn(move || {
                let socket = TcpStream::connect(address).unwrap();
                client.connect(socket, "127.0.0.1", EXPORTER_LABEL).unwrap()
            });
            let (near, _) = listener.accept().await.unwrap();
            let secured = keymill_listen::secure(near, Some(&tls), "msgpack", &gate, None).await.unwrap();
            let (_read, _write, exported) = far.join().unwrap();
            assert_eq!(secured.exporter(EXPORTER_LABEL).unwrap(), Some(exported), "both ends export alike");
            secured.peer
        })
    };
    let issued = clients.client("spiffe://example/loader");
    let peer = met(Some(&issued)).unwrap();
    assert_eq!(peer.uris, ["spiffe://example/loader"]);
    assert_eq!(*peer, read_peer(&issued.der).unwrap());
    assert_eq!(met(None), None);
}

/// Reads a frame.
fn frame(from: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    from.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn d12_a_login_is_good_on_its_own_channel_alone() {
    let authority = Authority::new("servers");
    let place = Place::with(&authority.server(HERE));
    let (live, _) = begin(place.open());
    let (id, secret) = (live.bootstrap_id().unwrap(), live.bootstrap_secret().unwrap());
    let client = place.client(&authority, None);
    let open =
        || client.connect(TcpStream::connect(live.address).unwrap(), "127.0.0.1", EXPORTER_LABEL).unwrap();
    let (_other_read, _other_write, others) = open();
    // What somebody in the middle has: the client's signature for the channel to him, over the nonce that he passed on.
    for (bound_to, is_let_in) in [(Some(others), false), (None, false), (Some([0; 32]), true)] {
        let (mut read, mut write, own) = open();
        let exported = match bound_to {
            Some([0, ..]) if is_let_in => own.to_vec(),
            Some(exported) => exported.to_vec(),
            None => Vec::new(),
        };
        let nonce = hello::decode_challenge(&frame(&mut read)).unwrap().nonce;
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let signed = hello::signed_bytes(&nonce, id, &exported);
        let signature = aws_lc_rs::hmac::sign(&key, &signed).as_ref().try_into().unwrap();
        let mut out = Vec::new();
        hello::encode_hello(
            &Hello { client: "test".into(), auth: Auth::AccessKey { id: id.into(), signature } },
            &mut out,
        );
        write.write_all(&out).unwrap();
        let answer = frame(&mut read);
        let answer = keymill_wire::answer::check_answer(&answer).unwrap();
        assert_eq!(answer.status == 0, is_let_in);
        if !is_let_in {
            let error = keymill_wire::answer::decode_error(answer.body).unwrap();
            assert_eq!(error.code, "SignatureDoesNotMatch");
        }
    }
}

#[test]
fn d13_http_on_the_tls_port_and_tls_on_the_plain_one_are_refused_cleanly() {
    let authority = Authority::new("servers");
    let place = Place::with(&authority.server(HERE));
    let (live, _) = begin(place.open());
    let web = Web::with(&live, Some(ServerTls::open(place.options(keymill_http::ALPN)).unwrap()));
    let request = b"POST /v1/DescribeLimits HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
    for address in [web.address, live.address] {
        let answer = exchange(address, request);
        assert!(alert(&answer).is_some(), "an alert, and then the end: {answer:x?}");
    }
    // One protocol under TLS is not the other: ALPN says which one is meant.
    let client = place.client(&authority, None);
    let told = client.connect(TcpStream::connect(web.address).unwrap(), "127.0.0.1", b"x").err().unwrap();
    assert!(told.to_string().contains("NoApplicationProtocol"), "{told}");
    drop(web);

    let Started { live, credentials } = Live::start(EngineConfig::default());
    let web = Web::over(&live);
    unsafe_to(log_in(&live, &credentials, &place.to_here(&authority, None)));
    let url = format!("https://{}", web.address);
    let over_http = HttpClient::over_tls(&url, PATIENCE, &client).unwrap();
    unsafe_to(over_http.call(DescribeLimitsRequest::default(), &credentials));
    let greeting = client_hello(0x303, &[GCM], true);
    assert!(exchange(web.address, &greeting).starts_with(b"HTTP/1.1 400 "));
    assert!(exchange(live.address, &greeting).len() > 4, "a challenge, an error, and the end");
    log_in(&live, &credentials, &Options::default()).unwrap();
}

#[test]
fn d13_no_ticket_allows_early_data() {
    let authority = Authority::new("servers");
    let place = Place::with(&authority.server(HERE));
    let (live, _) = begin(place.open());
    let web = Web::with(&live, Some(ServerTls::open(place.options(keymill_http::ALPN)).unwrap()));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in place.client(&authority, None).roots() {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_early_data = true;
    let config = Arc::new(config);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let name = "127.0.0.1".try_into().unwrap();
        let mut session = rustls::ClientConnection::new(config.clone(), name).unwrap();
        assert!(session.early_data().is_none(), "the ticket allows none");
        let mut socket = TcpStream::connect(web.address).unwrap();
        let mut stream = rustls::Stream::new(&mut session, &mut socket);
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
        kinds.push(session.handshake_kind().unwrap());
    }
    assert_eq!(kinds[1], rustls::HandshakeKind::Resumed, "there was a ticket");
}

#[test]
fn e6_a_slow_handshake_is_closed_by_its_time_and_many_do_not_stop_others() {
    let authority = Authority::new("servers");
    let place = Place::with(&authority.server(HERE));
    let options = place.options(keymill_msgpack::ALPN);
    let slow = |handshake_timeout| {
        ServerTls::open(keymill_tls::Options { handshake_timeout, ..options.clone() }).unwrap()
    };
    let (live, credentials) = begin(slow(PATIENCE * 10));
    let web = Web::with(&live, Some(slow(Duration::from_millis(100))));
    // So many strangers stay for longer than this test, and hold up nobody.
    let begun = &client_hello(0x303, &[GCM], true)[..20];
    let strangers: Vec<_> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(live.address).unwrap();
            stream.write_all(begun).unwrap();
            stream
        })
        .collect();
    ask(&mut log_in(&live, &credentials, &place.to_here(&authority, None)).unwrap());
    drop(strangers);
    // Those who say nothing, and those who say less than a whole message.
    for bytes in [b"", begun] {
        assert_eq!(exchange(web.address, bytes), b"");
    }
    let late = "keymill_tls_handshakes_total{frontend=\"http\",outcome=\"timeout\"}";
    eventually("both are counted", || (metric(&live, late) == 2.0).then_some(()));
    eventually("nobody is left", || {
        (metric(&live, "keymill_connections{frontend=\"msgpack\"}") == 0.0).then_some(())
    });
    drop(web);
}

#[test]
fn certificates_are_taken_over_while_connections_stand_and_broken_ones_are_not() {
    let (authority, next) = (Authority::new("servers"), Authority::new("next"));
    let place = Place::with(&authority.server(HERE));
    let tls = place.open();
    let (live, credentials) = begin(tls.clone());
    let (old, new) = (place.to_here(&authority, None), place.to_here(&next, None));
    let mut stands = log_in(&live, &credentials, &old).unwrap();
    assert_eq!(tls.look(), Outcome::Unchanged);
    place.serve(&next.server(HERE));
    assert_eq!(tls.look(), Outcome::Renewed);
    ask(&mut stands);
    unsafe_to(log_in(&live, &credentials, &old));
    ask(&mut log_in(&live, &credentials, &new).unwrap());

    let good = next.server(HERE);
    let whole = good.certificate.clone();
    let broken: [(&str, &dyn Fn()); 5] = [
        ("no certificate", &|| drop(place.put("server.crt", ""))),
        ("cut short", &|| drop(place.put("server.crt", &whole[..whole.len() / 2]))),
        ("a key of another", &|| drop(place.put("server.crt", &whole))),
        ("expired", &|| place.serve(&next.expired(HERE))),
        ("gone", &|| std::fs::remove_file(place.path("server.key")).unwrap()),
    ];
    for (what, breaking) in broken {
        breaking();
        assert!(matches!(tls.look(), Outcome::Kept(_)), "{what} is told");
        assert_eq!(tls.look(), Outcome::Unchanged, "{what} is told once");
        ask(&mut log_in(&live, &credentials, &new).unwrap());
        ask(&mut stands);
    }
    assert!(tls.days_left() > 1000);
    place.serve(&good);
    assert_eq!(tls.look(), Outcome::Renewed);
    ask(&mut log_in(&live, &credentials, &new).unwrap());
    assert_eq!(tls.reloads(), [2, 5]);
}

#[test]
fn large_batches_come_back_whole_under_tls() {
    let authority = Authority::new("servers");
    let place = Place::with(&authority.server(HERE));
    let (live, credentials) = begin(place.open());
    let connection = log_in(&live, &credentials, &place.to_here(&authority, None)).unwrap();
    let mut caller = keymill_e2e::Caller::of(connection);
    let key = caller.create_key();
    let items: Vec<Vec<u8>> = (0..150u8).map(|byte| vec![byte; 60_000]).collect();
    let sealed = caller.batch_encrypt(key, &items).unwrap();
    let opened = caller.batch_decrypt(&sealed).unwrap();
    assert_eq!(opened.items, items.into_iter().map(Some).collect::<Vec<_>>());
}
