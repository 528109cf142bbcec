//! The list of all operations. Adding one here makes every frontend offer it, and every `match` over operations ask for it.

use serde::{Deserializer, Serialize, Serializer, de};

use super::*;

/// What an operation does to the world, and so when its audit record must be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Uses a key; its record is written before the answer, durable within 50 ms.
    Data,
    /// Reads what was published.
    Read,
    /// Changes the store; the change and its record are durable before the answer.
    Management,
}

macro_rules! catalogue {
    (<$lt:lifetime> $($name:ident: $class:ident($request:ty) -> $reply:ty;)*) => {
        /// An operation of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Operation {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                $name,
            )*
        }

        impl Operation {
            /// Every operation.
            pub const ALL: [Operation; [$(Operation::$name),*].len()] = [$(Operation::$name),*];

            /// Returns the name that the API uses.
            pub const fn name(self) -> &'static str {
                match self { $(Operation::$name => stringify!($name),)* }
            }

            /// Returns the operation of that name.
            pub fn by_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Operation::$name),)*
                    _ => None,
                }
            }

            /// Returns what the operation does to the world.
            pub const fn class(self) -> Class {
                match self { $(Operation::$name => Class::$class,)* }
            }
        }

        /// A request of any operation.
        #[derive(Debug)]
        pub enum Request<$lt> {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                $name($request),
            )*
        }

        impl<$lt> Request<$lt> {
            /// Reads the parameters of `operation`.
            ///
            /// # Errors
            /// The deserializer's, naming the field where it can.
            pub fn deserialize<D: Deserializer<$lt>>(operation: Operation, from: D) -> Result<Self, D::Error> {
                match operation {
                    $(Operation::$name => de::Deserialize::deserialize(from).map(Request::$name),)*
                }
            }

            /// Returns the operation.
            pub fn operation(&self) -> Operation {
                match self { $(Request::$name(_) => Operation::$name,)* }
            }

            /// Returns the time that the caller allows, in milliseconds.
            pub fn timeout_ms(&self) -> Option<u64> {
                match self { $(Request::$name(request) => request.timeout_ms,)* }
            }
        }

        impl Serialize for Request<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Request::$name(request) => request.serialize(serializer),)* }
            }
        }

        $(
            impl<$lt> From<$request> for Request<$lt> {
                fn from(request: $request) -> Self {
                    Request::$name(request)
                }
            }
        )*

        /// A reply of any operation.
        #[derive(Debug)]
        pub enum Reply<$lt> {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                $name($reply),
            )*
        }

        impl<$lt> Reply<$lt> {
            /// Reads the reply of `operation`.
            ///
            /// # Errors
            /// The deserializer's.
            pub fn deserialize<D: Deserializer<$lt>>(operation: Operation, from: D) -> Result<Self, D::Error> {
                match operation {
                    $(Operation::$name => de::Deserialize::deserialize(from).map(Reply::$name),)*
                }
            }

            /// Returns the operation.
            pub fn operation(&self) -> Operation {
                match self { $(Reply::$name(_) => Operation::$name,)* }
            }
        }

        impl Serialize for Reply<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Reply::$name(reply) => reply.serialize(serializer),)* }
            }
        }
    };
}

