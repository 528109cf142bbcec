//! Client keys at the gate: made here, registered, or standing for a certificate or for a binding of ACME.

use std::time::{Duration, Instant};

use keymill_core::access::{AccessChange, ClientKey, ClientKeyAlgorithm, ClientKeyOrigin, KnownBy};
use keymill_core::certificate::{Serial, Validity};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AapName, ClientKeyId};
use keymill_core::key::{Fallback, KeySpec, KeyUsage, ProtectionLevel};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::seam::provider::{KeyMaterial, PublicKey};
use keymill_core::time::Timestamp;
use keymill_crypto::random;
use keymill_x509::client_key;

use super::access::Answer;
use super::manage::{Done, done};
use super::plan::Plan;
use super::{Call, Gate};
use crate::actor::policy::ChangeAccess;
use crate::actor::{Owners, Wanted};

/// A client key that is to be made.
pub(super) struct WantedClientKey {
    aap: AapName,
    password: Password,
    span: (Timestamp, Timestamp),
}

impl Gate {
    /// Checks what a client key is to be made by.
    pub(super) fn plan_client_key(&self, r: CreateClientKeyRequest, now: Timestamp) -> Result<Plan> {
        if self.0.shared.config.dual_control.contains(&Operation::RegisterClientKey) {
            // Its password cannot be shown to a second caller.
            let why = "client keys wait for a second caller here: make one on your side, and register its public half (RegisterClientKey)";
            return Err(Error::new(ErrorKind::Denied, why));
        }
        check_password(r.password.expose())?;
        let span = span(r.not_before, r.not_after, now)?;
        // Before a key is made for it; the policy actor asks again.
        self.0.shared.access.read().check_room(&r.aap_name)?;
        Ok(Plan::MakeClientKey(WantedClientKey { aap: r.aap_name, password: r.password, span }))
    }

    /// Has a public key stand for a client key.
    pub(super) fn plan_registration(
        &self,
        r: RegisterClientKeyRequest,
        now: Timestamp,
    ) -> Result<(AccessChange, Answer)> {
        let span = span(r.not_before, r.not_after, now)?;
        let public = PublicKey::from_pem(&r.public_key).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, "PublicKey is no PEM of a SubjectPublicKeyInfo")
        })?;
        let offered = [
            (KeySpec::Rsa2048, ClientKeyAlgorithm::Rsa2048),
            (KeySpec::Rsa3072, ClientKeyAlgorithm::Rsa3072),
            (KeySpec::Rsa4096, ClientKeyAlgorithm::Rsa4096),
            (KeySpec::EcP256, ClientKeyAlgorithm::EcP256),
        ];
        let provider = &self.0.shared.provider;
        let found = offered.into_iter().find(|(spec, _)| provider.public_half(*spec, &public).is_ok());
        let (_, algorithm) = found.ok_or_else(|| {
            let why = "PublicKey is none of RSA of 2,048, 3,072 or 4,096 bits, nor on P-256";
            Error::new(ErrorKind::InvalidParameter, why)
        })?;
        let id = ClientKeyId::from_random(random::array()?);
        let shown = public.to_pem();
        let key = ClientKey {
            id: id.clone(),
            aap: r.aap_name,
            algorithm,
            origin: ClientKeyOrigin::User,
            public_key: public.as_der().to_vec(),
            shown,
            certificate: None,
            not_before: span.0,
            not_after: span.1,
            created_at: now,
        };
        let answer = move |request_id| {
            Reply::RegisterClientKey(RegisterClientKeyReply {
                client_key_id: id,
                key_algorithm: algorithm,
                not_before: span.0,
                not_after: span.1,
                request_id,
            })
        };
        Ok((AccessChange::AddClientKey(key), Box::new(answer)))
    }

    /// Makes a client key by which accounts of ACME are bound.
    pub(super) fn plan_binding(
        &self,
        r: CreateAcmeBindingRequest,
        now: Timestamp,
    ) -> Result<(AccessChange, Answer)> {
        let (not_before, not_after) = span(r.not_before, r.not_after, now)?;
        let id = ClientKeyId::from_random(random::array()?);
        let hmac_key = Password::new(self.0.shared.login_tokens.binding_text(&id));
        let key = ClientKey {
            id: id.clone(),
            aap: r.aap_name,
            algorithm: ClientKeyAlgorithm::Acme,
            origin: ClientKeyOrigin::Kms,
            public_key: Vec::new(),
            shown: String::new(),
            certificate: None,
            not_before,
            not_after,
            created_at: now,
        };
        let answer = move |request_id| {
            Reply::CreateAcmeBinding(CreateAcmeBindingReply {
                client_key_id: id,
                hmac_key,
                not_before,
                not_after,
                request_id,
            })
        };
        Ok((AccessChange::AddClientKey(key), Box::new(answer)))
    }

    /// Makes a client key: its private half goes to the caller, its public half stays.
    pub(super) async fn make_client_key(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        WantedClientKey { aap, password, span }: WantedClientKey,
        deadline: Instant,
    ) -> Result<Done> {
        let wanted = Wanted {
            spec: KeySpec::Rsa2048,
            usage: KeyUsage::SignVerify,
            protection: ProtectionLevel::Software,
            bulk_mode: None,
            fallback: Fallback::Never,
            stays: false,
        };
        let made = self.generate(call, wanted, None, deadline).await?.key;
        let (KeyMaterial::Clear(material), Some(public)) = (made.material, made.public_key) else {
            return Err(Error::internal("a key of software has no material in clear, or no public half"));
        };
        let id = ClientKeyId::from_random(random::array()?);
        let named = id.clone();
        // The password takes its time to become a key.
        let serial = Serial::from_random(random::array()?);
        let validity = Validity { not_before: span.0, not_after: span.1 };
        let packaged = tokio::task::spawn_blocking(move || {
            client_key::package(&material, &named, validity, serial, password.expose())
        });
        let packaged = packaged.await.map_err(|_| Error::internal("the packaging was cut off"))??;
        let algorithm = ClientKeyAlgorithm::Rsa2048;
        let key = ClientKey {
            id: id.clone(),
            aap,
            algorithm,
            origin: ClientKeyOrigin::Kms,
            public_key: public.as_der().to_vec(),
            shown: packaged.certificate,
            certificate: None,
            not_before: span.0,
            not_after: span.1,
            created_at: self.now(),
        };
        let changed = actors.policy(ChangeAccess(AccessChange::AddClientKey(key))).await?;
        let reply = CreateClientKeyReply {
            client_key_id: id,
            key_algorithm: algorithm,
            not_before: span.0,
            not_after: span.1,
            private_key_data: packaged.pkcs12.into(),
            request_id: call.request_id,
        };
        Ok(done(Reply::CreateClientKey(reply), changed))
    }
}

