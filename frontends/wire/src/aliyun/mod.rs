//! The cloud's own dialect, KMS 2016-01-20: parameters that are text, wherever they stand, and answers in JSON or XML.

use keymill_core::id::RequestId;
use keymill_core::operation::DecryptReply;
use serde::Serialize;

pub mod operations;
pub mod parameters;
pub mod signature;
pub mod xml;

/// Bytes of a string to sign that is shown to its caller, at most.
const SHOWN_BYTES: usize = 16 * 1024;

/// A refusal: what the cloud's gateway and its service tell, together. SDKs read either.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal<'a> {
    request_id: RequestId,
    host_id: &'a str,
    code: &'static str,
    message: &'a str,
    recommend: &'static str,
    http_status: u16,
}

/// Returns the JSON body of a refusal.
pub fn error(code: &'static str, status: u16, message: &str, request_id: RequestId, host: &str) -> Vec<u8> {
    let refusal = Refusal { request_id, host_id: host, code, message, recommend: "", http_status: status };
    serde_json::to_vec(&refusal).expect("text and numbers have a JSON form")
}

/// Returns the message of a signature that differs. An SDK compares what stands behind the first colon with what it signed, and tells its
/// user that the secret is wrong where that is the same: there is one colon, and a string to sign has none.
pub fn mismatch(to_sign: &str) -> String {
    let shown = if to_sign.len() <= SHOWN_BYTES { to_sign } else { "(too long to be shown)" };
    format!("Specified signature is not matched with our calculation. server string to sign is:{shown}")
}

/// Returns the JSON body of a `Decrypt` whose plaintext is text that was taken as it stood.
pub fn text_reply(reply: &DecryptReply<'_>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Text<'a> {
        plaintext: std::borrow::Cow<'a, str>,
        key_id: keymill_core::id::CmkId,
        key_version_id: keymill_core::id::KeyVersionId,
        request_id: RequestId,
    }
    // It was text when it was sealed.
    let plaintext = String::from_utf8_lossy(&reply.plaintext);
    let text = Text {
        plaintext,
        key_id: reply.key_id,
        key_version_id: reply.key_version_id,
        request_id: reply.request_id,
    };
    serde_json::to_vec(&text).expect("text has a JSON form")
}
