//! The file of the custodians' copy: the domain's keys, wrapped under the key that their shares are of. Worth nothing without them, and
//! for ever of use with them.

use std::path::Path;

use keymill_core::key::KeySpec;
use keymill_crypto::digest;
use serde::{Deserialize, Serialize};

use super::custodians::Custodians;
use crate::failure::{Failure, Result};
use crate::plugins::pkcs11::{DomainCopy, WrappedPair};
use crate::private;

const FORMAT: &str = "keymill domain copy 1";

/// The file, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopyFile {
    format: String,
    /// The set of shares that opens it.
    pub(super) set: String,
    pub(super) threshold: u8,
    pub(super) shares: u8,
    domain: String,
    keys: Vec<WrappedKey>,
    challenge: String,
    answer: String,
    proof_key: String,
    proof_text: String,
    /// A private key under the domain's key for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof_pair: Option<ProofPair>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofPair {
    spec: KeySpec,
    wrapped: String,
    public: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedKey {
    label: String,
    wrapped: String,
}

impl CopyFile {
    pub(super) fn new(copy: &DomainCopy, set: &str, custodians: Custodians) -> Self {
        Self {
            format: FORMAT.to_owned(),
            set: set.to_owned(),
            threshold: custodians.threshold,
            shares: custodians.count,
            domain: digest::hex(&copy.id),
            keys: copy
                .keys
                .iter()
                .map(|(label, wrapped)| WrappedKey { label: label.clone(), wrapped: digest::hex(wrapped) })
                .collect(),
            challenge: digest::hex(&copy.challenge),
            answer: digest::hex(&copy.answer),
            proof_key: digest::hex(&copy.wrapped),
            proof_text: digest::hex(&copy.sealed),
            proof_pair: copy.pair.as_ref().map(|pair| ProofPair {
                spec: pair.spec,
                wrapped: digest::hex(&pair.wrapped),
                public: digest::hex(&pair.public),
            }),
        }
    }

    /// Writes the file, and returns its SHA-256.
    pub(super) fn write(&self, path: &Path) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self).map_err(Failure::because("JSON"))?;
        text.push('\n');
        private::create(path, text.as_bytes())?;
        Ok(digest::hex(&digest::sha256(text.as_bytes())))
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text =
            private::read(path)?.ok_or_else(|| Failure::wrong_use(format!("{shown} does not exist")))?;
        let file: Self = serde_json::from_slice(text.expose()).map_err(|error| {
            Failure::wrong_use(format!("{shown} is no copy of a domain's keys: {error}"))
                .next("name the file that `keymill hsm ceremony --copy` wrote")
        })?;
        match file.format == FORMAT {
            true => Ok(file),
            false => Err(Failure::wrong_use(format!("{shown} is of another version: {}", file.format))),
        }
    }

    /// Returns what the provider takes.
    pub(super) fn copy(&self) -> Result<DomainCopy> {
        let bytes = |digits: &str| {
            let pairs = (0..digits.len()).step_by(2);
            let read = match digits.is_ascii() && digits.len().is_multiple_of(2) {
                true => pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect(),
                false => None,
            };
            read.ok_or_else(|| {
                Failure::wrong_use("the copy is damaged: it has other digits than hexadecimal ones")
            })
        };
        let pair = |pair: &ProofPair| {
            let (wrapped, public) = (bytes(&pair.wrapped)?, bytes(&pair.public)?);
            Ok::<_, Failure>(WrappedPair { spec: pair.spec, wrapped, public })
        };
        let keys = self.keys.iter().map(|key| Ok((key.label.clone(), bytes(&key.wrapped)?)));
        Ok(DomainCopy {
            id: bytes(&self.domain)?,
            keys: keys.collect::<Result<_>>()?,
            challenge: bytes(&self.challenge)?,
            answer: bytes(&self.answer)?,
            wrapped: bytes(&self.proof_key)?,
            sealed: bytes(&self.proof_text)?,
            pair: self.proof_pair.as_ref().map(pair).transpose()?,
        })
    }
}
