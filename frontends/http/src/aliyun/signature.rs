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
use crate::signature::{CLIENT_KEY_SCHEME, SCHEME, check_date, incomplete, no_tokens, signed_nonce};

/// Bytes of HMAC-SHA1.
const MAC_BYTES: usize = 20;
/// Bytes of a signature under a client key, at most: RSA-4096.
const SIGNATURE_BYTES: usize = 512;

/// How a request is signed.
enum Way {
    /// `HMAC-SHA1`, under the secret of an access key.
    AccessKey,
    /// `SHA256withRSA` with `SignatureType` `PRIVATEKEY`, under a client key.
    ClientKey,
}

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
        let (signature, id) = (given(SIGNATURE)?, given("AccessKeyId")?);
        let unsupported = |message: &'static str| Error::new(ErrorKind::UnsupportedAuthentication, message);
        if given("SignatureVersion")? != "1.0" {
            return Err(unsupported("SignatureVersion is 1.0"));
        }
        let kind = parameters.get("SignatureType").unwrap_or_default();
        let way = match (given("SignatureMethod")?, kind) {
            ("HMAC-SHA1", "") => Way::AccessKey,
            ("SHA256withRSA", "PRIVATEKEY") => Way::ClientKey,
            _ => {
                let message = "SignatureMethod is HMAC-SHA1, or SHA256withRSA with SignatureType PRIVATEKEY";
                return Err(unsupported(message));
            }
        };
        let most = if matches!(way, Way::AccessKey) { MAC_BYTES } else { SIGNATURE_BYTES };
        Ok((way, unbase64(signature, most), id, given("SignatureNonce")?))
    };
    let (way, signature, id, nonce) = form().inspect_err(stranger)?;
    let to_sign = string_to_sign(method, parameters.iter());
    let (scheme, credential) = match way {
        Way::AccessKey => {
            let mac = AccessKeyMac::HmacSha1Rpc;
            (SCHEME, Credential::AccessKey { id, mac, signature: &signature })
        }
        Way::ClientKey => (CLIENT_KEY_SCHEME, Credential::ClientKey { id, signature: &signature }),
    };
    let principal =
        gate.authenticate(scheme, &credential, &[to_sign.as_bytes()], source).map_err(|error| match error
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
fn unbase64(text: &str, most: usize) -> Vec<u8> {
    keymill_wire::aliyun::signature::decode(text, most).unwrap_or_default()
}
