//! Roles of an installation's own: sets of operations beside the templates, so that an application that writes can be one that never reads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Role;
use super::operation_set::OperationSet;
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{RoleName, Text};
use crate::limit;
use crate::time::Timestamp;

/// A role as a grant or a policy names it: one of [`Role`] by its name, or `role/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RoleRef {
    /// One that is always there.
    BuiltIn(Role),
    /// One of the installation's own.
    Custom(RoleName),
}

impl RoleRef {
    /// Tells whether it is this one of those that are always there.
    pub fn is(&self, role: Role) -> bool {
        matches!(self, RoleRef::BuiltIn(own) if *own == role)
    }

    /// Returns the name, where it is one of the installation's own.
    pub fn custom(&self) -> Option<&RoleName> {
        match self {
            RoleRef::BuiltIn(_) => None,
            RoleRef::Custom(name) => Some(name),
        }
    }
}

impl From<Role> for RoleRef {
    fn from(role: Role) -> Self {
        RoleRef::BuiltIn(role)
    }
}

impl fmt::Display for RoleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoleRef::BuiltIn(role) => f.write_str(role.name()),
            RoleRef::Custom(name) => write!(f, "role/{name}"),
        }
    }
}

impl FromStr for RoleRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let custom = || text.strip_prefix("role/")?.parse().ok().map(RoleRef::Custom);
        Role::by_name(text).map(RoleRef::BuiltIn).or_else(custom).ok_or_else(|| {
            let known: Vec<_> = Role::ALL.iter().map(|role| role.name()).collect();
            let why = format!("expected {}, or role/<name>", known.join(", "));
            Error::new(ErrorKind::InvalidParameter, why)
        })
    }
}

impl Serialize for RoleRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RoleRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.0.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

/// A role of the installation's own, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomRole {
    /// Its name.
    pub name: RoleName,
    /// Free text.
    pub description: String,
    /// What it covers, as it was written: `kms:Encrypt`, `kms:Describe*`.
    pub actions: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl CustomRole {
    /// Checks what it may say, and returns what it covers.
    ///
    /// # Errors
    /// `InvalidParameter` naming what it may not say, `LimitExceeded` past 64 actions.
    pub(super) fn check(&self) -> Result<OperationSet> {
        if self.actions.is_empty() {
            return Err(Error::new(ErrorKind::InvalidParameter, "Actions has one entry at least"));
        }
        if self.actions.len() > limit::ROLE_ACTIONS {
            let count = self.actions.len();
            let why = format!("Actions of {count} entries exceeds the limit of {}", limit::ROLE_ACTIONS);
            return Err(Error::new(ErrorKind::LimitExceeded(Limit::Roles), why));
        }
        let mut operations = OperationSet::default();
        for action in &self.actions {
            let added = operations.add_action(action, |_| true, "role");
            added.map_err(|why| Error::new(ErrorKind::InvalidParameter, format!("Actions: {why}")))?;
        }
        Ok(operations)
    }

    /// Tells whether it covers what only `Root` may do otherwise: then only `Root` may make it.
    ///
    /// # Errors
    /// As of a role that may not be made at all.
    pub fn exceeds_administrators(&self) -> Result<bool> {
        let most = OperationSet::of_roles(&Role::ALL.map(|role| match role {
            Role::Root => Role::Auditor,
            other => other,
        }));
        Ok(!self.check()?.is_subset_of(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;

    fn role(actions: &[&str]) -> CustomRole {
        CustomRole {
            name: "ingest".parse().unwrap(),
            description: String::new(),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
            created_at: Timestamp::from_ms(0),
        }
    }

    #[test]
    fn a_role_covers_its_actions_their_batch_forms_and_what_is_told_to_all() {
        let covered = role(&["kms:Encrypt", "kms:GenerateDataKey*"]).check().unwrap();
        for (operation, is_in) in [
            (Operation::Encrypt, true),
            (Operation::BatchEncrypt, true),
            (Operation::GenerateDataKeyWithoutPlaintext, true),
            (Operation::Decrypt, false),
            (Operation::BatchDecrypt, false),
            (Operation::DescribeKey, false),
        ] {
            assert_eq!(covered.has(operation), is_in, "{operation:?}");
        }
    }

    #[test]
    fn d8_what_a_role_may_not_say_is_named() {
        for (actions, told) in [
            (vec![], "one entry at least"),
            (vec!["Encrypt"], "does not begin with kms:"),
            (vec!["kms:encrypt"], "case matters"),
            (vec!["kms:Enc*pt"], "names no operation"),
            (vec!["kms:Encrypt"; 65], "exceeds the limit of 64"),
        ] {
            let error = role(&actions).check().unwrap_err();
            assert!(error.message().contains(told), "{actions:?}: {error}");
        }
        role(&["kms:Encrypt"; 64]).check().unwrap();
    }

    #[test]
    fn what_root_alone_may_do_is_given_by_root_alone() {
        for (actions, exceeds) in [
            (vec!["kms:Encrypt", "kms:ScheduleKeyDeletion", "kms:SetKeyPolicy"], false),
            (vec!["kms:DrainToken"], true),
            (vec!["kms:AdoptKey"], true),
            (vec!["*"], true),
        ] {
            assert_eq!(role(&actions).exceeds_administrators().unwrap(), exceeds, "{actions:?}");
        }
    }

    #[test]
    fn a_role_is_read_by_its_one_name() {
        for role in Role::ALL {
            assert_eq!(role.name().parse::<RoleRef>().unwrap(), role.into());
        }
        assert_eq!("role/ingest-1".parse::<RoleRef>().unwrap().to_string(), "role/ingest-1");
        for wrong in ["", "ingest", "role/", "role/a b", "Role/a", "root", "role/Röle"] {
            assert!(wrong.parse::<RoleRef>().unwrap_err().message().contains("role/<name>"), "{wrong}");
        }
    }
}
