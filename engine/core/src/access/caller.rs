//! Who shares a turn and a quota: an application with all its client keys, or an access key.

use std::fmt;
use std::sync::Arc;

use super::Principal;
use crate::id::{AapName, AccessKeyId};

/// A principal as far as its share goes: more client keys of one application are no more callers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// An access key.
    AccessKey(Arc<AccessKeyId>),
    /// An application access point.
    Aap(AapName),
}

impl Principal {
    /// Returns whose share the principal's work is of.
    pub fn caller(&self) -> Caller {
        match &self.aap {
            Some(aap) => Caller::Aap(aap.clone()),
            None => Caller::AccessKey(self.access_key.clone()),
        }
    }
}

impl From<AccessKeyId> for Caller {
    fn from(id: AccessKeyId) -> Self {
        Self::AccessKey(Arc::new(id))
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccessKey(id) => write!(f, "access-key/{id}"),
            Self::Aap(name) => write!(f, "aap/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_keys_of_one_application_are_one_caller_and_access_keys_are_their_own() {
        let of = |id: &str, aap: &str| {
            Principal::of_client_key(id.parse().unwrap(), aap.parse().unwrap()).caller()
        };
        assert_eq!(of("KAAP.one.", "shop"), of("KAAP.two.", "shop"));
        assert_ne!(of("KAAP.one.", "shop"), of("KAAP.one.", "till"));
        let key = |id: &str| Principal::of_access_key(id.parse().unwrap()).caller();
        assert_ne!(key("KMAK0001"), key("KMAK0002"));
        // An application cannot take the place of an access key by its name.
        assert_ne!(of("KAAP.one.", "KMAK0001"), key("KMAK0001"));
    }
}