/// Has a TLS certificate stand for a client key.
pub(super) fn plan_client_certificate(
    r: RegisterClientCertificateRequest,
    now: Timestamp,
) -> Result<(AccessChange, Answer)> {
    let (not_before, not_after) = span(r.not_before, r.not_after, now)?;
    let by = match (r.fingerprint, r.uri) {
        (Some(text), None) => KnownBy::fingerprint(&text)?,
        (None, Some(text)) => KnownBy::uri(&text)?,
        _ => {
            let why = "one of Fingerprint and Uri says what the certificate is known by";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
    };
    let id = ClientKeyId::from_random(random::array()?);
    let key = ClientKey {
        id: id.clone(),
        aap: r.aap_name,
        algorithm: ClientKeyAlgorithm::Certificate,
        origin: ClientKeyOrigin::User,
        public_key: Vec::new(),
        shown: by.to_string(),
        certificate: Some(by),
        not_before,
        not_after,
        created_at: now,
    };
    let answer = move |request_id| {
        Reply::RegisterClientCertificate(RegisterClientCertificateReply {
            client_key_id: id,
            not_before,
            not_after,
            request_id,
        })
    };
    Ok((AccessChange::AddClientKey(key), Box::new(answer)))
}

/// Reads for how long a client key is taken.
fn span(
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp)> {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
    let (default, most) = limit::CLIENT_KEY_YEARS;
    // To the second, as it is shown.
    let now = Timestamp::from_ms(now.as_s() * 1_000);
    let (from, until) = match (not_before, not_after) {
        (None, None) => (now, now.plus(YEAR * default as u32)),
        (Some(from), Some(until)) => (from, until),
        _ => return invalid("NotBefore and NotAfter come together".into()),
    };
    if until <= from || until <= now {
        return invalid("NotAfter lies behind NotBefore and in the future".into());
    }
    match until.since(from) <= YEAR * most as u32 {
        true => Ok((from, until)),
        false => invalid(format!("NotAfter is up to {most} years behind NotBefore")),
    }
}

/// Checks the password of a PKCS #12 against the cloud's rule.
fn check_password(password: &str) -> Result<()> {
    const SPECIAL: &str = "~!@#$%^&*?_-";
    let has = |kind: fn(char) -> bool| usize::from(password.chars().any(kind));
    let is_special = |c: char| SPECIAL.contains(c);
    let kinds = has(|c| c.is_ascii_digit())
        + has(|c| c.is_ascii_alphabetic())
        + usize::from(password.chars().any(is_special));
    let is_known = password.chars().all(|c| c.is_ascii_alphanumeric() || is_special(c));
    match (8..=64).contains(&password.len()) && kinds >= 2 && is_known {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::InvalidParameter,
            "Password has 8 to 64 characters, of two kinds at least of digits, letters and ~!@#$%^&*?_-",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_key_is_taken_for_five_years_or_as_its_maker_says() {
        let at = |s: u64| Timestamp::from_ms(s * 1_000);
        let now = Timestamp::from_ms(1_800_000_000_999);
        let (from, until) = span(None, None, now).unwrap();
        assert_eq!((from, until.since(from).as_secs()), (at(1_800_000_000), 5 * 365 * 86_400));
        let early = at(1_700_000_000);
        assert_eq!(span(Some(early), Some(at(1_800_000_001)), now).unwrap().0, early);
        let year = 365 * 86_400;
        for (from, until) in [
            (Some(at(5)), None),
            (None, Some(at(1_900_000_000))),
            (Some(at(1_900_000_000)), Some(at(1_900_000_000))),
            (Some(at(5)), Some(at(1_800_000_000))),
            (Some(at(1_800_000_000)), Some(at(1_800_000_001 + 10 * year))),
        ] {
            assert_eq!(span(from, until, now).unwrap_err().kind(), ErrorKind::InvalidParameter);
        }
        span(Some(at(1_800_000_000)), Some(at(1_800_000_000 + 10 * year)), now).unwrap();
    }

    #[test]
    fn a_password_is_of_two_kinds_of_characters_and_shown_in_no_error() {
        for good in ["secret-1234", "abcdefg1", "1234567!", &"a1".repeat(32)] {
            check_password(good).unwrap();
        }
        for bad in
            ["", "abc1", "abcdefgh", "12345678", "abc def1", "пароль123", &"a1".repeat(33), "abcdefg1\n"]
        {
            let error = check_password(bad).unwrap_err();
            assert!(bad.is_empty() || !error.message().contains(bad), "{bad}");
        }
    }
}
