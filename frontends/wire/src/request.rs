//! Requests: decoded from a frame's parameters, from a MessagePack body and from a JSON body, all with the same strictness;
//! and encoded, for clients.

use keymill_core::operation::{Operation, Request};
use keymill_core::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::frame::{self, Shape};
use crate::response::{close, open, uint};
use crate::strict::{Encoding, Strict, Trace};

impl<'a> Shape<'a> {
    /// Reads the parameters as those of `operation`.
    ///
    /// # Errors
    /// As [`decode_request`], and `InvalidParameter` for a flaw that the structural check noted.
    pub fn decode(&self, operation: Operation) -> Result<Request<'a>> {
        match self.flaw {
            Some(flaw) => Err(flaw.into()),
            None => decode_request(operation, self.parameters),
        }
    }
}

/// Reads the parameters of `operation` from a map that [`frame::check`] found sound and without a flaw. Byte fields are
/// borrowed from it.
///
/// # Errors
/// `InvalidParameter` or `MissingParameter`, naming the field and never its value; `LimitExceeded` for too many items.
pub fn decode_request(operation: Operation, parameters: &[u8]) -> Result<Request<'_>> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(parameters);
    let trace = Trace::new(Encoding::MessagePack);
    Request::deserialize(operation, Strict::new(&mut decoder, &trace))
        .map_err(|problem| problem.into_error("the parameters are wrong"))
}

/// Reads the parameters of `operation` from a MessagePack body, which nobody has checked.
///
/// # Errors
/// As [`decode_request`], and `MalformedRequest` for a body that is not one map.
pub fn decode_body(operation: Operation, body: &[u8]) -> Result<Request<'_>> {
    match frame::check_body(body)? {
        Some(flaw) => Err(flaw.into()),
        None => decode_request(operation, body),
    }
}

/// Reads the parameters of `operation` from a JSON body.
///
/// # Errors
/// As [`decode_body`].
pub fn decode_json(operation: Operation, body: &[u8]) -> Result<Request<'_>> {
    let mut decoder = serde_json::Deserializer::from_slice(body);
    let trace = Trace::new(Encoding::Json);
    let request = Request::deserialize(operation, Strict::new(&mut decoder, &trace))
        .map_err(|problem| problem.into_error("the body is wrong"))?;
    decoder.end().map_err(|_| Error::new(ErrorKind::MalformedRequest, "text follows the JSON object"))?;
    Ok(request)
}

