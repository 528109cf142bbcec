//! The frames before the first request: challenge, hello, welcome; and the bytes that a hello signs.

use std::borrow::Cow;

use keymill_core::operation::Bin;
use keymill_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::frame::{self, Flaw};
use crate::response::{begin, close, named, open, uint};
use crate::strict::{Encoding, Strict, Trace};

/// The version of the protocol.
pub const VERSION: u64 = 1;
/// Bytes of the nonce in a challenge.
pub const NONCE_BYTES: usize = 32;
/// Bytes of an access key's signature: HMAC-SHA256.
pub const SIGNATURE_BYTES: usize = 32;
/// What is spoken under TLS, as ALPN names it.
pub const ALPN: &[u8] = b"keymill/1";
/// What a TLS channel exports under this name, without a context, every signature covers.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-keymill-hello-1";
/// What every signature begins with, so that none of another protocol passes here.
const LABEL: &[u8] = b"keymill-hello-1\0";

/// The first frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// Never the same twice.
    pub nonce: [u8; NONCE_BYTES],
    /// Name and version of the server's program.
    pub server: Cow<'a, str>,
    /// Bytes of a frame, at most.
    pub max_frame: u64,
    /// Requests in flight on the connection, at most.
    pub max_in_flight: u64,
}

/// The first frame of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Name and version of the client's program.
    pub client: Cow<'a, str>,
    /// Who it is.
    pub auth: Auth<'a>,
}

/// How a client proves who it is. Ids are the client's text, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth<'a> {
    /// HMAC-SHA256 under the secret of an access key.
    AccessKey {
        /// The id of the access key.
        id: Cow<'a, str>,
        /// Over [`signed_bytes`].
        signature: [u8; SIGNATURE_BYTES],
    },
    /// A signature with the private key of a client key.
    ClientKey {
        /// The id of the client key.
        id: Cow<'a, str>,
        /// Over [`signed_bytes`].
        signature: Bin<'a>,
    },
    /// HMAC-SHA256 under the secret of a login token.
    Token {
        /// The token.
        token: Cow<'a, str>,
        /// Over [`signed_bytes`], with the token in the place of an id.
        signature: [u8; SIGNATURE_BYTES],
    },
    /// The TLS client certificate is the identity.
    Certificate,
}

/// The answer to a hello that was good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Welcome {
    /// Who the server takes the client for.
    pub principal: String,
}

/// Returns the bytes that the signature of a hello covers. `exporter` is the TLS exporter, empty without TLS.
pub fn signed_bytes(nonce: &[u8; NONCE_BYTES], id: &str, exporter: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
    [LABEL, nonce, &length(id.as_bytes()), id.as_bytes(), &length(exporter), exporter].concat()
}

/// Appends the frame of a challenge.
pub fn encode_challenge(challenge: &Challenge<'_>, out: &mut Vec<u8>) {
    let fields = ChallengeFields {
        version: VERSION,
        nonce: Bin::from(&challenge.nonce[..]),
        server: challenge.server.clone(),
        max_frame: challenge.max_frame,
        max_in_flight: challenge.max_in_flight,
    };
    greet("Challenge", &fields, out);
}

/// Appends the frame of a hello.
pub fn encode_hello(hello: &Hello<'_>, out: &mut Vec<u8>) {
    let none = AuthFields::default();
    let auth = match &hello.auth {
        Auth::AccessKey { id, signature } => AuthFields {
            r#type: "AccessKey".into(),
            access_key_id: Some(id.clone()),
            signature: Some(Bin::from(&signature[..])),
            ..none
        },
        Auth::ClientKey { id, signature } => AuthFields {
            r#type: "ClientKey".into(),
            client_key_id: Some(id.clone()),
            signature: Some(signature.clone()),
            ..none
        },
        Auth::Token { token, signature } => AuthFields {
            r#type: "Token".into(),
            token: Some(token.clone()),
            signature: Some(Bin::from(&signature[..])),
            ..none
        },
        Auth::Certificate => AuthFields { r#type: "Certificate".into(), ..none },
    };
    greet("Hello", &HelloFields { version: VERSION, client: hello.client.clone(), auth }, out);
}

/// Appends the frame of a welcome.
pub fn encode_welcome(welcome: &Welcome, out: &mut Vec<u8>) {
    let start = begin(0, 0, out);
    named(welcome, out);
    close(start, out);
}

/// Reads a challenge from a frame without its length. Fields of a later server are passed over.
///
/// # Errors
/// `MalformedRequest` for anything else, `UnsupportedVersion` for another version.
pub fn decode_challenge(frame: &[u8]) -> Result<Challenge<'_>> {
    let body = greeting("Challenge", frame)?;
    let fields: ChallengeFields<'_> = read(body)?;
    version(fields.version)?;
    let nonce = fields.nonce[..].try_into().map_err(|_| malformed("Nonce: expected 32 bytes"))?;
    let ChallengeFields { server, max_frame, max_in_flight, .. } = fields;
    Ok(Challenge { nonce, server, max_frame, max_in_flight })
}

