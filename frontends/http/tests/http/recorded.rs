//! Requests that the cloud's SDKs signed, as they were recorded: each is verified, and none that was altered.

use std::sync::{Arc, OnceLock};

use keymill_auth_credentials::AccessKeyAuthenticator;
use keymill_core::access::{AccessKey, AccessKeyStatus, AccessSnapshot, Principal};
use keymill_core::id::AccessKeyId;
use keymill_core::seam::auth::{AuthError, Authenticator, Credential};
use keymill_core::{Sensitive, Timestamp};
use keymill_wire::aliyun::signature::string_to_sign;
use serde_json::Value;

use crate::client::{Answer, now};
use crate::site::Site;

/// Knows the recorded access key, and takes its holder for one of the engine's.
struct Recorded {
    inner: AccessKeyAuthenticator,
    known: AccessSnapshot,
    stands_for: Arc<OnceLock<AccessKeyId>>,
}

impl Authenticator for Recorded {
    fn scheme(&self) -> &'static str {
        "access-key"
    }

    fn authenticate(
        &self,
        offered: &Credential<'_>,
        signed: &[u8],
        _: &AccessSnapshot,
    ) -> Result<Principal, AuthError> {
        self.inner.authenticate(offered, signed, &self.known)?;
        Ok(Principal::of_access_key(self.stands_for.get().unwrap().clone()))
    }
}

