//! The proof in the DNS (RFC 8555 §8.4).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keymill_core::acme::{ChallengeKind, Outcome, Problem, ProblemKind};
use keymill_core::certificate::AltName;
use keymill_core::seam::validator::{Proof, Validator};

use crate::resolver::Resolver;

/// Looks for a TXT record.
pub(crate) struct Dns01 {
    resolver: Resolver,
}

impl Dns01 {
    pub(crate) fn new(resolver: Resolver) -> Self {
        Self { resolver }
    }
}

impl Validator for Dns01 {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Dns01
    }

    fn check(&self, proof: &Proof<'_>) -> Outcome<()> {
        let AltName::Dns(name) = proof.name else {
            return Err(Problem::new(ProblemKind::Malformed, "the DNS shows no such name held"));
        };
        let place = format!("_acme-challenge.{}", name.strip_prefix("*.").unwrap_or(name));
        let expected = URL_SAFE_NO_PAD.encode(digest(&SHA256, proof.key_authorization().as_bytes()));
        let texts = self.resolver.texts(&place, proof.deadline)?;
        match texts.iter().any(|text| text == expected.as_bytes()) {
            true => Ok(()),
            false => {
                let why = match texts.len() {
                    0 => format!("{place} has no TXT record"),
                    count => format!("none of the {count} TXT records of {place} is of this challenge"),
                };
                Err(Problem::new(ProblemKind::IncorrectResponse, why))
            }
        }
    }
}
