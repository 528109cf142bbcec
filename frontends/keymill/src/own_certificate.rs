//! The certificate of a listener that an authority of this installation signs: its key is made here, lives in memory alone, and is another with each
//! certificate. A new one is asked for at two thirds of the time of the last; where that fails, it is tried again, and the one before stays in force.

use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use keymill_core::Sensitive;
use keymill_core::certificate::{AltName, AttributeKind, DistinguishedName};
use keymill_core::id::{AuthorityName, CertificateId, ProfileName};
use keymill_core::key::SignAlgorithm;
use keymill_core::time::Timestamp;
use keymill_runtime::Gate;
use keymill_tls::ServerTls;

use crate::config::TlsSection;
use crate::failure::{Failure, Result};

/// Between two tries, where one failed.
const AGAIN: Duration = Duration::from_secs(60);

/// What a listener asks for.
pub(crate) struct OwnCertificate {
    listener: &'static str,
    tls: ServerTls,
    authority: AuthorityName,
    profile: ProfileName,
    names: Vec<AltName>,
    /// The one in force.
    id: Option<CertificateId>,
    /// When the next one is asked for.
    due: Timestamp,
    /// When one is asked for that was refused.
    again: Option<Instant>,
}

impl OwnCertificate {
    /// Returns what a section asks for, where it names an authority.
    pub(crate) fn of(listener: &'static str, section: &TlsSection, tls: &ServerTls) -> Option<Self> {
        Some(Self {
            listener,
            tls: tls.clone(),
            authority: section.authority.clone()?,
            profile: section.profile.clone(),
            names: section.names.clone(),
            id: None,
            due: Timestamp::from_ms(0),
            again: None,
        })
    }

    /// Has the first one signed: without it, nobody can be served.
    pub(crate) fn first(&mut self, gate: &Gate) -> Result<()> {
        self.renew(gate).map_err(|failure| {
            let (listener, authority) = (self.listener, &self.authority);
            Failure::new(format!("[{listener}.tls] authority {authority}: {failure}")).next(format!(
                "serve without [{listener}.tls] on loopback, and see how it stands, or make it: keymill ca show {authority}; keymill ca create {authority} --subject CN=…"
            ))
        })
    }

    /// Has another one signed, where it is time.
    pub(crate) fn look(&mut self, gate: &Gate) {
        let rests = self.again.is_some_and(|at| Instant::now() < at);
        // Nobody believes one that is revoked.
        let is_revoked = self.id.is_some_and(|id| gate.is_revoked(&id));
        if (gate.now() < self.due && !is_revoked) || rests {
            return;
        }
        match self.renew(gate) {
            Ok(()) => {
                let days_left = self.tls.days_left();
                tracing::info!(
                    listener = self.listener,
                    days_left,
                    "new connections are served with a new certificate"
                );
            }
            Err(error) => {
                self.again = Some(Instant::now() + AGAIN);
                let (listener, days_left) = (self.listener, self.tls.days_left());
                tracing::error!(listener, %error, days_left, "the certificate could not be renewed: it is tried again in a minute");
            }
        }
    }

    fn renew(&mut self, gate: &Gate) -> Result<()> {
        let renewed = self.ask(gate);
        if renewed.is_err() {
            self.tls.not_supplied();
        }
        let (chain, key, due, id) = renewed?;
        self.tls.supply(chain.into_bytes(), key).map_err(Failure::because("TLS"))?;
        (self.id, self.due, self.again) = (Some(id), due, None);
        Ok(())
    }

    /// Returns a chain and its key in PEM, and when the next is due.
    fn ask(&self, gate: &Gate) -> Result<(String, Sensitive, Timestamp, CertificateId)> {
        let told = |error: keymill_core::Error| Failure::new(error.message().to_owned());
        let broken = |_| Failure::new("no key pair was made");
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(broken)?;
        let public: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(broken)?;
        // A name of the subject is of 64 characters at most; the names that count are the others.
        let first = self.names.first().map(plain).filter(|name| name.len() <= 64);
        let name = first.unwrap_or_else(|| "keymill".to_owned());
        let subject = DistinguishedName::new(vec![(AttributeKind::CommonName, name)]).map_err(told)?;
        let algorithm = SignAlgorithm::EcdsaSha256;
        let request =
            keymill_x509::request(&subject, &self.names, public.as_ref(), algorithm).map_err(told)?;
        let signature = key.sign(&SystemRandom::new(), request.bytes()).map_err(broken)?;
        let csr = request.finish(signature.as_ref()).map_err(told)?;
        let csr = keymill_x509::pem("CERTIFICATE REQUEST", &csr);
        let issued =
            gate.issue_for_listener(self.listener, (&self.authority, &self.profile), csr).map_err(told)?;
        let pkcs8 = key.to_pkcs8v1().map_err(broken)?;
        let key = Sensitive::new(keymill_x509::pem("PRIVATE KEY", pkcs8.as_ref()).into_bytes());
        let (from, to) = (issued.validity.not_before, issued.validity.not_after);
        Ok((issued.chain, key, from.plus(to.since(from) * 2 / 3), issued.id))
    }
}