catalogue! { <'a>
    CreateKey: Management(CreateKeyRequest) -> CreateKeyReply;
    AdoptKey: Management(AdoptKeyRequest) -> AdoptKeyReply;
    DescribeKey: Read(DescribeKeyRequest) -> DescribeKeyReply;
    ListKeys: Read(ListKeysRequest) -> ListKeysReply;
    EnableKey: Management(EnableKeyRequest) -> EnableKeyReply;
    DisableKey: Management(DisableKeyRequest) -> DisableKeyReply;
    ScheduleKeyDeletion: Management(ScheduleKeyDeletionRequest) -> ScheduleKeyDeletionReply;
    CancelKeyDeletion: Management(CancelKeyDeletionRequest) -> CancelKeyDeletionReply;
    UpdateKeyDescription: Management(UpdateKeyDescriptionRequest) -> UpdateKeyDescriptionReply;
    RotateKey: Management(RotateKeyRequest) -> RotateKeyReply;
    CreateKeyVersion: Management(CreateKeyVersionRequest) -> CreateKeyVersionReply;
    UpdateRotationPolicy: Management(UpdateRotationPolicyRequest) -> UpdateRotationPolicyReply;
    GetParametersForImport: Management(GetParametersForImportRequest) -> GetParametersForImportReply<'a>;
    ImportKeyMaterial: Management(ImportKeyMaterialRequest<'a>) -> ImportKeyMaterialReply;
    DeleteKeyMaterial: Management(DeleteKeyMaterialRequest) -> DeleteKeyMaterialReply;
    SetDeletionProtection: Management(SetDeletionProtectionRequest) -> SetDeletionProtectionReply;
    GetKeyPolicy: Read(GetKeyPolicyRequest) -> GetKeyPolicyReply;
    SetKeyPolicy: Management(SetKeyPolicyRequest) -> SetKeyPolicyReply;
    DescribeKeyVersion: Read(DescribeKeyVersionRequest) -> DescribeKeyVersionReply;
    ListKeyVersions: Read(ListKeyVersionsRequest) -> ListKeyVersionsReply;
    CreateAlias: Management(CreateAliasRequest) -> CreateAliasReply;
    UpdateAlias: Management(UpdateAliasRequest) -> UpdateAliasReply;
    DeleteAlias: Management(DeleteAliasRequest) -> DeleteAliasReply;
    ListAliases: Read(ListAliasesRequest) -> ListAliasesReply;
    ListAliasesByKeyId: Read(ListAliasesByKeyIdRequest) -> ListAliasesByKeyIdReply;
    TagResource: Management(TagResourceRequest) -> TagResourceReply;
    UntagResource: Management(UntagResourceRequest) -> UntagResourceReply;
    ListResourceTags: Read(ListResourceTagsRequest) -> ListResourceTagsReply;
    TagResources: Management(TagResourcesRequest) -> TagResourcesReply;
    UntagResources: Management(UntagResourcesRequest) -> UntagResourcesReply;
    ListTagResources: Read(ListTagResourcesRequest) -> ListTagResourcesReply;
    Encrypt: Data(EncryptRequest<'a>) -> EncryptReply<'a>;
    Decrypt: Data(DecryptRequest<'a>) -> DecryptReply<'a>;
    ReEncrypt: Data(ReEncryptRequest<'a>) -> ReEncryptReply<'a>;
    AdvanceEncrypt: Data(AdvanceEncryptRequest<'a>) -> AdvanceEncryptReply<'a>;
    AdvanceDecrypt: Data(AdvanceDecryptRequest<'a>) -> AdvanceDecryptReply<'a>;
    GenerateDataKey: Data(GenerateDataKeyRequest) -> GenerateDataKeyReply<'a>;
    GenerateDataKeyWithoutPlaintext: Data(GenerateDataKeyWithoutPlaintextRequest)
        -> GenerateDataKeyWithoutPlaintextReply<'a>;
    GenerateDataKeyPair: Data(GenerateDataKeyPairRequest) -> GenerateDataKeyPairReply<'a>;
    GenerateDataKeyPairWithoutPlaintext: Data(GenerateDataKeyPairWithoutPlaintextRequest)
        -> GenerateDataKeyPairWithoutPlaintextReply<'a>;
    GenerateRandom: Data(GenerateRandomRequest) -> GenerateRandomReply<'a>;
    ExportDataKey: Data(ExportDataKeyRequest<'a>) -> ExportDataKeyReply<'a>;
    GenerateAndExportDataKey: Data(GenerateAndExportDataKeyRequest<'a>) -> GenerateAndExportDataKeyReply<'a>;
    CreateManagedDataKey: Management(CreateManagedDataKeyRequest) -> CreateManagedDataKeyReply;
    CreateManagedDataKeyVersion: Management(CreateManagedDataKeyVersionRequest)
        -> CreateManagedDataKeyVersionReply;
    DeleteManagedDataKey: Management(DeleteManagedDataKeyRequest) -> DeleteManagedDataKeyReply;
    GetManagedDataKey: Data(GetManagedDataKeyRequest) -> GetManagedDataKeyReply<'a>;
    ListManagedDataKeys: Read(ListManagedDataKeysRequest) -> ListManagedDataKeysReply;
    ListManagedDataKeyVersions: Read(ListManagedDataKeyVersionsRequest) -> ListManagedDataKeyVersionsReply;
    CreateSecret: Management(CreateSecretRequest<'a>) -> CreateSecretReply;
    DescribeSecret: Read(DescribeSecretRequest) -> DescribeSecretReply;
    ListSecrets: Read(ListSecretsRequest) -> ListSecretsReply;
    UpdateSecret: Management(UpdateSecretRequest) -> UpdateSecretReply;
    PutSecretValue: Management(PutSecretValueRequest<'a>) -> PutSecretValueReply;
    GetSecretValue: Data(GetSecretValueRequest) -> GetSecretValueReply<'a>;
    BatchGetSecretValue: Data(BatchGetSecretValueRequest) -> BatchGetSecretValueReply<'a>;
    ExportSecrets: Data(ExportSecretsRequest) -> ExportSecretsReply<'a>;
    ListSecretVersionIds: Read(ListSecretVersionIdsRequest) -> ListSecretVersionIdsReply;
    UpdateSecretVersionStage: Management(UpdateSecretVersionStageRequest) -> UpdateSecretVersionStageReply;
    DeleteSecret: Management(DeleteSecretRequest) -> DeleteSecretReply;
    RestoreSecret: Management(RestoreSecretRequest) -> RestoreSecretReply;
    ResealSecret: Management(ResealSecretRequest) -> ResealSecretReply;
    RotateSecret: Management(RotateSecretRequest) -> RotateSecretReply;
    UpdateSecretRotationPolicy: Management(UpdateSecretRotationPolicyRequest) -> UpdateSecretRotationPolicyReply;
    GetSecretPolicy: Read(GetSecretPolicyRequest) -> GetSecretPolicyReply;
    SetSecretPolicy: Management(SetSecretPolicyRequest) -> SetSecretPolicyReply;
    CreateCertificate: Management(CreateCertificateRequest) -> CreateCertificateReply;
    UploadCertificate: Management(UploadCertificateRequest) -> UploadCertificateReply;
    ImportCertificate: Management(ImportCertificateRequest<'a>) -> ImportCertificateReply;
    GetCertificate: Read(GetCertificateRequest) -> GetCertificateReply;
    DescribeCertificate: Read(DescribeCertificateRequest) -> DescribeCertificateReply;
    ListCertificates: Read(ListCertificatesRequest) -> ListCertificatesReply;
    UpdateCertificateStatus: Management(UpdateCertificateStatusRequest) -> UpdateCertificateStatusReply;
    DeleteCertificate: Management(DeleteCertificateRequest) -> DeleteCertificateReply;
    ExportCertificate: Management(ExportCertificateRequest) -> ExportCertificateReply<'a>;
    CertificatePrivateKeySign: Data(CertificatePrivateKeySignRequest<'a>) -> CertificatePrivateKeySignReply<'a>;
    CertificatePublicKeyVerify: Data(CertificatePublicKeyVerifyRequest<'a>) -> CertificatePublicKeyVerifyReply;
    CertificatePublicKeyEncrypt: Data(CertificatePublicKeyEncryptRequest<'a>)
        -> CertificatePublicKeyEncryptReply<'a>;
    CertificatePrivateKeyDecrypt: Data(CertificatePrivateKeyDecryptRequest<'a>)
        -> CertificatePrivateKeyDecryptReply<'a>;
    CreateCertificateAuthority: Management(CreateCertificateAuthorityRequest) -> CreateCertificateAuthorityReply;
    ActivateCertificateAuthority: Management(ActivateCertificateAuthorityRequest) -> ActivateCertificateAuthorityReply;
    DescribeCertificateAuthority: Read(DescribeCertificateAuthorityRequest) -> DescribeCertificateAuthorityReply;
    ListCertificateAuthorities: Read(ListCertificateAuthoritiesRequest) -> ListCertificateAuthoritiesReply;
    UpdateCertificateAuthority: Management(UpdateCertificateAuthorityRequest) -> UpdateCertificateAuthorityReply;
    DeleteCertificateAuthority: Management(DeleteCertificateAuthorityRequest) -> DeleteCertificateAuthorityReply;
    IssueCertificate: Management(IssueCertificateRequest) -> IssueCertificateReply;
    BatchIssueCertificate: Management(BatchIssueCertificateRequest) -> BatchIssueCertificateReply;
    RenewCertificate: Management(RenewCertificateRequest) -> RenewCertificateReply;
    RevokeCertificate: Management(RevokeCertificateRequest) -> RevokeCertificateReply;
    GetRandomPassword: Data(GetRandomPasswordRequest) -> GetRandomPasswordReply<'a>;
    BatchEncrypt: Data(BatchEncryptRequest<'a>) -> BatchEncryptReply<'a>;
    BatchDecrypt: Data(BatchDecryptRequest<'a>) -> BatchDecryptReply<'a>;
    BatchReEncrypt: Data(BatchReEncryptRequest<'a>) -> BatchReEncryptReply<'a>;
    BatchGenerateDataKey: Data(BatchGenerateDataKeyRequest) -> BatchGenerateDataKeyReply<'a>;
    AsymmetricSign: Data(AsymmetricSignRequest<'a>) -> AsymmetricSignReply<'a>;
    AsymmetricVerify: Data(AsymmetricVerifyRequest<'a>) -> AsymmetricVerifyReply;
    AsymmetricEncrypt: Data(AsymmetricEncryptRequest<'a>) -> AsymmetricEncryptReply<'a>;
    AsymmetricDecrypt: Data(AsymmetricDecryptRequest<'a>) -> AsymmetricDecryptReply<'a>;
    GetPublicKey: Read(GetPublicKeyRequest) -> GetPublicKeyReply;
    GenerateMac: Data(GenerateMacRequest<'a>) -> GenerateMacReply<'a>;
    VerifyMac: Data(VerifyMacRequest<'a>) -> VerifyMacReply;
    BatchSign: Data(BatchSignRequest<'a>) -> BatchSignReply<'a>;
    BatchVerify: Data(BatchVerifyRequest<'a>) -> BatchVerifyReply;
    BatchAsymmetricEncrypt: Data(BatchAsymmetricEncryptRequest<'a>) -> BatchAsymmetricEncryptReply<'a>;
    BatchAsymmetricDecrypt: Data(BatchAsymmetricDecryptRequest<'a>) -> BatchAsymmetricDecryptReply<'a>;
    BatchGenerateMac: Data(BatchGenerateMacRequest<'a>) -> BatchGenerateMacReply<'a>;
    BatchVerifyMac: Data(BatchVerifyMacRequest<'a>) -> BatchVerifyMacReply;
    CreateAccessKey: Management(CreateAccessKeyRequest) -> CreateAccessKeyReply;
    ListAccessKeys: Read(ListAccessKeysRequest) -> ListAccessKeysReply;
    UpdateAccessKey: Management(UpdateAccessKeyRequest) -> UpdateAccessKeyReply;
    DeleteAccessKey: Management(DeleteAccessKeyRequest) -> DeleteAccessKeyReply;
    CreateApplicationAccessPoint: Management(CreateApplicationAccessPointRequest) -> CreateApplicationAccessPointReply;
    DescribeApplicationAccessPoint: Read(DescribeApplicationAccessPointRequest) -> DescribeApplicationAccessPointReply;
    ListApplicationAccessPoints: Read(ListApplicationAccessPointsRequest) -> ListApplicationAccessPointsReply;
    UpdateApplicationAccessPoint: Management(UpdateApplicationAccessPointRequest) -> UpdateApplicationAccessPointReply;
    DeleteApplicationAccessPoint: Management(DeleteApplicationAccessPointRequest) -> DeleteApplicationAccessPointReply;
    CreateClientKey: Management(CreateClientKeyRequest) -> CreateClientKeyReply<'a>;
    RegisterClientKey: Management(RegisterClientKeyRequest) -> RegisterClientKeyReply;
    RegisterClientCertificate: Management(RegisterClientCertificateRequest) -> RegisterClientCertificateReply;
    CreateAcmeBinding: Management(CreateAcmeBindingRequest) -> CreateAcmeBindingReply;
    GetClientKey: Read(GetClientKeyRequest) -> GetClientKeyReply;
    ListClientKeys: Read(ListClientKeysRequest) -> ListClientKeysReply;
    DeleteClientKey: Management(DeleteClientKeyRequest) -> DeleteClientKeyReply;
    CreatePolicy: Management(CreatePolicyRequest) -> CreatePolicyReply;
    DescribePolicy: Read(DescribePolicyRequest) -> DescribePolicyReply;
    ListPolicies: Read(ListPoliciesRequest) -> ListPoliciesReply;
    UpdatePolicy: Management(UpdatePolicyRequest) -> UpdatePolicyReply;
    DeletePolicy: Management(DeletePolicyRequest) -> DeletePolicyReply;
    CreateNetworkRule: Management(CreateNetworkRuleRequest) -> CreateNetworkRuleReply;
    DescribeNetworkRule: Read(DescribeNetworkRuleRequest) -> DescribeNetworkRuleReply;
    ListNetworkRules: Read(ListNetworkRulesRequest) -> ListNetworkRulesReply;
    UpdateNetworkRule: Management(UpdateNetworkRuleRequest) -> UpdateNetworkRuleReply;
    DeleteNetworkRule: Management(DeleteNetworkRuleRequest) -> DeleteNetworkRuleReply;
    CreateRole: Management(CreateRoleRequest) -> CreateRoleReply;
    DescribeRole: Read(DescribeRoleRequest) -> DescribeRoleReply;
    ListRoles: Read(ListRolesRequest) -> ListRolesReply;
    UpdateRole: Management(UpdateRoleRequest) -> UpdateRoleReply;
    DeleteRole: Management(DeleteRoleRequest) -> DeleteRoleReply;
    ListApprovals: Read(ListApprovalsRequest) -> ListApprovalsReply;
    ApproveRequest: Management(ApproveRequestRequest) -> ApproveRequestReply;
    RejectRequest: Management(RejectRequestRequest) -> RejectRequestReply;
    CreateKmsInstance: Management(CreateKmsInstanceRequest) -> CreateKmsInstanceReply;
    ConnectKmsInstance: Management(ConnectKmsInstanceRequest) -> ConnectKmsInstanceReply;
    GetKmsInstance: Read(GetKmsInstanceRequest) -> GetKmsInstanceReply;
    ListKmsInstances: Read(ListKmsInstancesRequest) -> ListKmsInstancesReply;
    UpdateKmsInstanceBindVpc: Management(UpdateKmsInstanceBindVpcRequest) -> UpdateKmsInstanceBindVpcReply;
    UpdateKmsInstancePool: Management(UpdateKmsInstancePoolRequest) -> UpdateKmsInstancePoolReply;
    ReleaseKmsInstance: Management(ReleaseKmsInstanceRequest) -> ReleaseKmsInstanceReply;
    GetDefaultKmsInstance: Read(GetDefaultKmsInstanceRequest) -> GetDefaultKmsInstanceReply;
    GetKmsInstanceQuotaInfos: Read(GetKmsInstanceQuotaInfosRequest) -> GetKmsInstanceQuotaInfosReply;
    CreateLoginToken: Data(CreateLoginTokenRequest) -> CreateLoginTokenReply;
    ExplainAccess: Read(ExplainAccessRequest) -> ExplainAccessReply;
    DescribeLimits: Read(DescribeLimitsRequest) -> DescribeLimitsReply;
    DescribeRegions: Read(DescribeRegionsRequest) -> DescribeRegionsReply;
    DescribeService: Read(DescribeServiceRequest) -> DescribeServiceReply;
    DescribeAccountKmsStatus: Read(DescribeAccountKmsStatusRequest) -> DescribeAccountKmsStatusReply;
    OpenKmsService: Read(OpenKmsServiceRequest) -> OpenKmsServiceReply;
    ListTokens: Read(ListTokensRequest) -> ListTokensReply;
    DrainToken: Management(DrainTokenRequest) -> DrainTokenReply;
    EnableToken: Management(EnableTokenRequest) -> EnableTokenReply;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_operation_and_case_matters() {
        for operation in Operation::ALL {
            assert_eq!(Operation::by_name(operation.name()), Some(operation));
            assert_eq!(Operation::by_name(&operation.name().to_lowercase()), None);
        }
    }

    #[test]
    fn an_unknown_or_doubled_field_is_named() {
        for (json, told) in [
            (r#"{"KeyId":"a","Plain":"AA=="}"#, "Plain"),
            (r#"{"KeyId":"a","KeyId":"b","Plaintext":"AA=="}"#, "KeyId"),
            (r#"{"KeyId":"a"}"#, "Plaintext"),
        ] {
            let mut from = serde_json::Deserializer::from_str(json);
            let error = Request::deserialize(Operation::Encrypt, &mut from).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
