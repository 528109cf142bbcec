//! What waits for a second caller, as a file has it.

use keymill_core::operation::Operation;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// What waits for a second caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DualControlSection {
    /// The operations.
    pub(crate) operations: Vec<String>,
}

impl DualControlSection {
    /// Returns the engine's options.
    ///
    /// # Errors
    /// Where an operation is none, is named twice, or cannot wait.
    pub(crate) fn read(&self) -> Result<Vec<Operation>> {
        let mut operations = Vec::with_capacity(self.operations.len());
        for name in &self.operations {
            let wrong = |why: String| Failure::new(format!("dual_control.operations: {why}"));
            let operation =
                Operation::by_name(name).ok_or_else(|| wrong(format!("{name:?} is no operation")))?;
            if !operation.may_wait_for_approval() {
                let able = Operation::ALL.into_iter().filter(|operation| operation.may_wait_for_approval());
                let able: Vec<_> = able.map(Operation::name).collect();
                return Err(wrong(format!(
                    "{name} cannot wait for a second caller; these can: {}",
                    able.join(", ")
                )));
            }
            if operations.contains(&operation) {
                return Err(wrong(format!("{name} is named twice")));
            }
            operations.push(operation);
        }
        Ok(operations)
    }

    /// Tells what lets one caller be two, where something waits and that does not.
    pub(crate) fn warning(&self) -> Option<String> {
        use Operation::*;
        // An access key of another's is one more caller, and so is an application that may do it: by its own policy, or a key's.
        const MAKE_CALLERS: [Operation; 13] = [
            CreateAccessKey,
            UpdateAccessKey,
            CreateRole,
            UpdateRole,
            SetKeyPolicy,
            SetSecretPolicy,
            CreatePolicy,
            UpdatePolicy,
            CreateApplicationAccessPoint,
            UpdateApplicationAccessPoint,
            RegisterClientKey,
            RegisterClientCertificate,
            CreateAcmeBinding,
        ];
        let is_free = |operation: &Operation| !self.operations.iter().any(|name| name == operation.name());
        let free: Vec<_> =
            MAKE_CALLERS.iter().filter(|operation| is_free(operation)).map(|o| o.name()).collect();
        let mut told = Vec::new();
        if !self.operations.is_empty() && !free.is_empty() {
            told.push(format!(
                "whoever may do {} alone can make the second caller, too: list it, once two callers may approve it",
                free.join(", ")
            ));
        }
        // What comes to the same by another name.
        const ALIKE: [(Operation, &[Operation]); 4] = [
            (CreateCertificateAuthority, &[IssueCertificate, BatchIssueCertificate]),
            (IssueCertificate, &[BatchIssueCertificate, RenewCertificate]),
            (RevokeCertificate, &[UpdateCertificateStatus]),
            (UpdateCertificateAuthority, &[UpdateCertificateStatus]),
        ];
        for (listed, others) in ALIKE.iter().filter(|(listed, _)| !is_free(listed)) {
            let free: Vec<_> = others.iter().filter(|other| is_free(other)).map(|o| o.name()).collect();
            if !free.is_empty() {
                told.push(format!("{} waits, and {} can come to the same", listed.name(), free.join(", ")));
            }
        }
        (!told.is_empty()).then(|| format!("dual_control.operations: {}", told.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_one_caller_be_two_is_told() {
        let of = |names: &[&str]| DualControlSection {
            operations: names.iter().map(|n| (*n).to_owned()).collect(),
        };
        assert_eq!(of(&[]).warning(), None);
        let told = of(&["DisableKey", "CreateAccessKey"]).warning().unwrap();
        assert!(told.contains("UpdateAccessKey, CreateRole") && !told.contains("CreateAccessKey,"), "{told}");
        assert!(
            told.contains("CreateApplicationAccessPoint") && told.contains("RegisterClientKey"),
            "{told}"
        );
        let all = of(&[
            "DisableKey",
            "CreateAccessKey",
            "UpdateAccessKey",
            "CreateRole",
            "UpdateRole",
            "SetKeyPolicy",
            "SetSecretPolicy",
            "CreatePolicy",
            "UpdatePolicy",
            "CreateApplicationAccessPoint",
            "UpdateApplicationAccessPoint",
            "RegisterClientKey",
            "RegisterClientCertificate",
            "CreateAcmeBinding",
        ]);
        assert_eq!(all.warning(), None);
    }

    #[test]
    fn what_waits_is_named_once_and_can_wait() {
        let read = |text: &str| toml::from_str::<DualControlSection>(text).unwrap().read();
        assert_eq!(read("").unwrap(), []);
        let two = read("operations = [\"ScheduleKeyDeletion\", \"SetKeyPolicy\"]\n").unwrap();
        assert_eq!(two, [Operation::ScheduleKeyDeletion, Operation::SetKeyPolicy]);
        for (bad, why) in [
            ("\"DeleteEverything\"", "is no operation"),
            ("\"Encrypt\"", "these can: "),
            // Its parameters hold a password, which a second caller would be shown.
            ("\"CreateClientKey\"", "cannot wait"),
            ("\"ApproveRequest\"", "cannot wait"),
            ("\"DeleteSecret\", \"DeleteSecret\"", "named twice"),
        ] {
            let told = read(&format!("operations = [{bad}]\n")).unwrap_err().to_string();
            assert!(told.contains(why), "{bad}: {told}");
        }
    }
}
