//! The seam to what looks for the proof that somebody holds a name (RFC 8555 §8). Blocking, and done again where it was in vain: whatever is
//! found is judged by what the challenge asks for, and nothing else of it goes anywhere.

use std::time::Instant;

use crate::acme::{ChallengeKind, Outcome};
use crate::certificate::AltName;

/// Looks for proofs of one kind. A call ends by the deadline of its proof.
pub trait Validator: Send + Sync {
    /// Returns the kind of challenge that it validates.
    fn kind(&self) -> ChallengeKind;
    /// Looks for a proof.
    ///
    /// # Errors
    /// `Connection`, `Dns` or `IncorrectResponse`; the text never holds what another side said.
    fn check(&self, proof: &Proof<'_>) -> Outcome<()>;
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'p> {
    /// The name that is to be shown held.
    pub name: &'p AltName,
    /// The token of the challenge.
    pub token: &'p str,
    /// The thumbprint of the account's key (RFC 7638), in base64url.
    pub thumbprint: &'p str,
    /// When the look ends, whatever it found.
    pub deadline: Instant,
}

impl Proof<'_> {
    /// Returns the key authorization (RFC 8555 §8.1).
    pub fn key_authorization(&self) -> String {
        format!("{}.{}", self.token, self.thumbprint)
    }
}
