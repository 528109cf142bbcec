//! What a provider can do, as a worker tells it when it has opened it.

use keymill_core::blob::Algorithm;
use keymill_core::key::{DecryptAlgorithm, KeySpec, ProtectionLevel, SignAlgorithm, WrappingAlgorithm};
use keymill_core::seam::provider::ProviderProfile;
use serde::{Deserialize, Serialize};

use super::control::{packed, protocol, unpacked};
use super::reader::{Reader, put_bytes, put_u32};
use super::{Garbled, PROTOCOL, TEXT_BYTES};

/// Specifications or algorithms of a profile, at most.
const LISTED: usize = 64;

/// The answer to the first message: what the provider can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyProfile {
    /// Its name.
    pub name: String,
    /// Where its keys live in clear.
    pub protection: ProtectionLevel,
    /// The serial number of its token, where keys can stay in it.
    pub token_serial: Option<String>,
    /// Key specifications that it generates.
    pub specs: Vec<KeySpec>,
    /// Algorithms of `encrypt` and `decrypt`.
    pub algorithms: Vec<Algorithm>,
    /// Algorithms of `sign`.
    pub signatures: Vec<SignAlgorithm>,
    /// Algorithms of `decrypt_asymmetric`.
    pub decryptions: Vec<DecryptAlgorithm>,
    /// How key material may come wrapped into it.
    pub imports: Vec<WrappingAlgorithm>,
    /// Whether it derives.
    pub derives: bool,
    /// Items that one call takes, at most.
    pub max_batch: usize,
    /// Bytes of an item, at most.
    pub max_item_bytes: usize,
    /// Sessions that it gives, at most.
    pub max_sessions: usize,
}

impl ReadyProfile {
    /// Writes the body of a `Ready`.
    pub fn encode(profile: &ProviderProfile, out: &mut Vec<u8>) {
        put_u32(out, PROTOCOL as usize);
        put_bytes(out, profile.name.as_bytes());
        out.push(match profile.protection {
            ProtectionLevel::Software => 0,
            ProtectionLevel::Hsm => 1,
        });
        // None is none of a token.
        put_bytes(out, profile.token_serial.as_deref().unwrap_or_default().as_bytes());
        put_list(out, &profile.specs);
        put_list(out, &profile.signatures);
        put_list(out, &profile.decryptions);
        put_list(out, &profile.imports);
        put_u32(out, profile.algorithms.len());
        out.extend(profile.algorithms.iter().map(|algorithm| *algorithm as u8));
        out.push(u8::from(profile.derives));
        put_u32(out, profile.max_batch.min(u32::MAX as usize));
        // With as much associated data beside it.
        put_u32(out, profile.max_item_bytes.min(TEXT_BYTES / 2));
        put_u32(out, profile.max_sessions.min(u32::MAX as usize));
    }

    /// Reads the body of a `Ready`.
    ///
    /// # Errors
    /// [`Garbled`] where it is none, or comes from another build of the program.
    pub fn decode(body: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(body);
        protocol(&mut reader)?;
        let name = reader.text()?;
        if name.is_empty()
            || name.len() > LISTED
            || name.contains(|c: char| !c.is_ascii_lowercase() && c != '-')
        {
            return Err(Garbled("a name that is none of a provider"));
        }
        let protection = match reader.u8()? {
            0 => ProtectionLevel::Software,
            1 => ProtectionLevel::Hsm,
            _ => return Err(Garbled("a protection level that there is not")),
        };
        let token_serial = reader.text()?;
        if token_serial.len() > LISTED || token_serial.contains(char::is_control) {
            return Err(Garbled("a serial number that is none of a token"));
        }
        let token_serial = (!token_serial.is_empty()).then(|| token_serial.to_owned());
        let (specs, signatures, decryptions) = (list(&mut reader)?, list(&mut reader)?, list(&mut reader)?);
        let imports = list(&mut reader)?;
        let count = listed(&mut reader)?;
        let algorithms = reader.take(count)?.iter().map(|byte| algorithm(*byte)).collect::<Result<_, _>>()?;
        let derives = match reader.u8()? {
            flag @ (0 | 1) => flag == 1,
            _ => return Err(Garbled("a flag that is neither set nor not")),
        };
        let (max_batch, max_item_bytes, max_sessions) = (reader.u32()?, reader.u32()?, reader.u32()?);
        reader.finish()?;
        Ok(Self {
            name: name.to_owned(),
            protection,
            token_serial,
            specs,
            algorithms,
            signatures,
            decryptions,
            imports,
            derives,
            max_batch: max_batch.max(1),
            max_item_bytes,
            max_sessions: max_sessions.max(1),
        })
    }

