//! Every operation of the cloud's API (KMS 2016-01-20), by its category, and in what this server differs where it has it. The table in
//! `frontends/http/ALIYUN.md` is made of it.

use keymill_core::operation::Operation;

/// An operation of the cloud.
#[derive(Clone, Copy, Debug)]
pub struct CloudOperation {
    /// As `Action` names it.
    pub name: &'static str,
    /// What it is about.
    pub category: &'static str,
    /// In what this server differs; empty where in nothing that a caller sees.
    pub differs: &'static str,
    /// Whether it is known and will not be here: `differs` says why.
    pub is_refused: bool,
}

impl CloudOperation {
    /// Tells whether this server has it.
    pub fn is_supported(&self) -> bool {
        Operation::by_name(self.name).is_some()
    }

    /// Tells a caller why it is not here.
    pub fn refusal(&self) -> String {
        match self.is_refused {
            true => format!("{}: {}", self.name, self.differs),
            false => format!("this server does not have {} yet", self.name),
        }
    }
}

/// Finds an operation of the cloud.
pub fn by_name(name: &str) -> Option<&'static CloudOperation> {
    ALL.iter().find(|operation| operation.name == name)
}

const fn of(category: &'static str, name: &'static str, differs: &'static str) -> CloudOperation {
    CloudOperation { name, category, differs, is_refused: false }
}

const fn refused(category: &'static str, name: &'static str, why: &'static str) -> CloudOperation {
    CloudOperation { name, category, differs: why, is_refused: true }
}

