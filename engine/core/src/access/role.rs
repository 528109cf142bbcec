//! Roles: named sets of operations. The cloud's templates keep the cloud's names.

use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// A named set of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Every operation; the bootstrap access key has it.
    Root,
    /// The life of keys and aliases, but not their use.
    KeyAdministrator,
    /// Access keys and what they grant, but not keys.
    PolicyAdministrator,
    /// Reads everything that is not secret.
    Auditor,
    /// The use of keys, but not their life.
    #[serde(rename = "RbacPermission/Template/CryptoServiceKeyUser")]
    CryptoServiceKeyUser,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [
        Role::Root,
        Role::KeyAdministrator,
        Role::PolicyAdministrator,
        Role::Auditor,
        Role::CryptoServiceKeyUser,
    ];

    /// Returns the name that requests use.
    pub fn name(self) -> &'static str {
        match self {
            Role::Root => "Root",
            Role::KeyAdministrator => "KeyAdministrator",
            Role::PolicyAdministrator => "PolicyAdministrator",
            Role::Auditor => "Auditor",
            Role::CryptoServiceKeyUser => "RbacPermission/Template/CryptoServiceKeyUser",
        }
    }

    /// Tells whether the operation belongs to the role.
    pub fn covers(self, operation: Operation) -> bool {
        use Operation::*;
        let reads_keys = matches!(
            operation,
            DescribeKey | ListKeys | DescribeKeyVersion | ListKeyVersions | ListAliases | ListAliasesByKeyId
        );
        let reads_access = operation == ListAccessKeys;
        match self {
            Role::Root => true,
            Role::KeyAdministrator => {
                reads_keys
                    || matches!(
                        operation,
                        CreateKey
                            | EnableKey
                            | DisableKey
                            | ScheduleKeyDeletion
                            | CancelKeyDeletion
                            | UpdateKeyDescription
                            | RotateKey
                            | CreateAlias
                            | UpdateAlias
                            | DeleteAlias
                            | DescribeLimits
                            | ListTokens
                    )
            }
            Role::PolicyAdministrator => {
                reads_access
                    || matches!(
                        operation,
                        CreateAccessKey | UpdateAccessKey | DeleteAccessKey | DescribeLimits
                    )
            }
            Role::Auditor => reads_keys || reads_access || matches!(operation, DescribeLimits | ListTokens),
            Role::CryptoServiceKeyUser => matches!(
                operation,
                Encrypt
                    | Decrypt
                    | ReEncrypt
                    | GenerateDataKey
                    | GenerateDataKeyWithoutPlaintext
                    | BatchEncrypt
                    | BatchDecrypt
                    | BatchReEncrypt
                    | BatchGenerateDataKey
                    | DescribeKey
                    | DescribeLimits
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_administers_keys_cannot_use_them_and_the_reverse() {
        for operation in Operation::ALL {
            let both =
                Role::KeyAdministrator.covers(operation) && Role::CryptoServiceKeyUser.covers(operation);
            assert!(
                !both || matches!(operation, Operation::DescribeKey | Operation::DescribeLimits),
                "{operation:?}"
            );
            assert!(Role::Root.covers(operation));
        }
    }

    #[test]
    fn an_auditor_changes_nothing() {
        for operation in Operation::ALL {
            if Role::Auditor.covers(operation) {
                assert_eq!(operation.class(), crate::operation::Class::Read, "{operation:?}");
            }
        }
    }
}
