//! The life of a worker and of its keys. Stored keys travel as MessagePack, as they are stored; the rest as numbers.

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, WrappingAlgorithm};
use keymill_core::seam::provider::{Adopt, KeyMaterial, StoredKey, Unwrapped, WrappedImport};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::items::KeyRef;
use super::reader::{Reader, put_bytes, put_u32};
use super::{Garbled, Kind, PROTOCOL};

/// Handles that one request gives back, at most.
const RELEASED: usize = 4096;

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
    /// `generate_to_stay`.
    GenerateToStay(KeySpec, KeyUsage, Option<BulkMode>),
    /// `adopt`.
    Adopt(Adopt),
    /// `import`.
    Import(KeySpec, KeyUsage, Option<BulkMode>, Sensitive),
    /// `generate_wrapping_key`.
    GenerateWrappingKey(KeySpec, WrappingAlgorithm),
    /// `import_wrapped`.
    ImportWrapped(Box<WrappedImport>),
    /// `destroy_wrapping_key`.
    DestroyWrappingKey(StoredKey),
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
    /// Writes what asks for a key of `spec`, one that stays or not.
    pub fn encode_generate(spec: KeySpec, usage: KeyUsage, bulk_mode: Option<BulkMode>, out: &mut Vec<u8>) {
        put_bytes(out, &packed(&(spec, usage, bulk_mode), 0));
    }

    /// Writes what takes over a key.
    pub fn encode_adopt(wanted: &Adopt, out: &mut Vec<u8>) {
        put_bytes(out, &packed(wanted, 0));
    }

    /// Writes what brings in a key of `spec`.
    pub fn encode_import(
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
        material: &Sensitive,
        out: &mut Vec<u8>,
    ) {
        Self::encode_generate(spec, usage, bulk_mode, out);
        put_bytes(out, material.expose());
    }

    /// Writes what asks for a wrapping key of `spec`.
    pub fn encode_wrapping_key(spec: KeySpec, algorithm: WrappingAlgorithm, out: &mut Vec<u8>) {
        put_bytes(out, &packed(&(spec, algorithm), 0));
    }

    /// Writes what brings in a key that comes wrapped.
    pub fn encode_import_wrapped(import: &WrappedImport, out: &mut Vec<u8>) {
        put_bytes(out, &packed(import, import.wrapped.len()));
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
            Kind::GenerateToStay => {
                let (spec, usage, bulk_mode) = unpacked(reader.bytes()?)?;
                ControlRequest::GenerateToStay(spec, usage, bulk_mode)
            }
            Kind::Adopt => ControlRequest::Adopt(unpacked(reader.bytes()?)?),
            Kind::Import => {
                let (spec, usage, bulk_mode) = unpacked(reader.bytes()?)?;
                ControlRequest::Import(spec, usage, bulk_mode, Sensitive::copied(reader.bytes()?))
            }
            Kind::GenerateWrappingKey => {
                let (spec, algorithm) = unpacked(reader.bytes()?)?;
                ControlRequest::GenerateWrappingKey(spec, algorithm)
            }
            Kind::ImportWrapped => ControlRequest::ImportWrapped(unpacked(reader.bytes()?)?),
            Kind::DestroyWrappingKey => ControlRequest::DestroyWrappingKey(unpacked(reader.bytes()?)?),
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
            // Names and a check: nothing that must not be moved.
            KeyMaterial::TokenObject(_) => 0,
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

/// A key that was unwrapped, as a message carries it.
pub struct UnwrappedMessage;

impl UnwrappedMessage {
    /// Writes the body of an `Unwrapped`.
    pub fn encode(unwrapped: &Unwrapped, out: &mut Vec<u8>) {
        put_bytes(out, &packed(unwrapped, 0));
    }

    /// Reads the body of an `Unwrapped`.
    ///
    /// # Errors
    /// [`Garbled`] where it is none.
    pub fn decode(body: &[u8]) -> Result<Unwrapped, Garbled> {
        let mut reader = Reader::new(body);
        let unwrapped = unpacked(reader.bytes()?)?;
        reader.finish()?;
        Ok(unwrapped)
    }
}

pub(super) fn protocol(reader: &mut Reader<'_>) -> Result<(), Garbled> {
    if reader.u32()? == PROTOCOL as usize {
        Ok(())
    } else {
        Err(Garbled("another build of the program: it was replaced while it ran"))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
