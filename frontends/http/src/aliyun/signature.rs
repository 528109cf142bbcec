//! Who signed a request in its parameters: RPC signature version 1. The order keeps a stranger blind, as in the headers' signature: form,
//! id and signature, then time.

use std::net::IpAddr;

use keymill_core::error::{Error, ErrorKind};
use keymill_core::seam::auth::{AccessKeyMac, Credential};
use keymill_runtime::Gate;
use keymill_wire::aliyun::parameters::Parameters;
use keymill_wire::aliyun::signature::{SIGNATURE, string_to_sign};

use super::Known;
use super::answer::Refused;
use crate::signature::{SCHEME, check_date, incomplete, no_tokens, signed_nonce};

/// Bytes of HMAC-SHA1.
const MAC_BYTES: usize = 20;

/// Verifies the signature among the parameters, and the time.
///
/// # Errors
/// One of the unauthenticated kinds; with a signature that differs comes the string that was to be signed.
pub(super) fn verify(
    gate: &Gate,
    method: &str,
    parameters: &Parameters<'_>,
    source: Option<IpAddr>,
) -> Result<Known, Refused> {
    let stranger = |error: &Error| gate.refused_stranger(error.kind(), source);
    let given = |name: &'static str| {
        parameters
            .get(name)
            .ok_or_else(|| incomplete(format!("the request is not signed: {name} is missing")))
    };
    let form = || {
        let signature = unbase64(given(SIGNATURE)?);
        let id = given("AccessKeyId")?;
        for (name, expected) in [("SignatureMethod", "HMAC-SHA1"), ("SignatureVersion", "1.0")] {
            if given(name)? != expected {
                let message = format!("{name} is {expected}");
                return Err(Error::new(ErrorKind::UnsupportedAuthentication, message));
            }
        }
        Ok((signature, id, given("SignatureNonce")?))
    };
    let (signature, id, nonce) = form().inspect_err(stranger)?;
    let to_sign = string_to_sign(method, parameters.iter());
    let credential = Credential::AccessKey { id, mac: AccessKeyMac::HmacSha1Rpc, signature: &signature };
    let principal =
        gate.authenticate(SCHEME, &credential, &[to_sign.as_bytes()], source).map_err(|error| match error
            .kind()
        {
            ErrorKind::SignatureMismatch => Refused::Mismatch { to_sign },
            _ => Refused::Error(error),
        })?;
    if parameters.get("SecurityToken").is_some_and(|token| !token.is_empty()) {
        let error = no_tokens();
        stranger(&error);
        return Err(error.into());
    }
    let date = check_date(parameters.get("Timestamp"), "Timestamp", gate.now()).inspect_err(stranger)?;
    let nonce = signed_nonce(nonce, date, "SignatureNonce").inspect_err(stranger)?;
    Ok(Known { principal, nonce })
}

/// Decodes a signature; what is none matches nothing.
fn unbase64(text: &str) -> Vec<u8> {
    keymill_wire::aliyun::signature::decode(text, MAC_BYTES).unwrap_or_default()
}
