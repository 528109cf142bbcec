//! Which operations may be asked again while it is not known whether they were carried out: the one answer for every client, also for one
//! that asks another node of a cluster.

use super::Operation;

impl Operation {
    /// Tells whether it answers what is told to everybody who asks, whatever rights are taken away meanwhile: also by a node that does not know the
    /// newest.
    pub const fn tells_what_is_public(self) -> bool {
        use Operation::*;
        matches!(
            self,
            GetPublicKey
                | DescribeRegions
                | DescribeService
                | DescribeLimits
                | DescribeAccountKmsStatus
                | OpenKmsService
        )
    }

    /// Tells whether asking twice is as good as asking once: what the first time left behind, if anything, is in nobody's way. A data key that
    /// nobody received, a nonce that was used and a second audit record are no harm.
    ///
    /// A change is none of them, though it sets what may be set already: between the two, somebody else may have set it otherwise.
    pub const fn is_idempotent(self) -> bool {
        use Operation::*;
        // Complete on purpose: whoever adds an operation decides here.
        match self {
            DescribeKey
            | ListKeys
            | GetKeyPolicy
            | DescribeKeyVersion
            | ListKeyVersions
            | ListAliases
            | ListAliasesByKeyId
            | ListResourceTags
            | ListTagResources
            | Encrypt
            | Decrypt
            | ReEncrypt
            | AdvanceEncrypt
            | AdvanceDecrypt
            | GenerateDataKey
            | GenerateDataKeyWithoutPlaintext
            | GenerateDataKeyPair
            | GenerateDataKeyPairWithoutPlaintext
            | GenerateRandom
            | ExportDataKey
            | GenerateAndExportDataKey
            | GetManagedDataKey
            | ListManagedDataKeys
            | ListManagedDataKeyVersions
            | DescribeSecret
            | ListSecrets
            | GetSecretValue
            | BatchGetSecretValue
            | ExportSecrets
            | ListSecretVersionIds
            | GetSecretPolicy
            | GetCertificate
            | DescribeCertificate
            | ListCertificates
            | ExportCertificate
            | CertificatePrivateKeySign
            | CertificatePublicKeyVerify
            | CertificatePublicKeyEncrypt
            | CertificatePrivateKeyDecrypt
            | DescribeCertificateAuthority
            | ListCertificateAuthorities
            | GetRandomPassword
            | BatchEncrypt
            | BatchDecrypt
            | BatchReEncrypt
            | BatchGenerateDataKey
            | AsymmetricSign
            | AsymmetricVerify
            | AsymmetricEncrypt
            | AsymmetricDecrypt
            | GetPublicKey
            | GenerateMac
            | VerifyMac
            | BatchSign
            | BatchVerify
            | BatchAsymmetricEncrypt
            | BatchAsymmetricDecrypt
            | BatchGenerateMac
            | BatchVerifyMac
            | ListAccessKeys
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
            | ListApprovals
            | CreateLoginToken
            | ExplainAccess
            | DescribeLimits
            | DescribeRegions
            | DescribeService
            | DescribeAccountKmsStatus
            | OpenKmsService
            | GetKmsInstance
            | ListKmsInstances
            | GetDefaultKmsInstance
            | GetKmsInstanceQuotaInfos
            | ListTokens => true,
            CreateKey
            | AdoptKey
            | EnableKey
            | DisableKey
            | ScheduleKeyDeletion
            | CancelKeyDeletion
            | UpdateKeyDescription
            | RotateKey
            | CreateKeyVersion
            | UpdateRotationPolicy
            | GetParametersForImport
            | ImportKeyMaterial
            | DeleteKeyMaterial
            | SetDeletionProtection
            | SetKeyPolicy
            | CreateAlias
            | UpdateAlias
            | DeleteAlias
            | TagResource
            | UntagResource
            | TagResources
            | UntagResources
            | CreateManagedDataKey
            | CreateManagedDataKeyVersion
            | DeleteManagedDataKey
            | CreateSecret
            | UpdateSecret
            | PutSecretValue
            | UpdateSecretVersionStage
            | DeleteSecret
            | RestoreSecret
            | ResealSecret
            | RotateSecret
            | UpdateSecretRotationPolicy
            | SetSecretPolicy
            | CreateCertificate
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
            | CreateAccessKey
            | UpdateAccessKey
            | DeleteAccessKey
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
            | ApproveRequest
            | RejectRequest
            | DrainToken
            | CreateKmsInstance
            | ConnectKmsInstance
            | UpdateKmsInstanceBindVpc
            | UpdateKmsInstancePool
            | ReleaseKmsInstance
            | EnableToken => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Class;

    #[test]
    fn what_uses_keys_or_reads_may_be_repeated_and_what_changes_the_store_may_not() {
        for operation in Operation::ALL {
            let expected = match operation.class() {
                Class::Data | Class::Read => true,
                // Its record must be durable, and it changes nothing.
                Class::Management => operation == Operation::ExportCertificate,
            };
            assert_eq!(operation.is_idempotent(), expected, "{}", operation.name());
        }
    }
}
