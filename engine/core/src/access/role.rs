//! Roles: named sets of operations. The cloud's templates keep the cloud's names.

use crate::operation::Operation;

/// A named set of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Every operation; the bootstrap access key has it.
    Root,
    /// The life of keys and aliases, but not their use.
    KeyAdministrator,
    /// The life of secrets and their values, but not the reading of those.
    SecretAdministrator,
    /// The life of certificates and of the authorities that sign them, but not the use of their keys.
    CertificateAdministrator,
    /// Access keys and what they grant, access points and theirs, and the policies of keys and secrets, but not keys.
    PolicyAdministrator,
    /// The life of instances, their networks and what they may take, but nothing that is in them.
    InstanceAdministrator,
    /// Reads everything that is not secret.
    Auditor,
    /// The use of keys, but not their life.
    CryptoServiceKeyUser,
    /// The use of secrets, but not their life; the cloud's console calls it `SecretUser`.
    CryptoServiceSecretUser,
    /// The use of certificates' keys, but not their life. The name is ours, in the manner of the cloud's.
    CryptoServiceCertificateUser,
    /// Asks authorities here for certificates, and renews and revokes them; an application, for the names that its authority lists for it, and its own
    /// alone. The name is ours, too.
    CertificateRequester,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 11] = [
        Role::Root,
        Role::KeyAdministrator,
        Role::SecretAdministrator,
        Role::CertificateAdministrator,
        Role::PolicyAdministrator,
        Role::InstanceAdministrator,
        Role::Auditor,
        Role::CryptoServiceKeyUser,
        Role::CryptoServiceSecretUser,
        Role::CryptoServiceCertificateUser,
        Role::CertificateRequester,
    ];

    /// Finds a role by the name that requests use, or by another that it is known by.
    pub fn by_name(name: &str) -> Option<Self> {
        let known = Role::ALL.into_iter().find(|role| role.name() == name);
        known.or_else(|| (name == "SecretUser").then_some(Role::CryptoServiceSecretUser))
    }

    /// Returns the name that requests use.
    pub fn name(self) -> &'static str {
        match self {
            Role::Root => "Root",
            Role::KeyAdministrator => "KeyAdministrator",
            Role::SecretAdministrator => "SecretAdministrator",
            Role::CertificateAdministrator => "CertificateAdministrator",
            Role::PolicyAdministrator => "PolicyAdministrator",
            Role::InstanceAdministrator => "InstanceAdministrator",
            Role::Auditor => "Auditor",
            Role::CryptoServiceKeyUser => "RbacPermission/Template/CryptoServiceKeyUser",
            Role::CryptoServiceSecretUser => "RbacPermission/Template/CryptoServiceSecretUser",
            Role::CryptoServiceCertificateUser => "RbacPermission/Template/CryptoServiceCertificateUser",
            Role::CertificateRequester => "RbacPermission/Template/CertificateRequester",
        }
    }

    /// Tells whether it is one of those that permission policies give to applications.
    pub fn is_for_applications(self) -> bool {
        matches!(
            self,
            Role::CryptoServiceKeyUser
                | Role::CryptoServiceSecretUser
                | Role::CryptoServiceCertificateUser
                | Role::CertificateRequester
        )
    }

    /// Tells whether an operation belongs to every role: what the installation is, and what it takes, is told to all who may do anything.
    pub(super) fn is_told_to_all(operation: Operation) -> bool {
        use Operation::*;
        matches!(
            operation,
            DescribeLimits | DescribeRegions | DescribeService | DescribeAccountKmsStatus | OpenKmsService
        )
    }

    /// Tells whether the operation belongs to the role.
    pub fn covers(self, operation: Operation) -> bool {
        use Operation::*;
        let reads_keys = matches!(
            operation,
            DescribeKey
                | ListKeys
                | DescribeKeyVersion
                | GetPublicKey
                | ListKeyVersions
                | ListAliases
                | ListAliasesByKeyId
                | ListResourceTags
                | ListTagResources
                | GetKeyPolicy
                | ListManagedDataKeys
                | ListManagedDataKeyVersions
        );
        if Self::is_told_to_all(operation) {
            return true;
        }
        let reads_access = matches!(
            operation,
            ListAccessKeys
                | DescribeApplicationAccessPoint
                | ListApplicationAccessPoints
                | GetClientKey
                | ListClientKeys
                | DescribePolicy
                | ListPolicies
                | DescribeNetworkRule
                | ListNetworkRules
                | DescribeRole
                | ListRoles
                | ExplainAccess
        );
        let uses_secrets = matches!(operation, DescribeSecret | ListSecrets | ListSecretVersionIds);
        let reads_secrets = uses_secrets || operation == GetSecretPolicy;
        let reads_certificates = matches!(
            operation,
            GetCertificate
                | DescribeCertificate
                | ListCertificates
                | DescribeCertificateAuthority
                | ListCertificateAuthorities
        );
        let reads_instances = matches!(
            operation,
            GetKmsInstance | ListKmsInstances | GetDefaultKmsInstance | GetKmsInstanceQuotaInfos
        );
        let approves = matches!(operation, ListApprovals | ApproveRequest | RejectRequest);
        match self {
            Role::Root => true,
            Role::KeyAdministrator
            | Role::SecretAdministrator
            | Role::CertificateAdministrator
            | Role::PolicyAdministrator
            | Role::InstanceAdministrator
                if approves =>
            {
                true
            }
            Role::Auditor if operation == ListApprovals => true,
            Role::SecretAdministrator => {
                reads_secrets
                    || matches!(
                        operation,
                        CreateSecret
                            | UpdateSecret
                            | PutSecretValue
                            | UpdateSecretVersionStage
                            | DeleteSecret
                            | RestoreSecret
                            | ResealSecret
                            | RotateSecret
                            | UpdateSecretRotationPolicy
                            | GetRandomPassword
                            | TagResource
                            | UntagResource
                    )
            }
            Role::CertificateAdministrator => {
                reads_certificates
                    || matches!(
                        operation,
                        CreateCertificate
                            | UploadCertificate
                            | ImportCertificate
                            | UpdateCertificateStatus
                            | DeleteCertificate
                            | CreateCertificateAuthority
                            | ActivateCertificateAuthority
                            | UpdateCertificateAuthority
                            | DeleteCertificateAuthority
                            | IssueCertificate
                            | BatchIssueCertificate
                            | RenewCertificate
                            | RevokeCertificate
                            | TagResource
                            | UntagResource
                            | ListResourceTags
                    )
            }
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
                            | CreateKeyVersion
                            | GetParametersForImport
                            | ImportKeyMaterial
                            | DeleteKeyMaterial
                            | CreateManagedDataKey
                            | CreateManagedDataKeyVersion
                            | DeleteManagedDataKey
                            | UpdateRotationPolicy
                            | SetDeletionProtection
                            | TagResource
                            | UntagResource
                            | TagResources
                            | UntagResources
                            | CreateAlias
                            | UpdateAlias
                            | DeleteAlias
                            | ListTokens
                    )
            }
            Role::PolicyAdministrator => {
                reads_access
                    || matches!(
                        operation,
                        CreateAccessKey
                            | UpdateAccessKey
                            | DeleteAccessKey
                            | GetKeyPolicy
                            | SetKeyPolicy
                            | GetSecretPolicy
                            | SetSecretPolicy
                            | CreateApplicationAccessPoint
                            | UpdateApplicationAccessPoint
                            | DeleteApplicationAccessPoint
                            | CreateClientKey
                            | RegisterClientKey
                            | RegisterClientCertificate
                            | CreateAcmeBinding
                            | DeleteClientKey
                            | CreatePolicy
                            | UpdatePolicy
                            | DeletePolicy
                            | CreateNetworkRule
                            | UpdateNetworkRule
                            | DeleteNetworkRule
                            | CreateRole
                            | UpdateRole
                            | DeleteRole
                    )
            }
            Role::InstanceAdministrator => {
                reads_instances
                    || matches!(
                        operation,
                        CreateKmsInstance
                            | ConnectKmsInstance
                            | UpdateKmsInstanceBindVpc
                            | UpdateKmsInstancePool
                            | ReleaseKmsInstance
                            | ListTokens
                    )
            }
            Role::Auditor => {
                reads_keys
                    || reads_secrets
                    || reads_certificates
                    || reads_access
                    || reads_instances
                    || operation == ListTokens
            }
            Role::CryptoServiceKeyUser => matches!(
                operation,
                Encrypt
                    | Decrypt
                    | ReEncrypt
                    | AdvanceEncrypt
                    | AdvanceDecrypt
                    | GetManagedDataKey
                    | ListManagedDataKeyVersions
                    | GenerateDataKey
                    | GenerateDataKeyWithoutPlaintext
                    | GenerateDataKeyPair
                    | GenerateDataKeyPairWithoutPlaintext
                    | GenerateRandom
                    | CreateLoginToken
                    | ExportDataKey
                    | GenerateAndExportDataKey
                    | BatchEncrypt
                    | BatchDecrypt
                    | BatchReEncrypt
                    | BatchGenerateDataKey
                    | AsymmetricSign
                    | AsymmetricVerify
                    | AsymmetricEncrypt
                    | AsymmetricDecrypt
                    | GenerateMac
                    | VerifyMac
                    | BatchSign
                    | BatchVerify
                    | BatchAsymmetricEncrypt
                    | BatchAsymmetricDecrypt
                    | BatchGenerateMac
                    | BatchVerifyMac
                    | GetPublicKey
                    | DescribeKey
            ),
            Role::CryptoServiceSecretUser => {
                uses_secrets
                    || matches!(
                        operation,
                        GetSecretValue | BatchGetSecretValue | GetRandomPassword | CreateLoginToken
                    )
            }
            Role::CertificateRequester => {
                reads_certificates
                    || matches!(
                        operation,
                        IssueCertificate
                            | BatchIssueCertificate
                            | RenewCertificate
                            | RevokeCertificate
                            | CreateLoginToken
                    )
            }
            Role::CryptoServiceCertificateUser => {
                reads_certificates
                    || matches!(
                        operation,
                        CertificatePrivateKeySign
                            | CertificatePublicKeyVerify
                            | CertificatePublicKeyEncrypt
                            | CertificatePrivateKeyDecrypt
                            | BatchSign
                            | BatchVerify
                            | CreateLoginToken
                    )
            }
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
            assert!(!both || operation.class() == crate::operation::Class::Read, "{operation:?}");
            assert!(Role::Root.covers(operation));
        }
    }

    #[test]
    fn who_administers_certificates_uses_no_key_of_theirs_and_gives_none_out() {
        use crate::operation::Class;
        for operation in Operation::ALL {
            let uses = operation.class() == Class::Data && Role::CertificateAdministrator.covers(operation);
            let changes = operation.class() == Class::Management
                && Role::CryptoServiceCertificateUser.covers(operation);
            assert!(!uses && !changes, "{operation:?}");
        }
        let exports = Role::ALL.into_iter().filter(|role| role.covers(Operation::ExportCertificate));
        assert_eq!(exports.collect::<Vec<_>>(), [Role::Root]);
    }

    #[test]
    fn who_administers_secrets_does_not_read_their_values_and_who_reads_them_changes_none() {
        use crate::operation::Class;
        assert!(!Role::SecretAdministrator.covers(Operation::GetSecretValue));
        // What leaves the server leaves its policies: that is a right of its own, which no role but Root holds.
        let exports = Role::ALL.into_iter().filter(|role| role.covers(Operation::ExportSecrets));
        assert_eq!(exports.collect::<Vec<_>>(), [Role::Root]);
        for operation in Operation::ALL.into_iter().filter(|operation| operation.class() == Class::Management)
        {
            let changes = Role::CryptoServiceSecretUser.covers(operation);
            assert!(!changes, "{operation:?}");
        }
        for role in
            [Role::KeyAdministrator, Role::PolicyAdministrator, Role::CryptoServiceKeyUser, Role::Auditor]
        {
            assert!(
                !role.covers(Operation::GetSecretValue) && !role.covers(Operation::PutSecretValue),
                "{role:?}"
            );
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