    /// Tells whether a worker that was started again offers what the first did; sessions may be fewer or more.
    pub(crate) fn offers_the_same(&self, other: &ReadyProfile) -> bool {
        let without_limits =
            |profile: &Self| Self { max_batch: 1, max_sessions: 1, token_serial: None, ..profile.clone() };
        without_limits(self) == without_limits(other)
    }
}

fn listed(reader: &mut Reader<'_>) -> Result<usize, Garbled> {
    match reader.count(1)? {
        count if count <= LISTED => Ok(count),
        _ => Err(Garbled("a list that is too long")),
    }
}

fn put_list(out: &mut Vec<u8>, values: &[impl Serialize]) {
    put_u32(out, values.len());
    values.iter().for_each(|value| put_bytes(out, &packed(value, 0)));
}

fn list<'de, T: Deserialize<'de>>(reader: &mut Reader<'de>) -> Result<Vec<T>, Garbled> {
    (0..listed(reader)?).map(|_| unpacked(reader.bytes()?)).collect()
}

fn algorithm(byte: u8) -> Result<Algorithm, Garbled> {
    use Algorithm::*;
    [Xaes256Gcm, Aes256Gcm, Sm4Gcm, Aes128Gcm, Aes192Gcm]
        .into_iter()
        .find(|algorithm| *algorithm as u8 == byte)
        .ok_or(Garbled("an algorithm that there is not"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_arrives_as_it_was_sent() {
        let profile = ProviderProfile {
            name: "some-token",
            protection: ProtectionLevel::Hsm,
            token_serial: Some("0123 4567".into()),
            specs: KeySpec::ALL.to_vec(),
            algorithms: vec![Algorithm::Aes256Gcm, Algorithm::Xaes256Gcm],
            signatures: KeySpec::EcP384.signatures().to_vec(),
            decryptions: KeySpec::Rsa2048.decryptions().to_vec(),
            imports: vec![WrappingAlgorithm::RsaesOaepSha1, WrappingAlgorithm::RsaAesKeyWrapSha256],
            derives: true,
            inline: true,
            max_batch: 256,
            max_item_bytes: 65_536,
            max_sessions: usize::MAX,
        };
        let mut body = Vec::new();
        ReadyProfile::encode(&profile, &mut body);
        let read = ReadyProfile::decode(&body).unwrap();
        assert_eq!((read.name.as_str(), read.protection), (profile.name, profile.protection));
        assert_eq!(read.token_serial, profile.token_serial);
        assert_eq!((&read.specs, &read.algorithms), (&profile.specs, &profile.algorithms));
        assert_eq!((&read.signatures, &read.decryptions), (&profile.signatures, &profile.decryptions));
        assert_eq!((read.derives, read.max_batch, read.max_item_bytes), (true, 256, 65_536));
        assert_eq!(read.max_sessions, u32::MAX as usize);
        assert!(read.offers_the_same(&ReadyProfile { max_sessions: 1, ..read.clone() }));
        assert!(!read.offers_the_same(&ReadyProfile { derives: false, ..read.clone() }));
        for cut in 0..body.len() {
            assert!(ReadyProfile::decode(&body[..cut]).is_err(), "{cut} bytes");
        }
    }
}