/// All of them.
pub const ALL: &[CloudOperation] = &[
    of(
        "key-service",
        "CreateKey",
        "`Origin` `EXTERNAL` for `ProtectionLevel` `HSM` as well, but key pairs on curves; `DKMSInstanceId` is the instance that is asked, or absent; `Policy` needs the right to `SetKeyPolicy`; beyond the cloud: `BulkMode`, `Fallback`, and the `KeySpec`s `EC_P384`, `Ed25519`, `ML_DSA_65`, `HMAC_SHA_256`, `HMAC_SHA_384`, `HMAC_SHA_512`",
    ),
    of("key-service", "DescribeKey", "tells the last use and the number of uses as well"),
    of("key-service", "ListKeys", "`PageSize` up to 100"),
    of("key-service", "EnableKey", ""),
    of("key-service", "DisableKey", ""),
    of("key-service", "ScheduleKeyDeletion", "answers the date, the last use and the number of uses as well"),
    of("key-service", "CancelKeyDeletion", ""),
    of("key-service", "UpdateKeyDescription", ""),
    of(
        "key-service",
        "SetDeletionProtection",
        "of an instance (`KmsInstanceId`), needs the right to `ReleaseKmsInstance`",
    ),
    of("key-service", "UpdateRotationPolicy", "the interval is ignored where rotation is switched off"),
    of(
        "key-service",
        "CreateKeyVersion",
        "too early: `Rejected.StateModifiedFailed`; tells the uses of the version as well",
    ),
    of("key-service", "DescribeKeyVersion", "tells the uses of the version as well"),
    of("key-service", "ListKeyVersions", "`PageSize` up to 100; tells the uses of each version as well"),
    of(
        "key-service",
        "GetKeyPolicy",
        "of a key that was given none, the document that leaves everything to grants",
    ),
    of(
        "key-service",
        "SetKeyPolicy",
        "principals are `acs:ram::<account>:*` (those whom a grant allows it), `acs:ram::<account>:access-key/<id>`, `acs:ram::<account>:aap/<name>`, and `*` in a `Deny`; a `Condition` reads `acs:SourceIp`, `acs:CurrentTime`, `kms:KeySpec` and `kms:EncryptionContext:<name>`",
    ),
    of("key-service", "Encrypt", ""),
    of(
        "key-service",
        "Decrypt",
        "no `Recipient`; beyond the cloud: `KeyId`, which the ciphertext must be under",
    ),
    of(
        "key-service",
        "ReEncrypt",
        "of symmetric ciphertexts; `KeyId` and `KeyVersionId` are those that encrypt",
    ),
    of(
        "key-service",
        "AdvanceEncrypt",
        "`AES_GCM` and `SM4_GCM`, not `AES_CBC` nor `AES_ECB`, which authenticate nothing; no `Iv` of the caller's; the blob is that of `Encrypt`, and `Aad` is its context of one pair, `Aad`; beyond the cloud's API at `/`: `AdvanceDecrypt`",
    ),
    of(
        "key-service",
        "GenerateMac",
        "`HMAC_SHA_256`, `HMAC_SHA_384` and `HMAC_SHA_512`; a key has one of them",
    ),
    of("key-service", "VerifyMac", "as `GenerateMac`"),
    of(
        "data-key",
        "GenerateDataKey",
        "no `Recipient`; beyond the cloud's API at `/`: `GenerateDataKeyPair`, `GenerateDataKeyPairWithoutPlaintext`, `GenerateRandom`",
    ),
    of("data-key", "GenerateDataKeyWithoutPlaintext", ""),
    of(
        "data-key",
        "ExportDataKey",
        "`WrappingKeySpec` `RSA_3072` and `RSA_4096`, too; needs the right to `Decrypt` as well",
    ),
    of("data-key", "GenerateAndExportDataKey", "as `ExportDataKey`"),
    of(
        "data-key",
        "GetManagedDataKey",
        "needs the right to `Decrypt` as well; beyond the cloud: `CreateManagedDataKey`, `CreateManagedDataKeyVersion`, `DeleteManagedDataKey`, `ListManagedDataKeys`",
    ),
    of("data-key", "ListManagedDataKeyVersions", "tells the date of each as well"),
    of("asymmetric", "AsymmetricEncrypt", ""),
    of("asymmetric", "AsymmetricDecrypt", "no `Recipient`"),
    of("asymmetric", "AsymmetricSign", "beyond the cloud: `Message` in the place of `Digest`"),
    of("asymmetric", "AsymmetricVerify", "beyond the cloud: `Message` in the place of `Digest`"),
    of("asymmetric", "GetPublicKey", ""),
    of(
        "import",
        "GetParametersForImport",
        "`WrappingAlgorithm` `RSAES_OAEP_SHA_256` or `RSAES_OAEP_SHA_1`, not `RSAES_PKCS1_V1_5`, nor `SM2PKE` with `EC_SM2`; beyond the cloud: `RSA_AES_KEY_WRAP_SHA_256`, and `WrappingKeySpec` `RSA_3072`, `RSA_4096`; for a key of `ProtectionLevel` `HSM` what a token takes, and under `RSA_AES_KEY_WRAP_SHA_256` alone for its key pairs; a new call ends the token of the last one",
    ),
    of(
        "import",
        "ImportKeyMaterial",
        "a token is good for five tries and ends with the one that succeeds; beyond the cloud: HMAC keys, and key pairs in PKCS #8",
    ),
    of("import", "DeleteKeyMaterial", ""),
    of("alias", "CreateAlias", ""),
    of("alias", "UpdateAlias", ""),
    of("alias", "DeleteAlias", ""),
    of("alias", "ListAliases", ""),
    of("alias", "ListAliasesByKeyId", ""),
    of("tag", "TagResource", "of keys, secrets and certificates"),
    of("tag", "UntagResource", "of keys, secrets and certificates"),
    of("tag", "ListResourceTags", "of keys; beyond the cloud: of certificates"),
    of("tag", "TagResources", "of keys alone"),
    of("tag", "UntagResources", "of keys alone"),
    of("tag", "ListTagResources", "of keys alone"),
    of(
        "secrets",
        "CreateSecret",
        "`SecretType` `Generic` and `Rds`, whose `DBInstanceId` is the name of a rotator of the configuration, and whose `CustomData` are texts; `DKMSInstanceId` as of `CreateKey`; beyond the cloud: `ExtendedConfig` `{\"Rotator\":\"NAME\"}` of a `Generic` one, whose other members are ignored; needs the right to `GetSecretValue` of the secret that a rotator works by; `Policy` needs the right to `SetSecretPolicy`; needs the right to `Encrypt` under an `EncryptionKeyId` that is given",
    ),
    of("secrets", "DeleteSecret", "a window and `ForceDeleteWithoutRecovery` exclude each other"),
    of("secrets", "DescribeSecret", "tells the CMK of a secret that named none as well"),
    of(
        "secrets",
        "GetSecretValue",
        "no `Recipient`; of a secret that waits for its deletion: `Forbidden.ResourceNotFound`",
    ),
    of(
        "secrets",
        "BatchGetSecretValue",
        "a name that is none refuses the whole; beyond the cloud: `ExportSecrets`, the same by a right of its own",
    ),
    of(
        "secrets",
        "ListSecrets",
        "by names; filters of `SecretName` and `Description` are what they begin with",
    ),
    of("secrets", "ListSecretVersionIds", ""),
    of(
        "secrets",
        "PutSecretValue",
        "where a stage points to each of ten versions: `Rejected.LimitExceeded.SecretVersions`; beyond the cloud: of `Generic` secrets that have a rotator; `ACSPending` is of rotations",
    ),
    of("secrets", "RestoreSecret", ""),
    of(
        "secrets",
        "RotateSecret",
        "answered once the version is current; of one that failed or takes long: `ServiceUnavailableTemporary` or `RequestTimeout`, and the same may be asked again; beyond 50 an hour: `Throttling.User`",
    ),
    of("secrets", "UpdateSecret", "`ExtendedConfig` is ignored where the secret has no rotator"),
    of(
        "secrets",
        "UpdateSecretRotationPolicy",
        "the interval is ignored where rotation is switched off; beyond the cloud: of `Generic` secrets that name a rotator",
    ),
    of("secrets", "UpdateSecretVersionStage", ""),
    of("secrets", "GetRandomPassword", ""),
    of("secrets", "GetSecretPolicy", "as `GetKeyPolicy`"),
    of("secrets", "SetSecretPolicy", "as `SetKeyPolicy`"),
    of(
        "certificates",
        "CreateCertificate",
        "beyond the cloud: `ProtectionLevel`, `Tags`, the `KeySpec`s `RSA_3072`, `RSA_4096`, `EC_P384`, `Ed25519`, and `IP:`, `email:` and `URI:` names; the key of an HSM is never exportable; `ImportCertificate`, `ListCertificates`, `ExportCertificate` are beyond the cloud",
    ),
    of(
        "certificates",
        "UploadCertificate",
        "also in the place of one that is there, for the same key; the root may be left out",
    ),
    of("certificates", "GetCertificate", ""),
    of("certificates", "DescribeCertificate", "tells where it comes from and where its key lives as well"),
    of("certificates", "UpdateCertificateStatus", ""),
    of("certificates", "DeleteCertificate", "in any state"),
    of("certificates", "CertificatePrivateKeySign", "refused before and after the time of the certificate"),
    of("certificates", "CertificatePublicKeyVerify", ""),
    of("certificates", "CertificatePublicKeyEncrypt", "refused before and after the time of the certificate"),
    of("certificates", "CertificatePrivateKeyDecrypt", ""),
    of("aap", "CreateApplicationAccessPoint", ""),
    of("aap", "DescribeApplicationAccessPoint", ""),
    of("aap", "ListApplicationAccessPoints", ""),
    of("aap", "UpdateApplicationAccessPoint", ""),
    of("aap", "DeleteApplicationAccessPoint", "its client keys end with it"),
    of(
        "aap",
        "CreateClientKey",
        "the PKCS #12 is PBES2 with AES-256; up to ten years; beyond the cloud: `RegisterClientKey`, of a public key whose private half never leaves the application, `RegisterClientCertificate` and `CreateLoginToken`",
    ),
    of("aap", "GetClientKey", ""),
    of("aap", "ListClientKeys", "up to 1,000 rows"),
    of("aap", "DeleteClientKey", ""),
    of(
        "aap",
        "CreatePolicy",
        "`KmsInstance` is the instance that is asked, and `shared` outside of one; a policy without network rules is for every address",
    ),
    of("aap", "DescribePolicy", ""),
    of("aap", "ListPolicies", ""),
    of("aap", "UpdatePolicy", ""),
    of("aap", "DeletePolicy", "one that an access point names: `Rejected.ResourceInUse`"),
    of("aap", "CreateNetworkRule", "IPv6, too"),
    of("aap", "DescribeNetworkRule", ""),
    of("aap", "ListNetworkRules", ""),
    of("aap", "UpdateNetworkRule", ""),
    of("aap", "DeleteNetworkRule", "one that a policy names: `Rejected.ResourceInUse`"),
    of(
        "instance",
        "ConnectKmsInstance",
        "`VpcId` is a network of the configuration; `VSwitchIds` and `ZoneIds` are kept and carry no meaning; beyond the cloud: `CreateKmsInstance` (with `Domain`), `UpdateKmsInstancePool`",
    ),
    of("instance", "GetKmsInstance", "nothing of what is sold; tells more of what it may take"),
    of("instance", "ListKmsInstances", "`Filters` by `InstanceId`, `InstanceName`, `Status`, `VpcId`"),
    of(
        "instance",
        "UpdateKmsInstanceBindVpc",
        "all further networks are told; `VSwitchId`, `RegionId` and `VpcOwnerId` may be absent",
    ),
    of(
        "instance",
        "ReleaseKmsInstance",
        "one that holds keys, without force, or is not connected as needed: `Forbidden.DKMSInstanceStateInvalid`",
    ),
    of("instance", "GetDefaultKmsInstance", "the oldest that is connected"),
    of(
        "instance",
        "GetKmsInstanceQuotaInfos",
        "without `KmsInstanceId`: of the default one; `qps` used is since it was last asked for, or of the last second on each of several servers, all together; beyond the cloud: `hsmSession`, `softwareWorker`",
    ),
    of("misc", "DescribeRegions", "there is one, that of ARNs"),
    of("misc", "DescribeService", ""),
    of("misc", "DescribeAccountKmsStatus", "always `Enabled`"),
    of("misc", "OpenKmsService", "always `Forbidden.Opened`"),
    refused(
        "misc",
        "GetChallenge",
        "the attestation of confidential machines that it begins has no public format, so that no answer could be sealed for one (`Recipient`)",
    ),
];

