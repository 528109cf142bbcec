//! Profiles: what certificates an authority issues. Some are built in; an authority that has some of its own offers those alone.

use serde::{Deserialize, Serialize};

use super::{ExtendedUsage, KeyPurpose, NamePattern};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ProfileName;
use crate::key::KeySpec;

/// What certificates are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProfileUsage {
    /// TLS servers.
    Server,
    /// TLS clients.
    Client,
    /// Both, as services have it that call each other.
    ServerClient,
    /// Signatures of code.
    CodeSigning,
    /// Authorities below this one.
    Ca,
}

impl ProfileUsage {
    /// Returns what the key of a certificate may do, by its kind.
    pub fn key_purposes(self, spec: KeySpec) -> &'static [KeyPurpose] {
        use KeyPurpose::*;
        let is_rsa = spec.modulus_bytes().is_some();
        match self {
            // TLS 1.2 without forward secrecy encrypts to an RSA key; no other key can be encrypted to.
            ProfileUsage::Server | ProfileUsage::ServerClient if is_rsa => {
                &[DigitalSignature, KeyEncipherment]
            }
            ProfileUsage::Server
            | ProfileUsage::ServerClient
            | ProfileUsage::Client
            | ProfileUsage::CodeSigning => &[DigitalSignature],
            // Signs what is said of revocation, too (RFC 6960 §4.2.2.2).
            ProfileUsage::Ca => &[DigitalSignature, KeyCertSign, CrlSign],
        }
    }

    /// Returns what a certificate is for.
    pub fn extended_usages(self) -> &'static [ExtendedUsage] {
        use ExtendedUsage::*;
        match self {
            ProfileUsage::Server => &[ServerAuth],
            ProfileUsage::Client => &[ClientAuth],
            ProfileUsage::ServerClient => &[ServerAuth, ClientAuth],
            ProfileUsage::CodeSigning => &[CodeSigning],
            ProfileUsage::Ca => &[],
        }
    }

    /// Tells whether a verifier goes by the alternative names, so that there is one at least and the common name is one of them.
    pub fn is_of_servers(self) -> bool {
        matches!(self, ProfileUsage::Server | ProfileUsage::ServerClient)
    }
}

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CertificateProfile {
    /// Its name.
    pub name: ProfileName,
    /// What its certificates are for.
    pub usage: ProfileUsage,
    /// How many days they are valid where the request does not say.
    pub validity_days: u32,
    /// How many days a request may ask for.
    pub max_validity_days: u32,
    /// The kinds of keys that it takes; all that certificates have where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_specs: Vec<KeySpec>,
    /// The names that certificates may be for, each common name and mail address of a subject among them; any where there are none. An access point
    /// is held to its own beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_names: Vec<NamePattern>,
    /// Of `Ca`: how many authorities may stand below the one; none where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_length: Option<u8>,
}

/// The most days that a certificate is valid.
pub(super) const MAX_DAYS: u32 = 36_500;
/// The most patterns of a list.
pub(super) const PATTERNS: usize = 256;

impl CertificateProfile {
    /// Returns the profiles that every authority has that has none of its own.
    pub fn built_in() -> Vec<Self> {
        use ProfileUsage::*;
        let of = |name: &str, usage, validity_days, max_validity_days| Self {
            name: name.parse().expect("it is a name"),
            usage,
            validity_days,
            max_validity_days,
            key_specs: Vec::new(),
            allowed_names: Vec::new(),
            path_length: None,
        };
        vec![
            // CA/Browser Forum, Baseline Requirements §6.3.2: 200 days from March 2026 on.
            of("server", Server, 90, 200),
            of("client", Client, 90, 825),
            of("server-client", ServerClient, 90, 200),
            of("code-signing", CodeSigning, 365, 1_185),
            of("ca", Ca, 1_825, 7_300),
        ]
    }

