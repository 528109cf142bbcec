//! What operations have to do with rights to keys.

use super::Operation;

impl Operation {
    /// Tells whether it is a right to single keys, which a key's own policy can speak of. Others are about no key, or are carried out by the
    /// right to something else: `ReEncrypt` by `Decrypt` on its source and `Encrypt` on its destination, `AdvanceEncrypt` by `Encrypt`,
    /// `BatchGenerateDataKey` by the right to make one,
    /// `BatchGetSecretValue` by `GetSecretValue` on each secret.
    pub const fn is_right_to_a_key(self) -> bool {
        use Operation::*;
        !matches!(
            self,
            CreateKey
                | AdoptKey
                | ReEncrypt
                | BatchReEncrypt
                | AdvanceEncrypt
                | AdvanceDecrypt
                | BatchGenerateDataKey
                | GenerateRandom
                | CreateSecret
                | DescribeSecret
                | ListSecrets
                | UpdateSecret
                | PutSecretValue
                | GetSecretValue
                | BatchGetSecretValue
                | ExportSecrets
                | ListSecretVersionIds
                | UpdateSecretVersionStage
                | DeleteSecret
                | RestoreSecret
                | ResealSecret
                | RotateSecret
                | UpdateSecretRotationPolicy
                | GetRandomPassword
                | GetSecretPolicy
                | SetSecretPolicy
                | CreateCertificate
                | UploadCertificate
                | ImportCertificate
                | GetCertificate
                | DescribeCertificate
                | ListCertificates
                | UpdateCertificateStatus
                | DeleteCertificate
                | ExportCertificate
                | CertificatePrivateKeySign
                | CertificatePublicKeyVerify
                | CertificatePublicKeyEncrypt
                | CertificatePrivateKeyDecrypt
                | CreateCertificateAuthority
                | ActivateCertificateAuthority
                | DescribeCertificateAuthority
                | ListCertificateAuthorities
                | UpdateCertificateAuthority
                | DeleteCertificateAuthority
                | IssueCertificate
                | BatchIssueCertificate
                | RenewCertificate
                | RevokeCertificate
                | CreateAccessKey
                | ListAccessKeys
                | UpdateAccessKey
                | DeleteAccessKey
                | CreateApplicationAccessPoint
                | DescribeApplicationAccessPoint
                | ListApplicationAccessPoints
                | UpdateApplicationAccessPoint
                | DeleteApplicationAccessPoint
                | CreateClientKey
                | RegisterClientKey
                | RegisterClientCertificate
                | CreateAcmeBinding
                | GetClientKey
                | ListClientKeys
                | DeleteClientKey
                | CreatePolicy
                | DescribePolicy
                | ListPolicies
                | UpdatePolicy
                | DeletePolicy
                | CreateNetworkRule
                | DescribeNetworkRule
                | ListNetworkRules
                | UpdateNetworkRule
                | DeleteNetworkRule
                | CreateRole
                | DescribeRole
                | ListRoles
                | UpdateRole
                | DeleteRole
                | ListApprovals
                | ApproveRequest
                | RejectRequest
                | CreateLoginToken
                | ExplainAccess
                | DescribeLimits
                | DescribeRegions
                | DescribeService
                | DescribeAccountKmsStatus
                | OpenKmsService
                | ListTokens
                | DrainToken
                | EnableToken
        )
    }

    /// Tells whether it is a right to single secrets, which a secret's own policy can speak of.
    pub const fn is_right_to_a_secret(self) -> bool {
        use Operation::*;
        matches!(
            self,
            DescribeSecret
                | ListSecrets
                | UpdateSecret
                | PutSecretValue
                | GetSecretValue
                | ExportSecrets
                | ListSecretVersionIds
                | UpdateSecretVersionStage
                | DeleteSecret
                | RestoreSecret
                | ResealSecret
                | RotateSecret
                | UpdateSecretRotationPolicy
                | GetSecretPolicy
                | SetSecretPolicy
                | TagResource
                | UntagResource
        )
    }

    /// Tells whether it is a right to single certificate authorities. Certificates are renewed and revoked by the right to do so with all of
    /// their authority's; an application is held to its own.
    pub const fn is_right_to_an_authority(self) -> bool {
        use Operation::*;
        matches!(
            self,
            ActivateCertificateAuthority
                | DescribeCertificateAuthority
                | ListCertificateAuthorities
                | UpdateCertificateAuthority
                | DeleteCertificateAuthority
                | IssueCertificate
                | BatchIssueCertificate
                | RenewCertificate
                | RevokeCertificate
        )
    }

    /// Tells whether it is a right to single certificates.
    pub const fn is_right_to_a_certificate(self) -> bool {
        use Operation::*;
        matches!(
            self,
            UploadCertificate
                | GetCertificate
                | DescribeCertificate
                | ListCertificates
                | UpdateCertificateStatus
                | DeleteCertificate
                | ExportCertificate
                | CertificatePrivateKeySign
                | CertificatePublicKeyVerify
                | CertificatePublicKeyEncrypt
                | CertificatePrivateKeyDecrypt
                | BatchSign
                | BatchVerify
                | TagResource
                | UntagResource
                | ListResourceTags
        )
    }

    /// Returns the operation that does the same with many items by a right of its own.
    pub const fn batch_form(self) -> Option<Operation> {
        use Operation::*;
        Some(match self {
            Encrypt => BatchEncrypt,
            Decrypt => BatchDecrypt,
            AsymmetricSign => BatchSign,
            AsymmetricVerify => BatchVerify,
            AsymmetricEncrypt => BatchAsymmetricEncrypt,
            AsymmetricDecrypt => BatchAsymmetricDecrypt,
            GenerateMac => BatchGenerateMac,
            VerifyMac => BatchVerifyMac,
            _ => return None,
        })
    }
}
