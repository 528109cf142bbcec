//! Random bytes, for programs that have no good source of their own.

use serde::{Deserialize, Serialize};

use super::Bin;
use crate::error::{Error, ErrorKind, Result};
use crate::id::RequestId;
use crate::limit;

/// Draws random bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GenerateRandomRequest {
    /// How many, 1 to 1,024.
    pub length: u32,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl GenerateRandomRequest {
    /// Returns how many bytes are asked for.
    ///
    /// # Errors
    /// `InvalidParameter` for none, and for more than 1,024.
    pub fn bytes(&self) -> Result<usize> {
        let bytes = self.length as usize;
        match (1..=limit::RANDOM_BYTES).contains(&bytes) {
            true => Ok(bytes),
            false => Err(Error::new(
                ErrorKind::InvalidParameter,
                format!("Length of {bytes} is not in 1 to {}", limit::RANDOM_BYTES),
            )),
        }
    }
}

/// The reply of `GenerateRandom`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateRandomReply<'a> {
    /// The bytes.
    #[serde(borrow)]
    pub random: Bin<'a>,
    /// The id of the request.
    pub request_id: RequestId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_to_so_many_bytes_are_drawn() {
        for (length, drawn) in [(0, None), (1, Some(1)), (1024, Some(1024)), (1025, None), (u32::MAX, None)] {
            let request = GenerateRandomRequest { length, timeout_ms: None };
            assert_eq!(request.bytes().ok(), drawn, "{length}");
        }
    }
}
