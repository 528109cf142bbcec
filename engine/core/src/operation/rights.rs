//! What operations are about, and which are rights to single keys, secrets, certificates and authorities.

use super::Operation;
use crate::access::Resource;

impl Operation {
    /// Returns what it is about where it names none of it: the keys as a whole, the secrets, and so on.
    pub const fn about(self) -> Resource<'static> {
        use Operation::*;
        match self {
            CreateAccessKey | ListAccessKeys | UpdateAccessKey | DeleteAccessKey | CreateRole
            | DescribeRole | ListRoles | UpdateRole | DeleteRole | ExplainAccess => Resource::AccessKeys,
            CreateApplicationAccessPoint
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
            | DeleteNetworkRule => Resource::Aaps,
            CreateSecret
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
            | GetSecretPolicy
            | SetSecretPolicy => Resource::Secrets,
            CreateCertificate
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
            | RevokeCertificate => Resource::Certificates,
            DescribeLimits
            | DescribeRegions
            | DescribeService
            | DescribeAccountKmsStatus
            | OpenKmsService
            | ListTokens
            | DrainToken
            | EnableToken
            | GenerateRandom
            | ListApprovals
            | ApproveRequest
            | RejectRequest
            | CreateKmsInstance
            | ConnectKmsInstance
            | GetKmsInstance
            | ListKmsInstances
            | UpdateKmsInstanceBindVpc
            | UpdateKmsInstancePool
            | ReleaseKmsInstance
            | GetDefaultKmsInstance
            | GetKmsInstanceQuotaInfos
            | CreateLoginToken
            | GetRandomPassword => Resource::Nothing,
            _ => Resource::Keys,
        }
    }

    /// Tells whether it is a right to single keys, which a key's own policy can speak of. Others are about no key, or are carried out by the
    /// right to something else: `ReEncrypt` by `Decrypt` on its source and `Encrypt` on its destination, `AdvanceEncrypt` by `Encrypt`,
    /// `BatchGenerateDataKey` by the right to make one,
    /// `BatchGetSecretValue` by `GetSecretValue` on each secret.
    pub const fn is_right_to_a_key(self) -> bool {
        use Operation::*;
        matches!(self.about(), Resource::Keys)
            && !matches!(
                self,
                CreateKey
                    | AdoptKey
                    | ReEncrypt
                    | BatchReEncrypt
                    | AdvanceEncrypt
                    | AdvanceDecrypt
                    | BatchGenerateDataKey
            )
    }

    /// Tells whether it is a right to single secrets, which a secret's own policy can speak of.
    pub const fn is_right_to_a_secret(self) -> bool {
        use Operation::*;
        match self {
            CreateSecret | BatchGetSecretValue => false,
            TagResource | UntagResource => true,
            _ => matches!(self.about(), Resource::Secrets),
        }
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
        match self {
            CreateCertificate | ImportCertificate | CreateCertificateAuthority => false,
            BatchSign | BatchVerify | TagResource | UntagResource | ListResourceTags => true,
            _ => matches!(self.about(), Resource::Certificates) && !self.is_right_to_an_authority(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An application that may use one key draws random bytes: no key is asked for, and so none is missing.
    #[test]
    fn what_is_about_no_key_is_asked_of_none() {
        for operation in [Operation::GenerateRandom, Operation::DescribeLimits, Operation::DrainToken] {
            assert_eq!(operation.about(), Resource::Nothing, "{operation:?}");
        }
        assert_eq!(Operation::CreateClientKey.about(), Resource::Aaps);
        assert_eq!(Operation::ExplainAccess.about(), Resource::AccessKeys);
        // What is a right to one thing alone is none to one of another kind; those that are of several say so here.
        for operation in Operation::ALL {
            let rights = [
                operation.is_right_to_a_key(),
                operation.is_right_to_a_secret(),
                operation.is_right_to_a_certificate(),
                operation.is_right_to_an_authority(),
            ];
            let are_several = matches!(
                operation,
                Operation::TagResource
                    | Operation::UntagResource
                    | Operation::ListResourceTags
                    | Operation::BatchSign
                    | Operation::BatchVerify
            );
            assert_eq!(rights.into_iter().filter(|is| *is).count() > 1, are_several, "{operation:?}");
        }
    }
}
