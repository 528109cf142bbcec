//! What a module can do and how it wants to be asked. Modules differ where the standard leaves them room.

use cryptoki_sys::{CK_MECHANISM_TYPE, CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD};
use keymill_core::key::{DecryptAlgorithm, KeySpec, SignAlgorithm, WrappingAlgorithm};
use serde::{Deserialize, Serialize};

use crate::PRIVATE_DOMAIN_KEY_LABEL;
use crate::kind::Kind;
use crate::module::{Mechanism, Rv};

/// What a module can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleProfile {
    /// Who made the token, and its model.
    pub model: String,
    /// How it wraps by RFC 5649.
    pub wrap: WrapMechanism,
    /// Whether an unwrap must say the length of the key; one module refuses it.
    pub unwrap_value_len: bool,
    /// Whether an unwrap of a key on a curve must name the curve; one module refuses it.
    pub unwrap_ec_params: bool,
    /// Whether the token refuses to unwrap a stored key as one that can be read.
    pub unwrap_template_honoured: bool,
    /// Whether the token has a domain key for private keys; those that were initialised before there were any have none.
    pub private_domain: bool,
    /// The same as of stored keys, of private ones; `None` where none was unwrapped.
    pub private_template_honoured: Option<bool>,
    /// Key specifications that it generates, wraps and unwraps.
    pub specs: Vec<KeySpec>,
    /// How it signs and computes MACs.
    pub signatures: Vec<SignAlgorithm>,
    /// How its RSA keys decrypt.
    pub decryptions: Vec<DecryptAlgorithm>,
    /// How it unwraps key material from outside, by RSA keys of its own.
    pub imports: Vec<WrappingAlgorithm>,
    /// How it seals with a nonce of ours.
    pub gcm: GcmMethod,
    /// Whether it computes AES-CMAC.
    pub derives: bool,
    /// How an operation under way is ended.
    pub cancel: CancelMethod,
    /// Bytes of one item, at most.
    pub max_item_bytes: usize,
    /// Sessions that it says it gives.
    pub max_sessions: Option<usize>,
    /// What it answers to a tag that does not fit.
    pub bad_tag: Option<Rv>,
    /// What it answers to a wrapped key that is damaged.
    pub damaged_blob: Option<Rv>,
}

/// The mechanism of RFC 5649.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrapMechanism {
    /// `CKM_AES_KEY_WRAP_KWP`.
    Kwp,
    /// `CKM_AES_KEY_WRAP_PAD`: the same construction on SoftHSM, for lengths that eight divides.
    Pad,
}

/// How AES-GCM is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GcmMethod {
    /// `C_EncryptInit` and `C_Encrypt` for each item.
    Classic,
    /// `C_EncryptMessage`, with one `C_MessageEncryptInit` a batch; PKCS#11 3.0.
    Message,
}

/// How a session gets rid of an operation that was left under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CancelMethod {
    /// `C_SessionCancel`; PKCS#11 3.0.
    SessionCancel,
    /// The session is closed and another opened.
    ReplaceSession,
}

/// What an operator knows better than the probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// Instead of the mechanism found.
    pub wrap: Option<WrapMechanism>,
    /// Instead of the attribute found.
    pub unwrap_value_len: Option<bool>,
    /// Instead of the attribute found.
    pub unwrap_ec_params: Option<bool>,
    /// Of the specifications found, these alone.
    pub specs: Option<Vec<KeySpec>>,
    /// Instead of the method found.
    pub gcm: Option<GcmMethod>,
    /// Instead of the method found.
    pub cancel: Option<CancelMethod>,
    /// Instead of the size found.
    pub max_item_bytes: Option<usize>,
}

impl WrapMechanism {
    /// Returns the mechanism as a call takes it.
    pub fn mechanism(self) -> Mechanism<'static> {
        Mechanism::Plain(self.code())
    }

    /// Returns the mechanism's number.
    pub fn code(self) -> CK_MECHANISM_TYPE {
        match self {
            WrapMechanism::Kwp => CKM_AES_KEY_WRAP_KWP,
            WrapMechanism::Pad => CKM_AES_KEY_WRAP_PAD,
        }
    }
}

impl ModuleProfile {
    /// Tells whether nothing that is stored unwraps as a key that can be read.
    pub fn unwraps_limited(&self) -> bool {
        self.unwrap_template_honoured && self.private_template_honoured != Some(false)
    }

    /// Checks that the token serves keys of this kind.
    ///
    /// # Errors
    /// A sentence that says what it lacks.
    pub(crate) fn check(&self, kind: Kind) -> Result<(), String> {
        let (spec, usage) = (kind.spec(), kind.usage());
        if spec.is_key_pair() && !self.private_domain {
            return Err(format!(
                "no keys of {}: the token has no key {PRIVATE_DOMAIN_KEY_LABEL}, which wraps private keys",
                spec.name()
            ));
        }
        if kind.derives() && !self.derives {
            return Err("the token has no AES-CMAC, which bulk mode HsmDerived needs".into());
        }
        let opens = || !spec.is_key_pair() || self.decryptions.iter().any(|algorithm| kind.opens(*algorithm));
        let signs = || self.signatures.iter().any(|algorithm| kind.signs(*algorithm));
        let does = (!usage.encrypts() || opens()) && (!usage.signs() || signs());
        if !does || !self.specs.contains(&spec) {
            return Err(format!("the token does not hold keys of {} for {}", spec.name(), usage.name()));
        }
        Ok(())
    }

    /// Returns what an operator must be told of this module.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.unwrap_template_honoured {
            warnings.push(
                "the token unwraps stored keys as keys that can be read: whoever has its PIN and the store can read them"
                    .into(),
            );
        }
        if self.private_template_honoured == Some(false) {
            warnings.push(
                "the token unwraps stored private keys as keys that can be read: whoever has its PIN and the store can read them"
                    .into(),
            );
        }
        if !self.private_domain {
            warnings.push(format!(
                "the token has no key {PRIVATE_DOMAIN_KEY_LABEL}: it was initialised before there were key pairs, and RSA and EC keys are refused"
            ));
        }
        if !self.derives {
            warnings.push("the token has no AES-CMAC: keys in bulk mode HsmDerived are refused".into());
        }
        warnings
    }
}