/// Appends the frame of a request, with its length.
///
/// # Errors
/// `InvalidParameter` for what has no encoding; `out` is then as it was.
pub fn encode_request(id: u64, request: &Request<'_>, out: &mut Vec<u8>) -> Result<()> {
    let start = open(out);
    out.push(0x93);
    uint(id, out);
    rmp::encode::write_str(out, request.operation().name()).expect("a vector grows");
    match encode_parameters(request, out) {
        Ok(()) => {
            close(start, out);
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

fn encode_parameters(request: &Request<'_>, out: &mut Vec<u8>) -> Result<()> {
    request.serialize(&mut rmp_serde::Serializer::new(out).with_struct_map()).map_err(|error| {
        Error::new(ErrorKind::InvalidParameter, "the request has no encoding").caused_by(error)
    })
}

/// Returns the JSON body of a request.
///
/// # Errors
/// `InvalidParameter` for what has no encoding.
pub fn encode_json(request: &Request<'_>) -> Result<Vec<u8>> {
    serde_json::to_vec(request).map_err(|error| {
        Error::new(ErrorKind::InvalidParameter, "the request has no encoding").caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::error::Limit;
    use keymill_core::id::KeyRef;
    use keymill_core::operation::{BatchEncryptRequest, Bin};
    use keymill_core::{EncryptionContext, limit};

    fn framed(operation: &str, parameters: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x93, 7];
        rmp::encode::write_str(&mut frame, operation).unwrap();
        frame.extend(parameters);
        frame
    }

    fn refusal(operation: &str, parameters: &[u8]) -> Error {
        let frame = framed(operation, parameters);
        let shape = frame::check(&frame).unwrap();
        let error = shape.decode(Operation::by_name(operation).unwrap()).unwrap_err();
        // The body without a frame is the same to the letter.
        let body = decode_body(Operation::by_name(operation).unwrap(), parameters).unwrap_err();
        assert_eq!((body.kind(), body.message()), (error.kind(), error.message()));
        error
    }

    /// MessagePack of a JSON text in which `"0x…"` stands for raw MessagePack.
    fn pack(json: &str) -> Vec<u8> {
        fn write(value: &serde_json::Value, out: &mut Vec<u8>) {
            use serde_json::Value::*;
            match value {
                String(text) if text.starts_with("0x") => {
                    let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
                    out.extend((2..text.len()).step_by(2).map(digit));
                }
                Array(values) => {
                    rmp::encode::write_array_len(out, values.len() as u32).unwrap();
                    values.iter().for_each(|value| write(value, out));
                }
                Object(entries) => {
                    rmp::encode::write_map_len(out, entries.len() as u32).unwrap();
                    for (key, value) in entries {
                        write(&String(key.clone()), out);
                        write(value, out);
                    }
                }
                other => out.extend(rmp_serde::to_vec(other).unwrap()),
            }
        }
        let mut out = Vec::new();
        write(&serde_json::from_str(json).unwrap(), &mut out);
        out
    }

    #[test]
    fn a_batch_comes_back_and_borrows_its_items() {
        let items: Vec<_> = (0..1000).map(|i| vec![i as u8; i]).collect();
        let request = Request::from(BatchEncryptRequest {
            key_id: KeyRef::parse("alias/people"),
            items: items.iter().map(|item| Bin::from(&item[..])).collect(),
            encryption_context: Some(EncryptionContext::from_pairs([("a", "b")]).unwrap()),
            encryption_contexts: None,
            timeout_ms: Some(1000),
        });
        let mut out = Vec::new();
        encode_request(9, &request, &mut out).unwrap();
        let shape = frame::check(&out[4..]).unwrap();
        assert_eq!((shape.id, shape.operation), (9, "BatchEncrypt"));
        let Request::BatchEncrypt(back) = shape.decode(Operation::BatchEncrypt).unwrap() else { panic!() };
        assert!(back.items.iter().zip(&items).all(|(a, b)| a[..] == b[..]));
        assert!(back.items.iter().all(|item| item.is_empty() || out.as_ptr_range().contains(&item.as_ptr())));

        let body = encode_json(&request).unwrap();
        let Request::BatchEncrypt(back) = decode_json(Operation::BatchEncrypt, &body).unwrap() else {
            panic!()
        };
        assert!(back.items.iter().zip(&items).all(|(a, b)| a[..] == b[..]));
        assert_eq!(back.encryption_context, Some(EncryptionContext::from_pairs([("a", "b")]).unwrap()));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_and_never_quoted() {
        for (operation, json, told) in [
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"SECRET"}"#, "Plaintext: expected bytes"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":[1]}"#, "Plaintext: expected bytes"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":7}"#, "Plaintext: expected bytes"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"0xa2ffff"}"#, "Plaintext: the text is not UTF-8"),
            ("Encrypt", r#"{"KeyId":"0xc40161","Plaintext":"0xc400"}"#, "KeyId: expected text"),
            ("Encrypt", r#"{"KeyId":"0x90","Plaintext":"0xc400"}"#, "KeyId: expected text"),
            (
                "Encrypt",
                r#"{"KeyId":"a","Plaintext":"0xc400","EncryptionContext":["a","b"]}"#,
                "EncryptionContext: expected a map of text to text",
            ),
            (
                "Encrypt",
                r#"{"KeyId":"a","Plaintext":"0xc400","EncryptionContext":{"SECRET":1}}"#,
                "EncryptionContext: expected text",
            ),
            (
                "Encrypt",
                r#"{"KeyId":"a","Plaintext":"0xc400","EncryptionContext":{"SECRET":null}}"#,
                "EncryptionContext: expected text",
            ),
            (
                "Encrypt",
                r#"{"KeyId":"a","Plaintext":"0xc400","EncryptionContext":{"a":{"SECRET":"c"}}}"#,
                "EncryptionContext: expected text",
            ),
            (
                "Encrypt",
                r#"{"KeyId":"a","Plaintext":"0xc400","EncryptionContext":{"0xc40161":"b"}}"#,
                "EncryptionContext: the key of a map is not text",
            ),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"0xc400","TimeoutMs":"SECRET"}"#, "TimeoutMs: expected"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"0xc400","TimeoutMs":true}"#, "TimeoutMs: expected"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"0xc400","TimeoutMs":-1}"#, "TimeoutMs: expected"),
            (
                "Encrypt",
                r#"{"KeyId":"a","Plaintext":"0xc400","TimeoutMs":1.5}"#,
                "TimeoutMs: floating-point numbers",
            ),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"0xd40500"}"#, "Plaintext: extension types"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"0xc400","0x01":"x"}"#, "the key of a map is not text"),
            ("Encrypt", r#"{"0xc4054b65794964":"a","Plaintext":"0xc400"}"#, "the key of a map is not text"),
            ("BatchEncrypt", r#"{"KeyId":"a","Items":"0xc403616263"}"#, "Items: expected a sequence"),
            ("BatchEncrypt", r#"{"KeyId":"a","Items":"0xc400"}"#, "Items: expected a sequence"),
            ("BatchEncrypt", r#"{"KeyId":"a","Items":{"a":"b"}}"#, "Items: expected a sequence"),
            (
                "BatchEncrypt",
                r#"{"KeyId":"a","Items":["0xc400","0xc400","SECRET"]}"#,
                "Items[2]: expected bytes",
            ),
            ("BatchEncrypt", r#"{"KeyId":"a","Items":["0xc400",null]}"#, "Items[1]: expected bytes"),
            ("BatchEncrypt", r#"{"KeyId":"a","Items":[["0xc400"]]}"#, "Items[0]: expected bytes"),
            (
                "BatchEncrypt",
                r#"{"KeyId":"a","Items":[],"EncryptionContexts":[null,{"SECRET":1}]}"#,
                "EncryptionContexts[1]: expected text",
            ),
            ("BatchGenerateDataKey", r#"{"KeyId":"a","Count":"SECRET"}"#, "Count: expected"),
            ("BatchGenerateDataKey", r#"{"KeyId":"a","Count":4294967296}"#, "Count: expected"),
            (
                "BatchGenerateDataKey",
                r#"{"KeyId":"a","Count":1,"NumberOfBytes":"0xc4023332"}"#,
                "NumberOfBytes: expected",
            ),
            (
                "BatchGenerateDataKey",
                r#"{"KeyId":"a","Count":1,"KeySpec":"0xc4074145535f323536"}"#,
                "KeySpec: expected",
            ),
            ("BatchGenerateDataKey", r#"{"KeyId":"a","Count":1,"KeySpec":0}"#, "KeySpec: expected"),
            (
                "BatchGenerateDataKey",
                r#"{"KeyId":"a","Count":1,"KeySpec":{"AES_256":null}}"#,
                "KeySpec: expected",
            ),
            ("BatchGenerateDataKey", r#"{"KeyId":"a","Count":1,"KeySpec":["AES_256"]}"#, "KeySpec: expected"),
            (
                "BatchGenerateDataKey",
                r#"{"KeyId":"a","Count":1,"KeySpec":"SECRET"}"#,
                "KeySpec: expected AES_256 or AES_128",
            ),
            (
                "BatchGenerateDataKey",
                r#"{"KeyId":"a","Count":1,"WithoutPlaintext":1}"#,
                "WithoutPlaintext: expected",
            ),
            ("CreateKey", r#"{"Description":"0xc40162"}"#, "Description: expected a string"),
            ("CreateAlias", r#"{"KeyId":"a","AliasName":"SECRET"}"#, "AliasName: an alias is"),
            ("CreateAccessKey", r#"{"Grants":[["Allow","SECRET"]]}"#, "Grants[0]: expected struct Grant"),
            ("CreateAccessKey", r#"{"Grants":[{"Role":"SECRET"}]}"#, "Grants[0].Role: expected "),
            ("CreateAccessKey", r#"{"Grants":[{"Bogus":1}]}"#, "Grants[0].Bogus: there is no such parameter"),
        ] {
            let error = refusal(operation, &pack(json));
            assert!(error.message().contains(told), "{json}: {error}");
            assert!(!error.message().contains("SECRET"), "{error}");
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        }
    }

    #[test]
    fn missing_unknown_and_repeated_parameters_are_named() {
        let error = refusal("Encrypt", &pack(r#"{"Plaintext":"0xc400"}"#));
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::MissingParameter, "KeyId: the parameter is missing")
        );
        let error = refusal("DescribeLimits", &pack(r#"{"keyId":1}"#));
        assert_eq!(error.message(), "keyId: there is no such parameter");
        let error = refusal("Encrypt", b"\x82\xa5KeyId\xa1a\xa5KeyId\xa1a");
        assert_eq!(error.message(), "KeyId: the parameter comes twice");
        let error = refusal("Encrypt", b"\x81\xb1EncryptionContext\x82\xa1a\xa1b\xd9\x01a\xa1c");
        assert_eq!(error.message(), "EncryptionContext: a key comes twice in the encryption context");
        let long = format!(r#"{{"{}":1}}"#, r"x\u0007".repeat(10_000));
        assert!(refusal("DescribeLimits", &pack(&long)).message().len() < 1000);
    }

    #[test]
    fn json_is_held_to_the_same_rules() {
        let refusal = |operation: &str, json: &[u8]| {
            decode_json(Operation::by_name(operation).unwrap(), json).map(|_| ()).unwrap_err()
        };
        for (operation, json, told) in [
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"SECRET="}"#, "Plaintext: not padded base64"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":7}"#, "Plaintext: expected base64 text"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":null}"#, "Plaintext: expected base64 text"),
            ("Encrypt", r#"{"KeyId":["SECRET"],"Plaintext":""}"#, "KeyId: expected text"),
            ("Encrypt", r#"{"KeyId":"a","KeyId":"a","Plaintext":""}"#, "KeyId: the parameter comes twice"),
            (
                "Encrypt",
                r#"{"KeyId":"a","Plaintext":"","EncryptionContext":{"a":"1","\u0061":"2"}}"#,
                "EncryptionContext: a key comes twice",
            ),
            (
                "Encrypt",
                r#"{"KeyId":"a","Plaintext":"","EncryptionContext":"SECRET"}"#,
                "EncryptionContext: expected a map of text to text",
            ),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"","TimeoutMs":"SECRET"}"#, "TimeoutMs: expected"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"","TimeoutMs":-0}"#, "TimeoutMs: expected"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"","TimeoutMs":1.0}"#, "TimeoutMs: expected"),
            ("Encrypt", r#"{"KeyId":"a","Plaintext":"","Bogus":1}"#, "Bogus: there is no such parameter"),
            ("BatchEncrypt", r#"{"KeyId":"a","Items":["","!SECRET"]}"#, "Items[1]: not padded base64"),
            ("BatchEncrypt", r#"{"KeyId":"a","Items":"SECRET"}"#, "Items: expected a sequence"),
            ("GenerateDataKey", r#"{"KeyId":"a","KeySpec":{"AES_256":null}}"#, "KeySpec: expected"),
            (
                "GenerateDataKey",
                r#"{"KeyId":"a","KeySpec":"SECRET"}"#,
                "KeySpec: expected AES_256 or AES_128",
            ),
            ("CreateAccessKey", r#"{"Grants":[["Allow","SECRET"]]}"#, "Grants[0]: expected struct Grant"),
        ] {
            let error = refusal(operation, json.as_bytes());
            assert!(error.message().contains(told), "{json}: {error}");
            assert!(!error.message().contains("SECRET"), "{error}");
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        }
        assert_eq!(refusal("Encrypt", br#"{"KeyId":"a"}"#).kind(), ErrorKind::MissingParameter);
    }

    #[test]
    fn what_is_not_one_json_object_is_malformed() {
        for json in [
            &b""[..],
            b"{",
            br#"{"TimeoutMs":1"#,
            b"[]",
            b"null",
            b"7",
            br#""SECRET""#,
            b"{} {}",
            b"{}x",
            b"\xef\xbb\xbf{}",
            b"{\"TimeoutMs\":NaN}",
            b"{\"TimeoutMs\":1e999}",
            b"{\"TimeoutMs\":01}",
            b"{'TimeoutMs':1}",
            b"{\"TimeoutMs\":1,}",
            b"{\"\xff\":1}",
            b"{\"\\ud800\":1}",
        ] {
            let error = decode_json(Operation::DescribeLimits, json).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MalformedRequest, "{json:?}: {error}");
            assert!(!error.message().contains("SECRET"), "{error}");
        }
        assert!(decode_json(Operation::DescribeLimits, b" {\"TimeoutMs\": 1}\n").is_ok());
        let deep = [b"{\"TimeoutMs\":".to_vec(), vec![b'['; 100_000]].concat();
        assert!(decode_json(Operation::DescribeLimits, &deep).is_err());
        let deep = [b"{\"KeyId\":\"a\",\"Items\":".to_vec(), vec![b'['; 100_000]].concat();
        assert!(decode_json(Operation::BatchEncrypt, &deep).is_err());
    }

    #[test]
    fn a_body_that_is_not_one_map_is_malformed() {
        for body in [&b""[..], b"\x90", b"\xc0", b"\x80\x80", b"\x81\xa1a", b"\xdf\xff\xff\xff\xff", b"\xc1"]
        {
            let error = decode_body(Operation::DescribeLimits, body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MalformedRequest, "{body:x?}: {error}");
        }
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_takes_memory() {
        let items = |count: usize| {
            let mut parameters = b"\x82\xa5KeyId\xa1a\xa5Items".to_vec();
            rmp::encode::write_array_len(&mut parameters, count as u32).unwrap();
            parameters.extend(b"\xc4\0".repeat(count));
            parameters
        };
        assert!(decode_body(Operation::BatchEncrypt, &items(limit::BATCH_ITEMS)).is_ok());
        let error = refusal("BatchEncrypt", &items(limit::BATCH_ITEMS + 1));
        assert_eq!(error.kind(), ErrorKind::LimitExceeded(Limit::BatchItems));
        assert_eq!(error.message(), "Items: the batch exceeds the limit of 65536 items");

        let context = |pairs: u32, value: &str| {
            let mut parameters = b"\x81\xb1EncryptionContext".to_vec();
            rmp::encode::write_map_len(&mut parameters, pairs).unwrap();
            for pair in 0..pairs {
                rmp::encode::write_str(&mut parameters, &pair.to_string()).unwrap();
                rmp::encode::write_str(&mut parameters, value).unwrap();
            }
            parameters
        };
        for parameters in [context(100_000, ""), context(1, &"x".repeat(limit::CONTEXT_CHARACTERS))] {
            let error = refusal("Encrypt", &parameters);
            assert_eq!(error.kind(), ErrorKind::LimitExceeded(Limit::ContextCharacters), "{error}");
            assert!(error.message().starts_with("EncryptionContext: "), "{error}");
        }
    }
}