/// A request as it went over the wire.
#[derive(Clone)]
struct Wire {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Wire {
    fn of(vector: &Value) -> Self {
        let wire = &vector["wire"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let header = |pair: &Value| (text(&pair[0]), text(&pair[1]));
        Self {
            method: text(&wire["method"]),
            target: text(&wire["target"]),
            headers: wire["headers"].as_array().unwrap().iter().map(header).collect(),
            body: text(&wire["body"]),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut headers = String::new();
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            headers.push_str("host: 127.0.0.1:18443\r\n");
        }
        headers.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        let Self { method, target, body, .. } = self;
        format!("{method} {target} HTTP/1.1\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    }

    /// Lists the request with each of its parts altered once, and what was altered.
    fn altered(&self) -> Vec<(String, Self)> {
        let other = |text: &str| match text.chars().last() {
            Some('A') => format!("{}B", &text[..text.len() - 1]),
            Some(last) => format!("{}A", &text[..text.len() - last.len_utf8()]),
            None => "A".to_owned(),
        };
        let mut altered = Vec::new();
        let mut push = |what: String, wire: Self| altered.push((what, wire));
        let method = if self.method == "GET" { "POST" } else { "GET" };
        push("method".into(), Self { method: method.into(), ..self.clone() });
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        for at in 0..pairs.len() {
            let (name, value) = pairs[at].split_once('=').unwrap();
            let mut with = |what: &str, pair: Option<String>| {
                let mut pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
                match pair {
                    Some(pair) => pairs[at] = pair,
                    None => drop(pairs.remove(at)),
                }
                push(
                    format!("{what} of {name}"),
                    Self { target: format!("{path}?{}", pairs.join("&")), ..self.clone() },
                );
            };
            with("value", Some(format!("{name}={value}A")));
            with("name", Some(format!("{name}A={value}")));
            with("absence", None);
        }
        push("one more".into(), Self { target: format!("{path}?{query}&One=1"), ..self.clone() });
        let signed: Vec<String> = self
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            .flat_map(|(_, value)| {
                value.split_once("SignedHeaders=").unwrap().1.split(',').next().unwrap().split(';')
            })
            .map(str::to_owned)
            .collect();
        for (at, (name, value)) in self.headers.iter().enumerate() {
            let lower = name.to_lowercase();
            if !signed.contains(&lower) && lower != "authorization" {
                continue;
            }
            let mut headers = self.headers.clone();
            headers[at].1 = other(value);
            push(format!("header {name}"), Self { headers, ..self.clone() });
            let mut headers = self.headers.clone();
            headers.remove(at);
            if lower != "host" {
                push(format!("absence of header {name}"), Self { headers, ..self.clone() });
            }
        }
        if !self.body.is_empty() {
            push("body".into(), Self { body: other(&self.body), ..self.clone() });
            push("absence of the body".into(), Self { body: String::new(), ..self.clone() });
        }
        altered
    }
}

const REFUSED_SIGNATURES: [&str; 8] = [
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "InvalidAccessKeyId.NotFound",
    "UnsupportedAuthentication",
    "IllegalTimestamp",
    "InvalidTimeStamp.Expired",
    "ParseRequestParameterException",
    "InvalidAction.NotFound.",
];

struct Vectors {
    site: Site,
    file: Value,
}

impl Vectors {
    fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a server that knows another secret than the recorded one.
    fn start_with(secret: Option<&str>) -> Self {
        let file: Value =
            serde_json::from_str(include_str!("../../../../tests/vectors/aliyun_signatures.json")).unwrap();
        let vector = &file["vectors"][0];
        let text = |name: &str| vector[name].as_str().unwrap();
        let id: AccessKeyId = text("access_key_id").parse().unwrap();
        let mut known = AccessSnapshot::default();
        let key = AccessKey {
            id: id.clone(),
            secret: Sensitive::copied(secret.unwrap_or(text("access_key_secret")).as_bytes()),
            description: String::new(),
            status: AccessKeyStatus::Active,
            grants: Vec::new(),
            created_at: Timestamp::from_ms(0),
        };
        known.access_keys.insert(id, Arc::new(key));
        let stands_for = Arc::new(OnceLock::new());
        let inner = keymill_auth_credentials::open(Default::default()).unwrap();
        let recorded = Recorded { inner, known, stands_for: stands_for.clone() };
        let site = Site::start_behind(Box::new(recorded), |_, engine| engine.login.rule = None);
        stands_for.set(site.root.id.parse().unwrap()).unwrap();
        let frozen = Timestamp::parse(file["frozen"].as_str().unwrap()).unwrap();
        site.clock.jump_to_offset_ms(frozen.as_ms() as i64 - now().as_ms() as i64);
        Self { site, file }
    }

    fn all(&self, list: &str) -> Vec<Value> {
        self.file[list].as_array().unwrap().clone()
    }

    fn send(&self, wire: &Wire) -> Answer {
        let mut client = self.site.client();
        client.send_raw(&wire.bytes());
        client.read().expect("an answer")
    }
}

fn code(answer: &Answer) -> String {
    answer.json()["Code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn requests_that_the_sdks_signed_are_verified_and_none_that_was_altered() {
    let vectors = Vectors::start();
    let all = vectors.all("vectors");
    assert_eq!(all.len(), 28);
    let mut altered = 0;
    for vector in &all {
        let (id, wire) = (&vector["id"], Wire::of(vector));
        // The access keys of the recording have one secret; that of a client key is no secret.
        let is_client_key = vector["scheme"] == "RPC-SHA256withRSA";
        for (what, wire) in wire.altered() {
            let answer = vectors.send(&wire);
            let code = code(&answer);
            assert!(answer.status >= 400 && REFUSED_SIGNATURES.contains(&&*code), "{id}, {what}: {code}");
            altered += 1;
        }
        let code = code(&vectors.send(&wire));
        let has_token = ["acs3-08-sts-token", "rpc-05-tea-sts"].contains(&id.as_str().unwrap());
        match (is_client_key, has_token) {
            // The public half of the client key was not recorded, so that nobody knows it.
            (true, _) => assert_eq!(code, "InvalidAccessKeyId.NotFound", "{id}"),
            // Verified, and refused by name.
            (_, true) => assert_eq!(code, "UnsupportedAuthentication", "{id}"),
            _ => assert!(!REFUSED_SIGNATURES.contains(&&*code), "{id}: {code}"),
        }
        if !is_client_key && !has_token {
            assert_eq!(self::code(&vectors.send(&wire)), "SignatureNonceUsed", "{id}");
        }
    }
    assert!(altered > 400, "{altered}");
    let negatives = vectors.all("negatives");
    assert_eq!(negatives.len(), 11);
    let recorded = all[0]["access_key_secret"].clone();
    for vector in &negatives {
        let other = vector["access_key_secret"].as_str().filter(|secret| *secret != recorded);
        let other = other.map(|secret| Vectors::start_with(Some(secret)));
        let vectors = other.as_ref().unwrap_or(&vectors);
        let code = code(&vectors.send(&Wire::of(vector)));
        match vector["expect_valid"] == true {
            // Its base has used up the nonce, which is looked at last.
            true => assert_eq!(code, "SignatureNonceUsed", "{}", vector["id"]),
            false => assert!(REFUSED_SIGNATURES.contains(&&*code), "{}: {code}", vector["id"]),
        }
    }
}

#[test]
fn the_string_to_sign_of_version_1_is_the_recorded_one() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../../tests/vectors/aliyun_signatures.json")).unwrap();
    let mut seen = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        if !vector["scheme"].as_str().unwrap().starts_with("RPC-") {
            continue;
        }
        let wire = Wire::of(vector);
        let query = wire.target.split_once('?').unwrap().1;
        let mut pairs = keymill_wire::form::decode(query.as_bytes()).unwrap();
        pairs.extend(keymill_wire::form::decode(wire.body.as_bytes()).unwrap());
        let pairs = pairs.iter().map(|(name, value)| (&**name, &**value));
        assert_eq!(
            string_to_sign(&wire.method, pairs),
            vector["string_to_sign"].as_str().unwrap(),
            "{}",
            vector["id"]
        );
        seen += 1;
    }
    assert_eq!(seen, 14);
}