/// Reads a hello from a frame without its length.
///
/// # Errors
/// `MalformedRequest` for anything else, `UnsupportedVersion` for another version, `UnsupportedAuthentication` for a
/// way of logging in that the protocol does not know.
pub fn decode_hello(frame: &[u8]) -> Result<Hello<'_>> {
    let fields: HelloFields<'_> = read(greeting("Hello", frame)?)?;
    version(fields.version)?;
    let AuthFields { r#type, access_key_id, client_key_id, token, signature } = fields.auth;
    let mac = |signature: Bin<'_>| {
        signature[..].try_into().map_err(|_| malformed("Auth.Signature: expected 32 bytes"))
    };
    let auth = match (&*r#type, access_key_id, client_key_id, token, signature) {
        ("AccessKey", Some(id), None, None, Some(signature)) => {
            Auth::AccessKey { id, signature: mac(signature)? }
        }
        ("ClientKey", None, Some(id), None, Some(signature)) => Auth::ClientKey { id, signature },
        ("Token", None, None, Some(token), Some(signature)) => {
            Auth::Token { token, signature: mac(signature)? }
        }
        ("Certificate", None, None, None, None) => Auth::Certificate,
        ("AccessKey", ..) => {
            return Err(malformed("Auth: AccessKey has the fields AccessKeyId and Signature"));
        }
        ("ClientKey", ..) => {
            return Err(malformed("Auth: ClientKey has the fields ClientKeyId and Signature"));
        }
        ("Token", ..) => return Err(malformed("Auth: Token has the fields Token and Signature")),
        ("Certificate", ..) => return Err(malformed("Auth: Certificate has no fields")),
        _ => {
            return Err(Error::new(
                ErrorKind::UnsupportedAuthentication,
                "Auth.Type is AccessKey, ClientKey, Token or Certificate",
            ));
        }
    };
    Ok(Hello { client: fields.client, auth })
}

/// Reads a welcome from the body of the answer to a hello.
///
/// # Errors
/// `MalformedRequest` for anything else.
pub fn decode_welcome(body: &[u8]) -> Result<Welcome> {
    read(body)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChallengeFields<'a> {
    version: u64,
    #[serde(borrow)]
    nonce: Bin<'a>,
    #[serde(borrow)]
    server: Cow<'a, str>,
    max_frame: u64,
    max_in_flight: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct HelloFields<'a> {
    version: u64,
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    auth: AuthFields<'a>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct AuthFields<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    access_key_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    client_key_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    token: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    signature: Option<Bin<'a>>,
}

fn greet<T: Serialize>(name: &str, fields: &T, out: &mut Vec<u8>) {
    let start = open(out);
    out.push(0x93);
    uint(0, out);
    named(&(name), out);
    named(fields, out);
    close(start, out);
}

fn greeting<'a>(name: &str, frame: &'a [u8]) -> Result<&'a [u8]> {
    match frame::greeting(frame) {
        Ok((found, body, None)) if found == name => Ok(body),
        Ok((found, _, Some(flaw @ Flaw { .. }))) if found == name => {
            Err(malformed(Error::from(flaw).into_message()))
        }
        _ => Err(malformed(format!("the first frame is not [0, \"{name}\", {{…}}]"))),
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(body);
    let trace = Trace::new(Encoding::MessagePack);
    T::deserialize(Strict::new(&mut decoder, &trace))
        .map_err(|problem| malformed(problem.into_error("the frame is wrong").into_message()))
}

fn version(version: u64) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::UnsupportedVersion,
        format!("version {version} is not spoken here, {VERSION} is"),
    ))
}

