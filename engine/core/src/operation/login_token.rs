//! Login tokens: what a farm of clients holds for some hours in the place of a client key.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::id::RequestId;
use crate::limit;
use crate::time::Timestamp;

/// Makes a token of the client key that the caller logged in with; whoever holds it is that application over MessagePack TCP, until it ends or
/// the client key does. A token makes no other. Beyond the cloud's API.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateLoginTokenRequest {
    /// For how long it is taken: 60 to 43,200 seconds; an hour if absent. It never outlives the client key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity_seconds: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl CreateLoginTokenRequest {
    /// Returns for how many seconds it is to be taken.
    ///
    /// # Errors
    /// `InvalidParameter` for less than a minute and more than twelve hours.
    pub fn seconds(&self) -> Result<u32> {
        const HOUR: u32 = 3_600;
        let (least, most) = limit::TOKEN_SECONDS;
        match self.validity_seconds.unwrap_or(HOUR) {
            seconds if (least..=most).contains(&seconds) => Ok(seconds),
            seconds => {
                let why = format!("ValiditySeconds of {seconds} is not in {least} to {most}");
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
        }
    }
}

/// The reply of `CreateLoginToken`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateLoginTokenReply {
    /// The token: its text says who logs in, and is no secret.
    pub token: String,
    /// What it signs with: HMAC-SHA256 under these characters.
    pub secret: String,
    /// Until when it is taken.
    pub not_after: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

impl fmt::Debug for CreateLoginTokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreateLoginTokenReply(until {})", self.not_after)
    }
}

impl Drop for CreateLoginTokenReply {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_for_a_minute_to_twelve_hours() {
        for (asked, taken) in [
            (None, Some(3_600)),
            (Some(59), None),
            (Some(60), Some(60)),
            (Some(43_200), Some(43_200)),
            (Some(43_201), None),
        ] {
            let request = CreateLoginTokenRequest { validity_seconds: asked, timeout_ms: None };
            assert_eq!(request.seconds().ok(), taken, "{asked:?}");
        }
    }
}
