//! The life of a worker and of its keys. Stored keys travel as MessagePack, as they are stored; the rest as numbers.

use keymill_core::Sensitive;
use keymill_core::blob::Algorithm;
use keymill_core::key::{BulkMode, DecryptAlgorithm, KeySpec, KeyUsage, ProtectionLevel, SignAlgorithm};
use keymill_core::seam::provider::{KeyMaterial, ProviderProfile, StoredKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::items::KeyRef;
use super::reader::{Reader, put_bytes, put_u32};
use super::{Garbled, Kind, PROTOCOL};

/// Handles that one request gives back, at most.
const RELEASED: usize = 4096;
/// Specifications or algorithms of a profile, at most.
const LISTED: usize = 64;

/// The first message: what a worker is told.
pub struct Hello {
    /// What the handles of this start carry.
    pub generation: u64,
    /// Handles that there may be at once.
    pub max_keys: usize,
    /// What opens the provider: module, token, PIN, as the program writes it.
    pub setup: Sensitive,
}

impl Hello {
    /// Writes the body of a `Start`.
    pub fn encode(generation: u64, max_keys: usize, setup: &Sensitive, out: &mut Vec<u8>) {
        put_u32(out, PROTOCOL as usize);
        out.extend(generation.to_be_bytes());
        put_u32(out, max_keys);
        put_bytes(out, setup.expose());
    }

    /// Reads the body of a `Start`.
    ///
    /// # Errors
    /// [`Garbled`] where it is none, or comes from another build of the program.
    pub fn decode(body: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(body);
        protocol(&mut reader)?;
        let (generation, max_keys) = (reader.u64()?, reader.u32()?);
        let setup = Sensitive::copied(reader.bytes()?);
        reader.finish()?;
        Ok(Self { generation, max_keys, setup })
    }
}

/// The answer to the first message: what the provider can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyProfile {
    /// Its name.
    pub name: String,
    /// Where its keys live in clear.
    pub protection: ProtectionLevel,
    /// Key specifications that it generates.
    pub specs: Vec<KeySpec>,
    /// Algorithms of `encrypt` and `decrypt`.
    pub algorithms: Vec<Algorithm>,
    /// Algorithms of `sign`.
    pub signatures: Vec<SignAlgorithm>,
    /// Algorithms of `decrypt_asymmetric`.
    pub decryptions: Vec<DecryptAlgorithm>,
    /// Whether it derives.
    pub derives: bool,
    /// Items that one call takes, at most.
    pub max_batch: usize,
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
        put_list(out, &profile.specs);
        put_list(out, &profile.signatures);
        put_list(out, &profile.decryptions);
        put_u32(out, profile.algorithms.len());
        out.extend(profile.algorithms.iter().map(|algorithm| *algorithm as u8));
        out.push(u8::from(profile.derives));
        put_u32(out, profile.max_batch.min(u32::MAX as usize));
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
        let (specs, signatures, decryptions) = (list(&mut reader)?, list(&mut reader)?, list(&mut reader)?);
        let count = listed(&mut reader)?;
        let algorithms = reader.take(count)?.iter().map(|byte| algorithm(*byte)).collect::<Result<_, _>>()?;
        let derives = match reader.u8()? {
            flag @ (0 | 1) => flag == 1,
            _ => return Err(Garbled("a flag that is neither set nor not")),
        };
        let (max_batch, max_sessions) = (reader.u32()?, reader.u32()?);
        reader.finish()?;
        Ok(Self {
            name: name.to_owned(),
            protection,
            specs,
            algorithms,
            signatures,
            decryptions,
            derives,
            max_batch: max_batch.max(1),
            max_sessions: max_sessions.max(1),
        })
    }

    /// Tells whether a worker that was started again offers what the first did; sessions may be fewer or more.
    pub(crate) fn offers_the_same(&self, other: &ReadyProfile) -> bool {
        let without_limits = |profile: &Self| Self { max_batch: 1, max_sessions: 1, ..profile.clone() };
        without_limits(self) == without_limits(other)
    }
}

/// Handles that their last user has dropped: each control request gives back some.
#[derive(Debug, PartialEq, Eq)]
pub struct Released(pub Vec<u64>);

