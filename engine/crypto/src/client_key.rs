//! Client keys as they are handed out: a certificate that the key signs itself, which shows its public half, and both in a PKCS #12 container
//! under the caller's password (RFC 7292), in the shape that the cloud's SDKs load.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use keymill_core::Sensitive;
use keymill_core::id::ClientKeyId;
use keymill_core::time::Timestamp;
use p12_keystore::{
    Certificate as Contained, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyIdMethod, KeyUsagePurpose,
    PublicKeyData, SerialNumber, SignatureAlgorithm, SigningKey,
};
use time::OffsetDateTime;

use crate::{digest, random};

/// Iterations by which a password becomes a key; the container is the caller's, and passwords are its own choice.
const ITERATIONS: u32 = 100_000;

/// A client key as it is handed out.
pub struct Packaged {
    /// The certificate in PEM (RFC 7468 §5).
    pub certificate: String,
    /// Private key and certificate: PBES2 with AES-256-CBC and HMAC-SHA-256, under the password.
    pub pkcs12: Vec<u8>,
}

/// Packages an RSA key: PKCS #8 in DER, for a span of time.
///
/// # Errors
/// [`NotPackaged`] where the key is none, or randomness fails.
pub fn package(
    key: &Sensitive,
    id: &ClientKeyId,
    (not_before, not_after): (Timestamp, Timestamp),
    password: &str,
) -> Result<Packaged, NotPackaged> {
    let not_packaged = |why: String| NotPackaged(why);
    let pair =
        RsaKeyPair::from_pkcs8(key.expose()).map_err(|_| not_packaged("the key is none of RSA".into()))?;
    let signer = Signer { public: pair.public_key().as_ref().to_vec(), pair };
    let mut params = CertificateParams::default();
    params.not_before = moment(not_before)?;
    params.not_after = moment(not_after)?;
    let mut serial = random::array::<16>().map_err(|error| not_packaged(error.to_string()))?;
    // Positive, and never zero (RFC 5280 §4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, id.as_str());
    params.distinguished_name = name;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_identifier_method = KeyIdMethod::PreSpecified(digest::sha256(&signer.public)[..20].to_vec());
    let certificate = params.self_signed(&signer).map_err(|error| not_packaged(error.to_string()))?;

    let failed = |error: p12_keystore::error::Error| not_packaged(error.to_string());
    let contained = Contained::from_der(certificate.der()).map_err(failed)?;
    let private = PrivateKey::from_der(key.expose()).map_err(failed)?;
    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(id.as_str(), private, [contained]);
    store.add_entry(id.as_str(), KeyStoreEntry::PrivateKeyChain(chain));
    let pkcs12 = store
        .writer(password)
        .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
        .encryption_iterations(ITERATIONS)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .mac_iterations(ITERATIONS)
        .write()
        .map_err(failed)?;
    Ok(Packaged { certificate: certificate.pem(), pkcs12 })
}

fn moment(at: Timestamp) -> Result<OffsetDateTime, NotPackaged> {
    let seconds = i64::try_from(at.as_s()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| NotPackaged("a time that has no date".into()))
}

/// Signs certificates; the key is copied nowhere.
struct Signer {
    pair: RsaKeyPair,
    /// RSAPublicKey in DER (RFC 8017 §A.1.1).
    public: Vec<u8>,
}

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

impl SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let signed = self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
        signed.map(|()| signature).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A client key could not be packaged.
#[derive(Debug)]
pub struct NotPackaged(String);

impl std::fmt::Display for NotPackaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a client key could not be packaged: {}", self.0)
    }
}

impl std::error::Error for NotPackaged {}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::KeySize;
    use p12_keystore::Pkcs12ImportPolicy;

    use super::*;

    #[test]
    fn what_is_handed_out_opens_with_its_password_alone_and_holds_the_key() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let key = Sensitive::copied(pair.as_der().unwrap().as_ref());
        let id = ClientKeyId::from_random([7; 16]);
        let span = (Timestamp::from_ms(1_700_000_000_000), Timestamp::from_ms(1_800_000_000_000));
        let Packaged { certificate, pkcs12 } = package(&key, &id, span, "secret-1234").unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        let open = |password| KeyStore::from_pkcs12(&pkcs12, password, Pkcs12ImportPolicy::Strict);
        let store = open("secret-1234").unwrap();
        let (alias, chain) = store.private_key_chain().unwrap();
        assert_eq!((alias, chain.key().as_der()), (id.as_str(), key.expose()));
        assert!(chain.certs()[0].subject().contains(id.as_str()));
        assert!(open("secret-1235").is_err() && open("").is_err());
        // The private half stands nowhere in clear.
        let part = &key.expose()[key.expose().len() - 64..];
        assert!(!pkcs12.windows(part.len()).any(|window| window == part));
        assert!(package(&Sensitive::copied(b"none"), &id, span, "secret-1234").is_err());
    }
}