fn plain(name: &AltName) -> String {
    match name {
        AltName::Dns(name) | AltName::Email(name) | AltName::Uri(name) => name.clone(),
        AltName::Ip(address) => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use keymill_core::operation::{
        CreateCertificateAuthorityRequest, RevokeCertificateRequest, UpdateCertificateAuthorityRequest,
    };
    use keymill_tls::Options;

    use super::*;
    use crate::admin::Api;
    use crate::config::Config;
    use crate::credentials::Target;
    use crate::instance::{Instance, Started, Taken};

    #[test]
    fn another_is_asked_for_when_it_is_due_and_the_one_before_stays_where_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: Some(directory.path().join("data")), ..Config::default() };
        config.msgpack.address.set_port(0);
        let places = config.places().unwrap();
        let taken = Taken::take(&config, &places).unwrap();
        let Started { mut instance, bootstrap, .. } =
            Instance::start(&config, &places, taken, &mut |_| Ok(())).unwrap();
        let listener = keymill_msgpack::bind(config.msgpack().unwrap()).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        instance.run(listener, drop).unwrap();
        let bootstrap = bootstrap.unwrap();
        let secret = String::from_utf8(bootstrap.secret.expose().to_vec()).unwrap();
        let target = Target::of(&address, keymill_client::Credentials::new(bootstrap.id, secret));
        let api = Api::to(target, false).unwrap();

        let tls = keymill_tls::ServerTls::open(Options::supplied("authority own".into(), b"test")).unwrap();
        let mut own = OwnCertificate {
            listener: "http",
            tls: tls.clone(),
            authority: "own".parse().unwrap(),
            profile: "server".parse().unwrap(),
            names: vec!["kms.example".parse().unwrap()],
            id: None,
            due: Timestamp::from_ms(0),
            again: None,
        };
        let gate = instance.gate();
        let refused = own.first(&gate).unwrap_err().to_string();
        assert!(refused.contains("[http.tls] authority own"), "{refused}");
        let create = serde_json::json!({ "AuthorityName": "own", "Subject": "CN=own" });
        let create: CreateCertificateAuthorityRequest = serde_json::from_value(create).unwrap();
        api.call(create).unwrap().reply().unwrap();
        own.first(&gate).unwrap();
        let days = tls.days_left();
        assert!((89..=90).contains(&days), "{days}");
        // Two thirds of its time.
        let rests = own.due.since(gate.now()).as_secs() / 86_400;
        assert!((59..=60).contains(&rests), "{rests}");
        own.look(&gate);
        assert_eq!(tls.reloads()[0], 0, "it is not due");
        own.due = Timestamp::from_ms(0);
        own.look(&gate);
        assert_eq!(tls.reloads()[0], 1, "another one");

        let revoke = serde_json::json!({ "CertificateId": own.id.unwrap(), "Reason": "KeyCompromise" });
        let revoke: RevokeCertificateRequest = serde_json::from_value(revoke).unwrap();
        api.call(revoke).unwrap().reply().unwrap();
        own.look(&gate);
        assert_eq!(tls.reloads()[0], 2, "nobody believes one that is revoked");

        let disable = serde_json::json!({ "AuthorityName": "own", "Status": "Disabled" });
        let disable: UpdateCertificateAuthorityRequest = serde_json::from_value(disable).unwrap();
        api.call(disable).unwrap().reply().unwrap();
        let failed = tls.reloads()[1];
        own.due = Timestamp::from_ms(0);
        own.look(&gate);
        assert_eq!((tls.reloads(), tls.config().is_some()), ([2, failed + 1], true));
        own.look(&gate);
        assert_eq!(tls.reloads()[1], failed + 1, "it rests before it tries again");
        drop(api);
        instance.stop();
    }
}