/// Returns the table of all operations, in Markdown.
pub fn table() -> String {
    let mut out = String::from("| operation | category | here | differs |\n|---|---|---|---|\n");
    for operation in ALL {
        let CloudOperation { name, category, differs, is_refused } = operation;
        let here = match (operation.is_supported(), is_refused) {
            (true, _) => "yes",
            (false, true) => "refused",
            (false, false) => "not yet",
        };
        out.push_str(&format!("| `{name}` | {category} | {here} | {differs} |\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../http/ALIYUN.md");
        let text = std::fs::read_to_string(path).unwrap();
        let begin = text.find("| operation |").unwrap();
        let expected = format!("{}{}", &text[..begin], table());
        if std::env::var_os("KEYMILL_WRITE_DOCS").is_some() {
            std::fs::write(path, &expected).unwrap();
        }
        assert_eq!(text, expected, "KEYMILL_WRITE_DOCS=1 cargo test -p keymill-wire writes it anew");
    }

    #[test]
    fn each_stands_once_and_only_what_is_here_differs() {
        assert_eq!(ALL.len(), 103);
        for (at, operation) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|other| other.name != operation.name), "{operation:?}");
            assert!(
                operation.is_supported() != operation.is_refused || operation.differs.is_empty(),
                "{operation:?}"
            );
        }
    }
}
