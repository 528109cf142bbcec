//! Accounts (RFC 8555 §7.1.2). Each is bound to an application access point (§7.3.4), by a client key of that, whose rights are its rights.

use serde::{Deserialize, Serialize};

use super::{AltName, Outcome, Problem, ProblemKind};
use crate::id::{AapName, AcmeAccountId, ClientKeyId};
use crate::limit;
use crate::time::Timestamp;

/// Where an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountStatus {
    /// It may be used.
    #[serde(rename = "valid")]
    Valid,
    /// Its holder has ended it.
    #[serde(rename = "deactivated")]
    Deactivated,
    /// An administrator has ended it.
    #[serde(rename = "revoked")]
    Revoked,
}

/// The public key that signs for an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountKey {
    /// The JSON of RFC 7638: required members alone, in the order of their names, without white space.
    pub jwk: String,
    /// SHA-256 of that, in base64url.
    pub thumbprint: String,
}

/// Who orders certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The id.
    pub id: AcmeAccountId,
    /// The key that signs for it.
    pub key: AccountKey,
    /// Where its holder is reached: `mailto:` URIs.
    pub contact: Vec<String>,
    /// Where it stands.
    pub status: AccountStatus,
    /// The access point under whose rights it orders.
    pub aap: AapName,
    /// The client key of that by which it is bound to it: without that key, it is nobody's.
    pub binding: ClientKeyId,
    /// When it was made.
    pub created: Timestamp,
}

impl Account {
    /// Checks that it may be used.
    ///
    /// # Errors
    /// `Unauthorized` once it has ended (RFC 8555 §7.3.6).
    pub fn check(&self) -> Outcome<()> {
        let ended = match self.status {
            AccountStatus::Valid => return Ok(()),
            AccountStatus::Deactivated => "the account is deactivated",
            AccountStatus::Revoked => "the account is revoked",
        };
        Err(Problem::new(ProblemKind::Unauthorized, ended))
    }

    /// Ends it; what has ended stays as it is.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn end(&mut self, status: AccountStatus) -> Outcome<()> {
        self.check()?;
        self.status = status;
        Ok(())
    }

    /// Has another key sign for it from now on. That the key signs for no other account is for whoever knows them all to check.
    ///
    /// # Errors
    /// As [`Self::check`]; `Malformed` where the key named as the old one is not its key, or is the new one.
    pub fn change_key(&mut self, old: &AccountKey, new: AccountKey) -> Outcome<()> {
        self.check()?;
        let wrong = match () {
            () if *old != self.key => "oldKey is not the key of the account",
            () if new == self.key => "the new key is the one that the account has",
            () => {
                self.key = new;
                return Ok(());
            }
        };
        Err(Problem::new(ProblemKind::Malformed, wrong))
    }
}

/// Checks the contacts of an account.
///
/// # Errors
/// `UnsupportedContact` for what is no `mailto:`, `InvalidContact` for an address that is none, or more than one of them (RFC 8555 §7.3), or too
/// many.
pub fn contacts(asked: Vec<String>) -> Outcome<Vec<String>> {
    if asked.len() > limit::ACME_CONTACTS {
        let why = format!("{} contacts exceed the limit of {}", asked.len(), limit::ACME_CONTACTS);
        return Err(Problem::new(ProblemKind::InvalidContact, why));
    }
    for contact in &asked {
        let Some(address) = contact.strip_prefix("mailto:") else {
            return Err(Problem::new(ProblemKind::UnsupportedContact, "a contact is a mailto: URI"));
        };
        // No header fields, no lists: what a mail program would make of them is not for us to find out.
        let is_plain = !address.contains(['?', ',', '%']);
        if !is_plain || format!("email:{address}").parse::<AltName>().is_err() {
            let why = "a contact is mailto: and one mail address";
            return Err(Problem::new(ProblemKind::InvalidContact, why));
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> AccountKey {
        AccountKey { jwk: format!("{{\"k\":\"{name}\"}}"), thumbprint: name.into() }
    }

    fn account() -> Account {
        Account {
            id: AcmeAccountId::from_random([7; 16]),
            key: key("a"),
            contact: vec![],
            status: AccountStatus::Valid,
            aap: "web".parse().unwrap(),
            binding: "KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9".parse().unwrap(),
            created: Timestamp::from_ms(0),
        }
    }

    #[test]
    fn an_account_that_has_ended_does_nothing_and_does_not_come_back() {
        for end in [AccountStatus::Deactivated, AccountStatus::Revoked] {
            let mut account = account();
            account.end(end).unwrap();
            assert_eq!(account.check().unwrap_err().kind, ProblemKind::Unauthorized);
            for other in [AccountStatus::Valid, AccountStatus::Deactivated, AccountStatus::Revoked] {
                assert!(account.end(other).is_err());
            }
            assert!(account.change_key(&key("a"), key("b")).is_err());
            assert_eq!((account.status, account.key), (end, key("a")));
        }
    }

    #[test]
    fn a_key_is_changed_by_who_knows_the_one_that_there_is() {
        let mut account = account();
        assert!(account.change_key(&key("x"), key("b")).is_err());
        assert!(account.change_key(&key("a"), key("a")).is_err());
        account.change_key(&key("a"), key("b")).unwrap();
        assert_eq!(account.key, key("b"));
    }

    #[test]
    fn contacts_are_mail_addresses_one_each() {
        let ask = |text: &str| contacts(vec![text.to_owned()]).map_err(|problem| problem.kind);
        ask("mailto:pki@example.com").unwrap();
        assert_eq!(contacts(vec![]).unwrap(), Vec::<String>::new());
        for odd in [
            "mailto:",
            "mailto:a",
            "mailto:a@b.example,c@b.example",
            "mailto:a@b.example?subject=x",
            "mailto:a%0a@b.example",
            "mailto:a@b.example\n",
        ] {
            assert_eq!(ask(odd), Err(ProblemKind::InvalidContact), "{odd:?}");
        }
        for other in ["tel:+1", "a@b.example", "", "MAILTO:a@b.example"] {
            assert_eq!(ask(other), Err(ProblemKind::UnsupportedContact), "{other:?}");
        }
        let many = vec!["mailto:a@b.example".to_owned(); limit::ACME_CONTACTS + 1];
        assert_eq!(contacts(many).unwrap_err().kind, ProblemKind::InvalidContact);
    }
}
