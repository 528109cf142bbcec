//! The list of all targets, and what most of them ask of an error.

use keymill_core::{Error, ErrorKind};

use crate::{
    access, acme, audit, authorization, batch, blob, certificate, client_key_file, consumer, context, dns,
    envelope, extended, gateway, http, keys, names, parameters, policy, record, root, rotate, stream, wire,
    worker, x509,
};

/// Good input to start from: a name, and the bytes.
pub(crate) type Seed = (&'static str, Vec<u8>);

/// A decoder, with what must hold for it.
pub(crate) struct Target {
    /// As `tests/fuzz/run` and the folder of seeds have it.
    pub(crate) name: &'static str,
    /// Panics where something does not hold.
    pub(crate) check: fn(&[u8]),
    /// Returns the same seeds each time.
    pub(crate) seeds: fn() -> Vec<Seed>,
}

/// Every target.
pub(crate) const ALL: &[Target] = &[
    Target { name: "request", check: wire::request::check_frame, seeds: wire::request::frame_seeds },
    Target { name: "body", check: wire::request::check_body, seeds: wire::request::body_seeds },
    Target { name: "answer", check: wire::answer::check, seeds: wire::answer::seeds },
    Target { name: "hello", check: wire::hello::check, seeds: wire::hello::seeds },
    Target { name: "stream", check: stream::check, seeds: stream::seeds },
    Target { name: "http", check: http::check, seeds: http::seeds },
    Target { name: "authorization", check: authorization::check, seeds: authorization::seeds },
    Target { name: "parameters", check: parameters::check, seeds: parameters::seeds },
    Target { name: "gateway", check: gateway::check, seeds: gateway::seeds },
    Target { name: "blob", check: blob::check, seeds: blob::seeds },
    Target { name: "names", check: names::check, seeds: names::seeds },
    Target { name: "context", check: context::check, seeds: context::seeds },
    Target { name: "extended", check: extended::check, seeds: extended::seeds },
    Target { name: "access", check: access::check, seeds: access::seeds },
    Target { name: "policy", check: policy::check, seeds: policy::seeds },
    Target { name: "audit-chain", check: audit::chain::check, seeds: audit::chain::seeds },
    Target { name: "audit-text", check: audit::text::check, seeds: audit::text::seeds },
    Target { name: "record", check: record::check, seeds: record::seeds },
    Target { name: "payload", check: record::payload::check, seeds: record::payload::seeds },
    Target { name: "root", check: root::check, seeds: root::seeds },
    Target { name: "worker-request", check: worker::request::check, seeds: worker::request::seeds },
    Target { name: "worker-answer", check: worker::answer::check, seeds: worker::answer::seeds },
    Target { name: "envelope", check: envelope::check, seeds: envelope::seeds },
    Target { name: "public-half", check: keys::public_half::check, seeds: keys::public_half::seeds },
    Target { name: "private-key", check: keys::private_key::check, seeds: keys::private_key::seeds },
    Target { name: "sm2", check: keys::sm2::check, seeds: keys::sm2::seeds },
    Target { name: "certificate", check: certificate::check, seeds: certificate::seeds },
    Target { name: "x509", check: x509::one::check, seeds: x509::one::seeds },
    Target { name: "chain", check: x509::chain::check, seeds: x509::chain::seeds },
    Target { name: "csr", check: x509::csr::check, seeds: x509::csr::seeds },
    Target { name: "ocsp", check: x509::question::check, seeds: x509::question::seeds },
    Target { name: "pkcs12", check: x509::container::check, seeds: x509::container::seeds },
    Target { name: "client-key-file", check: client_key_file::check, seeds: client_key_file::seeds },
    Target { name: "login-value", check: rotate::value::check, seeds: rotate::value::seeds },
    Target { name: "postgresql", check: rotate::postgresql::check, seeds: rotate::postgresql::seeds },
    Target { name: "mysql", check: rotate::mysql::check, seeds: rotate::mysql::seeds },
    Target { name: "batch", check: batch::check, seeds: batch::seeds },
    Target { name: "acme", check: acme::request::check, seeds: acme::request::seeds },
    Target { name: "acme-payload", check: acme::payload::check, seeds: acme::payload::seeds },
    Target { name: "dns", check: dns::check, seeds: dns::seeds },
    Target { name: "consumer", check: consumer::check, seeds: consumer::seeds },
];

/// Checks an error that goes back to the caller: it blames the input, and its message is one short printable line.
pub(crate) fn tells(error: &Error) {
    assert_ne!(error.kind(), ErrorKind::Internal, "{error:?}");
    let message = error.message();
    // The longest name of a parameter that is quoted has 64 characters, of up to 10 when they are escaped.
    assert!(message.len() < 1024, "a message of {} bytes", message.len());
    assert!(!message.chars().any(char::is_control), "{message:?}");
}