    /// Checks a profile that a caller makes.
    ///
    /// # Errors
    /// `InvalidParameter`, naming the profile and what is wrong of it.
    pub fn check(&self) -> Result<()> {
        if !(1..=MAX_DAYS).contains(&self.max_validity_days) {
            return Err(
                self.odd(format!("MaxValidityDays of {} is not in 1 to {MAX_DAYS}", self.max_validity_days))
            );
        }
        if !(1..=self.max_validity_days).contains(&self.validity_days) {
            let why = format!(
                "ValidityDays of {} is not in 1 to its MaxValidityDays of {}",
                self.validity_days, self.max_validity_days
            );
            return Err(self.odd(why));
        }
        if let Some(spec) = self.key_specs.iter().find(|spec| !is_certified(**spec)) {
            return Err(self.odd(format!("certificates have no keys of {}", spec.name())));
        }
        if self.allowed_names.len() > PATTERNS {
            let why = format!(
                "AllowedNames of {} entries exceeds the limit of {PATTERNS}",
                self.allowed_names.len()
            );
            return Err(self.odd(why));
        }
        match self.path_length.is_some() && self.usage != ProfileUsage::Ca {
            true => Err(self.odd("PathLength is of the usage Ca alone".into())),
            false => Ok(()),
        }
    }

    /// Checks that it takes keys of a kind.
    ///
    /// # Errors
    /// `InvalidParameter` where it does not.
    pub fn check_key(&self, spec: KeySpec) -> Result<()> {
        let is_taken = is_certified(spec) && (self.key_specs.is_empty() || self.key_specs.contains(&spec));
        match is_taken {
            true => Ok(()),
            false => Err(self.odd(format!("it takes no keys of {}", spec.name()))),
        }
    }

    /// Returns the error that a request does not keep to it.
    pub(super) fn odd(&self, why: String) -> Error {
        Error::new(ErrorKind::InvalidParameter, format!("profile {}: {why}", self.name))
    }
}

/// Tells whether certificates have keys of a kind here.
fn is_certified(spec: KeySpec) -> bool {
    // Those that sign, but the one of which no verifier of certificates knows.
    spec.is_key_pair() && !spec.signatures().is_empty() && spec != KeySpec::EcP256K
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str) -> CertificateProfile {
        CertificateProfile::built_in().into_iter().find(|profile| profile.name.as_str() == name).unwrap()
    }

    #[test]
    fn those_built_in_keep_to_the_rules_for_all() {
        for profile in CertificateProfile::built_in() {
            profile.check().unwrap();
            profile.check_key(KeySpec::EcP256).unwrap();
            profile.check_key(KeySpec::Rsa2048).unwrap();
            let error = profile.check_key(KeySpec::Aes256).unwrap_err();
            assert_eq!(
                error.message(),
                format!("profile {}: it takes no keys of Aliyun_AES_256", profile.name)
            );
        }
        assert!(
            profile("server").usage.key_purposes(KeySpec::Rsa2048).contains(&KeyPurpose::KeyEncipherment)
        );
        assert_eq!(profile("server").usage.key_purposes(KeySpec::EcP256), [KeyPurpose::DigitalSignature]);
        assert!(profile("ca").usage.key_purposes(KeySpec::EcP256).contains(&KeyPurpose::CrlSign));
    }

    #[test]
    fn odd_profiles_are_named_with_what_is_wrong() {
        let server = profile("server");
        for (odd, told) in [
            (CertificateProfile { max_validity_days: 0, ..server.clone() }, "MaxValidityDays of 0"),
            (CertificateProfile { max_validity_days: 36_501, ..server.clone() }, "MaxValidityDays of 36501"),
            (CertificateProfile { validity_days: 0, ..server.clone() }, "ValidityDays of 0"),
            (CertificateProfile { validity_days: 201, ..server.clone() }, "ValidityDays of 201"),
            (
                CertificateProfile { key_specs: vec![KeySpec::EcP256K], ..server.clone() },
                "no keys of EC_P256K",
            ),
            (CertificateProfile { path_length: Some(0), ..server.clone() }, "PathLength"),
            (
                CertificateProfile { allowed_names: vec!["a.b".parse().unwrap(); 257], ..server },
                "AllowedNames of 257",
            ),
        ] {
            let error = odd.check().unwrap_err();
            assert!(
                error.message().starts_with("profile server: ") && error.message().contains(told),
                "{error}"
            );
        }
    }
}
