//! `keymill key`: key material of one's own. It is wrapped here, and leaves this process in no other form.

use std::path::{Path, PathBuf};

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey,
};
use clap::{Args, Subcommand, ValueEnum};
use keymill_core::id::KeyRef;
use keymill_core::key::{KeySpec, WrappingAlgorithm};
use keymill_core::operation::{
    Bin, DeleteKeyMaterialRequest, GetParametersForImportRequest, ImportKeyMaterialRequest,
};
use keymill_core::{Sensitive, Timestamp};
use keymill_crypto::random;

use super::key::Named;
use super::{Api, ask};
use crate::failure::{Failure, Result};

/// Bytes of a file of key material, at most; no key is as long.
const MAX_BYTES: u64 = 4_096;

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum ImportCommand {
    /// Import the material of a key that was made by `key create --external`: of a symmetric key its bytes, of a key pair PKCS #8 in DER
    Import(ImportArgs),
    /// Delete the imported material of a key: from the answer on, nobody can use it until the same material is imported again
    DeleteMaterial(Named),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    named: Named,
    /// The file that holds it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// When it expires, as 2030-01-31T00:00:00Z [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<Timestamp>,
    /// How it is wrapped on its way: a token may take it in one way alone
    #[arg(long, value_name = "ALGORITHM", value_enum, default_value_t)]
    wrapping: Wrapping,
}

/// How material can be wrapped here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Wrapping {
    /// Under an AES key that goes by RSA-OAEP with SHA-256: material of any length
    #[default]
    #[value(name = "RSA_AES_KEY_WRAP_SHA_256")]
    Hybrid,
    /// By RSA-OAEP with SHA-256
    #[value(name = "RSAES_OAEP_SHA_256")]
    OaepSha256,
    /// By RSA-OAEP with SHA-1
    #[value(name = "RSAES_OAEP_SHA_1")]
    OaepSha1,
}

impl Wrapping {
    fn algorithm(self) -> WrappingAlgorithm {
        match self {
            Wrapping::Hybrid => WrappingAlgorithm::RsaAesKeyWrapSha256,
            Wrapping::OaepSha256 => WrappingAlgorithm::RsaesOaepSha256,
            Wrapping::OaepSha1 => WrappingAlgorithm::RsaesOaepSha1,
        }
    }

    /// Wraps material by a public key; `None` where it is too long for that, or the key is none.
    fn wrap(self, public: &[u8], material: &Sensitive) -> Option<Vec<u8>> {
        let public = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(public).ok()?).ok()?;
        let encrypt = |oaep, text: &Sensitive| {
            let mut out = vec![0; public.ciphertext_size()];
            public.encrypt(oaep, text.expose(), &mut out, None).ok()?;
            Some(out)
        };
        match self {
            Wrapping::OaepSha1 => encrypt(&OAEP_SHA1_MGF1SHA1, material),
            Wrapping::OaepSha256 => encrypt(&OAEP_SHA256_MGF1SHA256, material),
            Wrapping::Hybrid => {
                let mut key = Sensitive::zeroed(32);
                random::draw(key.expose_mut()).ok()?;
                let mut out = encrypt(&OAEP_SHA256_MGF1SHA256, &key)?;
                let mut wrapped = vec![0; material.len().next_multiple_of(8) + 8];
                let kek = AesKek::new(&AES_256, key.expose()).ok()?;
                out.extend_from_slice(kek.wrap_with_padding(material.expose(), &mut wrapped).ok()?);
                Some(out)
            }
        }
    }
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "a time is as 2030-01-31T00:00:00Z".to_owned())
}

/// Does what the command says.
pub(crate) fn run(api: &Api, command: ImportCommand) -> Result<()> {
    let timeout_ms = None;
    match command {
        ImportCommand::Import(ImportArgs { named, file, expires, wrapping }) => {
            let material = read(&file)?;
            let id = api.key_id(named.key)?;
            let request = GetParametersForImportRequest {
                key_id: KeyRef::Id(id),
                wrapping_algorithm: wrapping.algorithm(),
                wrapping_key_spec: KeySpec::Rsa4096,
                timeout_ms,
            };
            let answered = api.call(request)?;
            let keymill_core::operation::Reply::GetParametersForImport(parameters) = answered.reply()? else {
                return Err(Failure::new("the server answered with another reply"));
            };
            let wrapped = wrapping
                .wrap(&parameters.public_key, &material)
                .ok_or_else(|| Failure::new("the key material cannot be wrapped by what the server sent"))?;
            let request = ImportKeyMaterialRequest {
                key_id: KeyRef::Id(id),
                encrypted_key_material: Bin::from(wrapped),
                import_token: parameters.import_token,
                key_material_expire_unix: expires.map(Timestamp::as_s),
                timeout_ms,
            };
            let reply = ask!(api, ImportKeyMaterial, request);
            api.done(&reply, format_args!("key {id} has its material"))
        }
        ImportCommand::DeleteMaterial(named) => {
            let id = api.key_id(named.key)?;
            let request = DeleteKeyMaterialRequest { key_id: KeyRef::Id(id), timeout_ms };
            let reply = ask!(api, DeleteKeyMaterial, request);
            api.done(&reply, format_args!("key {id} has no material, and takes no other than it had"))
        }
    }
}

fn read(file: &Path) -> Result<Sensitive> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()));
    let length = std::fs::metadata(file).map_err(failed)?.len();
    if !(1..=MAX_BYTES).contains(&length) {
        return Err(Failure::wrong_use(format!("{} has {length} bytes, which is no key", file.display())));
    }
    std::fs::read(file).map(Sensitive::new).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair, RsaKeyPair};

    #[test]
    fn a_file_that_is_no_key_is_refused_before_anything_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("material");
        assert!(read(&file).is_err());
        for (length, is_good) in [(0, false), (1, true), (4_096, true), (4_097, false)] {
            std::fs::write(&file, vec![7; length]).unwrap();
            assert_eq!(read(&file).is_ok(), is_good, "{length} bytes");
        }
    }

    #[test]
    fn material_is_wrapped_as_it_is_asked_for_and_not_where_it_is_too_long() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let wrap = |wrapping: Wrapping, length| {
            wrapping.wrap(public.as_ref(), &Sensitive::zeroed(length)).map(|wrapped| wrapped.len())
        };
        for (wrapping, name, most) in [
            (Wrapping::OaepSha1, "RSAES_OAEP_SHA_1", 256 - 42),
            (Wrapping::OaepSha256, "RSAES_OAEP_SHA_256", 256 - 66),
        ] {
            assert_eq!(wrapping.algorithm().name(), name);
            assert_eq!((wrap(wrapping, most), wrap(wrapping, most + 1)), (Some(256), None), "{name}");
        }
        assert_eq!(Wrapping::default().algorithm(), WrappingAlgorithm::RsaAesKeyWrapSha256);
        assert_eq!(wrap(Wrapping::default(), 1_217), Some(256 + 1_224 + 8));
        assert!(Wrapping::default().wrap(b"no key", &Sensitive::zeroed(32)).is_none());
    }

    #[test]
    fn a_time_is_one_in_utc() {
        assert_eq!(parse_time("2030-01-31T00:00:00Z").unwrap().as_s(), 1_896_048_000);
        assert!(parse_time("2030-01-31").is_err());
    }
}