impl Released {
    /// Writes as many as a request takes; the others stay in `numbers`.
    pub fn encode(numbers: &mut Vec<u64>, out: &mut Vec<u8>) {
        let taken = numbers.split_off(numbers.len().saturating_sub(RELEASED));
        put_u32(out, taken.len());
        taken.iter().for_each(|number| out.extend(number.to_be_bytes()));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Garbled> {
        let count = reader.count(8)?;
        Ok(Self((0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?))
    }
}

/// A request on the control lane.
pub enum ControlRequest {
    /// `generate`.
    Generate(KeySpec, KeyUsage, Option<BulkMode>),
    /// `load`.
    Load(StoredKey),
    /// `unload`; a key of another generation went with its worker.
    Unload(KeyRef),
    /// `destroy`.
    Destroy(StoredKey),
    /// `canary`.
    Canary,
}

impl ControlRequest {
    /// Writes what asks for a key of `spec`.
    pub fn encode_generate(spec: KeySpec, usage: KeyUsage, bulk_mode: Option<BulkMode>, out: &mut Vec<u8>) {
        put_bytes(out, &packed(&(spec, usage, bulk_mode), 0));
    }

    /// Reads the body of a control request, behind the handles that it gives back.
    ///
    /// # Errors
    /// [`Garbled`] where it is none.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<(Released, Self), Garbled> {
        let mut reader = Reader::new(body);
        let released = Released::read(&mut reader)?;
        let request = match kind {
            Kind::Generate => {
                let (spec, usage, bulk_mode) = unpacked(reader.bytes()?)?;
                ControlRequest::Generate(spec, usage, bulk_mode)
            }
            Kind::Load => ControlRequest::Load(unpacked(reader.bytes()?)?),
            Kind::Unload => ControlRequest::Unload(KeyRef::read(&mut reader)?),
            Kind::Destroy => ControlRequest::Destroy(unpacked(reader.bytes()?)?),
            Kind::Canary => ControlRequest::Canary,
            _ => return Err(Garbled("a message that has no place on the control lane")),
        };
        reader.finish()?;
        Ok((released, request))
    }
}

/// A stored key as a message carries it.
pub struct StoredMessage;

impl StoredMessage {
    /// Writes a stored key.
    pub fn encode(key: &StoredKey, out: &mut Vec<u8>) {
        let bytes = match &key.material {
            KeyMaterial::Clear(clear) => clear.len(),
            KeyMaterial::Wrapped(wrapped) => wrapped.len(),
        };
        put_bytes(out, &packed(key, bytes));
    }

    /// Reads the body of a `Stored`.
    ///
    /// # Errors
    /// [`Garbled`] where it is none.
    pub fn decode(body: &[u8]) -> Result<StoredKey, Garbled> {
        let mut reader = Reader::new(body);
        let key = unpacked(reader.bytes()?)?;
        reader.finish()?;
        Ok(key)
    }
}

fn protocol(reader: &mut Reader<'_>) -> Result<(), Garbled> {
    if reader.u32()? == PROTOCOL as usize {
        Ok(())
    } else {
        Err(Garbled("another build of the program: it was replaced while it ran"))
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

/// Packs a value that may hold `bytes` bytes of key material: the room is there at once, so that no copies are left behind.
pub(crate) fn packed(value: &impl Serialize, bytes: usize) -> Zeroizing<Vec<u8>> {
    let mut packed = Zeroizing::new(Vec::with_capacity(bytes + 4096));
    rmp_serde::encode::write(&mut *packed, value).expect("memory takes every value");
    packed
}

pub(crate) fn unpacked<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Garbled> {
    rmp_serde::from_slice(bytes).map_err(|_| Garbled("a value that is none"))
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
            specs: KeySpec::ALL.to_vec(),
            algorithms: vec![Algorithm::Aes256Gcm, Algorithm::Xaes256Gcm],
            signatures: KeySpec::EcP384.signatures().to_vec(),
            decryptions: KeySpec::Rsa2048.decryptions().to_vec(),
            derives: true,
            inline: true,
            max_batch: 256,
            max_sessions: usize::MAX,
        };
        let mut body = Vec::new();
        ReadyProfile::encode(&profile, &mut body);
        let read = ReadyProfile::decode(&body).unwrap();
        assert_eq!((read.name.as_str(), read.protection), (profile.name, profile.protection));
        assert_eq!((&read.specs, &read.algorithms), (&profile.specs, &profile.algorithms));
        assert_eq!((&read.signatures, &read.decryptions), (&profile.signatures, &profile.decryptions));
        assert_eq!((read.derives, read.max_batch, read.max_sessions), (true, 256, u32::MAX as usize));
        assert!(read.offers_the_same(&ReadyProfile { max_sessions: 1, ..read.clone() }));
        assert!(!read.offers_the_same(&ReadyProfile { derives: false, ..read.clone() }));
        for cut in 0..body.len() {
            assert!(ReadyProfile::decode(&body[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn another_build_is_refused() {
        let mut body = Vec::new();
        Hello::encode(1, 10, &Sensitive::copied(b"setup"), &mut body);
        assert!(Hello::decode(&body).is_ok());
        body[3] += 1;
        assert!(Hello::decode(&body).is_err());
    }

    #[test]
    fn handles_are_given_back_some_at_a_time_and_none_is_forgotten() {
        let mut numbers: Vec<u64> = (0..RELEASED as u64 + 3).collect();
        let mut seen = Vec::new();
        while !numbers.is_empty() {
            let mut body = Vec::new();
            Released::encode(&mut numbers, &mut body);
            let (released, request) = ControlRequest::decode(Kind::Canary, &body).unwrap();
            assert!(matches!(request, ControlRequest::Canary) && !released.0.is_empty());
            seen.extend(released.0);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..RELEASED as u64 + 3).collect::<Vec<_>>());
    }
}