fn malformed(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::MalformedRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::check_answer;

    fn framed(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out);
        let length = frame::length(out[..4].try_into().unwrap(), frame::MAX_HELLO_BYTES).unwrap();
        assert_eq!(length, out.len() - 4);
        out.split_off(4)
    }

    #[test]
    fn the_signed_bytes_are_as_specified() {
        let mut expected = b"keymill-hello-1\0".to_vec();
        expected.extend([7; 32]);
        expected.extend(b"\0\x04abcd\0\0");
        assert_eq!(signed_bytes(&[7; 32], "abcd", &[]), expected);
        let exported = signed_bytes(&[7; 32], "abcd", &[5; 32]);
        assert_eq!(exported[..expected.len() - 2], expected[..expected.len() - 2]);
        assert_eq!(exported[expected.len() - 2..], [&b"\0\x20"[..], &[5; 32]].concat());
    }

    #[test]
    fn a_challenge_comes_back() {
        let challenge = Challenge {
            nonce: [3; 32],
            server: "keymill/0.1".into(),
            max_frame: 16 << 20,
            max_in_flight: 1024,
        };
        let frame = framed(|out| encode_challenge(&challenge, out));
        assert_eq!(frame[..13], *b"\x93\0\xa9Challenge\x85");
        assert_eq!(decode_challenge(&frame).unwrap(), challenge);
    }

    #[test]
    fn a_hello_of_each_kind_comes_back() {
        for auth in [
            Auth::AccessKey { id: "AK.12345".into(), signature: [9; 32] },
            Auth::ClientKey { id: "KAAP.1".into(), signature: Bin::from(vec![1; 256]) },
            Auth::Token { token: "KLT.AQ".into(), signature: [7; 32] },
            Auth::Certificate,
        ] {
            let hello = Hello { client: "test".into(), auth };
            let frame = framed(|out| encode_hello(&hello, out));
            assert_eq!(decode_hello(&frame).unwrap(), hello);
        }
    }

    #[test]
    fn a_welcome_comes_back() {
        let welcome = Welcome { principal: "access-key/AK.12345".into() };
        let frame = framed(|out| encode_welcome(&welcome, out));
        let answer = check_answer(&frame).unwrap();
        assert_eq!((answer.id, answer.status), (0, 0));
        assert_eq!(decode_welcome(answer.body).unwrap(), welcome);
    }

    #[test]
    fn a_hello_that_is_not_to_the_letter_is_refused() {
        let hello =
            |auth: &[u8]| [b"\x93\0\xa5Hello\x83\xa7Version\x01\xa6Client\xa1c\xa4Auth", auth].concat();
        for (frame, kind, told) in [
            (b"\xc0".to_vec(), ErrorKind::MalformedRequest, "first frame"),
            (b"\x93\x01\xa5Hello\x80".to_vec(), ErrorKind::MalformedRequest, "first frame"),
            (b"\x93\0\xa9Challenge\x80".to_vec(), ErrorKind::MalformedRequest, "first frame"),
            (b"\x93\0\xa5Hello\x90".to_vec(), ErrorKind::MalformedRequest, "first frame"),
            (b"\x93\0\xa5Hello\x80\xc0".to_vec(), ErrorKind::MalformedRequest, "first frame"),
            (b"\x93\0\xa5Hello\x80".to_vec(), ErrorKind::MalformedRequest, "Version"),
            (b"\x93\0\xa5Hello\x81\xa7Version\xa11".to_vec(), ErrorKind::MalformedRequest, "Version"),
            (hello(b"\x80"), ErrorKind::MalformedRequest, "Auth.Type"),
            (hello(b"\x90"), ErrorKind::MalformedRequest, "Auth"),
            (hello(b"\x81\xa4Type\xa4None"), ErrorKind::UnsupportedAuthentication, "Auth.Type"),
            (hello(b"\x81\xa4Type\xc4\x09AccessKey"), ErrorKind::MalformedRequest, "Auth.Type"),
            (hello(b"\x81\xa4Type\xa9AccessKey"), ErrorKind::MalformedRequest, "AccessKeyId"),
            (
                hello(b"\x82\xa4Type\xa5Token\xa5Token\xa1t"),
                ErrorKind::MalformedRequest,
                "Token and Signature",
            ),
            (
                hello(b"\x82\xa4Type\xabCertificate\xa9Signature\xc4\0"),
                ErrorKind::MalformedRequest,
                "no fields",
            ),
            (
                hello(b"\x83\xa4Type\xa9AccessKey\xabAccessKeyId\xa1x\xa9Signature\xc4\x01x"),
                ErrorKind::MalformedRequest,
                "32 bytes",
            ),
            (
                hello(b"\x83\xa4Type\xa9AccessKey\xabAccessKeyId\xa1x\xa9Signature\xd9\x01x"),
                ErrorKind::MalformedRequest,
                "Auth.Signature",
            ),
            (hello(b"\x81\xa5Extra\x01"), ErrorKind::MalformedRequest, "Auth.Extra"),
        ] {
            let error = decode_hello(&frame).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(told), "{error}");
        }
        let other = b"\x93\0\xa5Hello\x83\xa7Version\x02\xa6Client\xa0\xa4Auth\x81\xa4Type\xabCertificate";
        assert_eq!(decode_hello(other).unwrap_err().kind(), ErrorKind::UnsupportedVersion);
    }
}
