//! The transcript of a ceremony: what was made on which tokens, under which wrapping keys, and who confirmed them. It holds no secret.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::grouped;
use crate::output::harmless;

/// A ceremony that was held.
#[derive(Serialize)]
pub(super) struct Transcript {
    pub(super) ceremony: &'static str,
    pub(super) program: String,
    pub(super) time: String,
    /// The id that the domain's keys carry on each token.
    pub(super) domain: String,
    pub(super) keys: Vec<String>,
    pub(super) tokens: Vec<Token>,
    pub(super) proof: Proof,
    pub(super) custodians: Option<Copy>,
    /// Whether the wrapping keys are gone; if not, why.
    pub(super) wrapping_keys_destroyed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Token {
    pub(super) token: String,
    pub(super) serial: String,
    pub(super) model: String,
    pub(super) wrapping_key_sha256: String,
    /// Who compared it: a person at the terminal, the arguments, or nobody, as the first token sends nothing to itself.
    pub(super) confirmed: &'static str,
    pub(super) oaep: Option<&'static str>,
    pub(super) unwraps_limited: bool,
}

#[derive(Serialize)]
pub(super) struct Proof {
    /// What each token was asked to compute the CMAC of.
    pub(super) challenge: String,
    /// What each has answered.
    pub(super) answer: String,
    /// That each unwrapped what the first had wrapped, and the first what each had.
    pub(super) wrapped_both_ways: bool,
}

#[derive(Serialize)]
pub(super) struct Copy {
    pub(super) set: String,
    pub(super) threshold: u8,
    pub(super) shares: u8,
    pub(super) copy_file: String,
    pub(super) copy_sha256: String,
    /// Where each share is; none where they were shown at the terminal.
    pub(super) share_files: Vec<String>,
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let out = &mut text;
        writeln!(out, "keymill ceremony: the keys of one domain on {} tokens", self.tokens.len())?;
        writeln!(out, "held           {} by {}", self.time, self.program)?;
        writeln!(out, "domain         {}", self.domain)?;
        writeln!(out, "keys           {}: AES-256, made in the first token", self.keys.join(", "))?;
        for (index, token) in self.tokens.iter().enumerate() {
            writeln!(out, "\ntoken {}        {}", index + 1, token.token)?;
            writeln!(out, "serial number  {}", token.serial)?;
            writeln!(out, "model          {}", token.model)?;
            writeln!(out, "wrapping key   RSA-3072, SHA-256 of its public key:")?;
            writeln!(out, "               {}", grouped(&token.wrapping_key_sha256))?;
            writeln!(out, "confirmed      {}", token.confirmed)?;
            writeln!(out, "keys came by   RSA-OAEP with {}", token.oaep.unwrap_or("-"))?;
            let limited = match token.unwraps_limited {
                true => "can be used, and not read (CKA_UNWRAP_TEMPLATE)",
                false => {
                    "CAN BE READ by whoever has this token's PIN: the module takes no CKA_UNWRAP_TEMPLATE"
                }
            };
            writeln!(out, "what unwraps   {limited}")?;
        }
        writeln!(
            out,
            "\nproof          each token answered the challenge with the same CMAC, and what one wraps"
        )?;
        writeln!(out, "               the first unwraps, and the other way round")?;
        writeln!(out, "challenge      {}", self.proof.challenge)?;
        writeln!(out, "answer         {}", self.proof.answer)?;
        match &self.custodians {
            None => writeln!(out, "\ncustodians     none: no token can join this domain later")?,
            Some(copy) => {
                writeln!(
                    out,
                    "\ncustodians     any {} of {} shares of set {}",
                    copy.threshold, copy.shares, copy.set
                )?;
                writeln!(out, "copy           {}", copy.copy_file)?;
                writeln!(out, "               SHA-256 {}", copy.copy_sha256)?;
                match copy.share_files.is_empty() {
                    true => writeln!(out, "shares         shown once, to one custodian after the other")?,
                    false => writeln!(out, "shares         {}", copy.share_files.join("\n               "))?,
                }
            }
        }
        let gone = match self.wrapping_keys_destroyed {
            true => "destroyed, and so are the originals of the domain's keys",
            false => "NOT all destroyed",
        };
        writeln!(out, "\nwrapping keys  {gone}")?;
        if let Some(trouble) = &self.trouble {
            writeln!(out, "trouble        {trouble}")?;
        }
        // Labels come from tokens.
        text.lines().try_for_each(|line| writeln!(f, "{}", harmless(line)))
    }
}
