//! The engine's own keys: CMAC(root MAC key, 1 ‖ p ‖ g ‖ i) ‖ CMAC(…, 2 ‖ p ‖ g ‖ i), derived at start and never stored. The
//! messages are made here; where the root MAC key lives, in a token or in a file, the CMACs are computed.

use keymill_core::Sensitive;
use keymill_core::id::InstanceId;

use crate::digest;
use crate::xaes;

/// What a derived key is for; the number stands in the messages that it is derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Sealing of records.
    Storage = 1,
    /// MACs of records that hold nothing to seal.
    RecordMac = 2,
    /// Fingerprints of imported material.
    Fingerprint = 3,
    /// MACs of audit records.
    Audit = 4,
    /// The seed of the key that signs audit checkpoints.
    AuditSigning = 5,
    /// MACs of login tokens, and their secrets.
    LoginToken = 6,
}

/// Returns the two blocks whose CMACs are the key: (1 ‖ p ‖ g ‖ i) and (2 ‖ p ‖ g ‖ i), with p the purpose (`u8`), g the
/// generation (`u16`, big-endian) and i the first 12 bytes of SHA-256(instance id).
pub fn messages(purpose: Purpose, generation: u16, instance: &InstanceId) -> [[u8; 16]; 2] {
    let instance = digest::sha256(instance.as_str().as_bytes());
    [1, 2].map(|counter| {
        let mut message = [0; 16];
        message[0] = counter;
        message[1] = purpose as u8;
        message[2..4].copy_from_slice(&generation.to_be_bytes());
        message[4..].copy_from_slice(&instance[..12]);
        message
    })
}

/// The keys of one generation and instance, 32 bytes each.
pub struct DerivedKeys {
    /// Seals records.
    pub storage: Sensitive,
    /// MACs records that hold nothing to seal.
    pub record_mac: Sensitive,
    /// Makes fingerprints of imported material.
    pub fingerprint: Sensitive,
    /// MACs audit records.
    pub audit: Sensitive,
    /// Is the seed of the key that signs audit checkpoints.
    pub audit_signing: Sensitive,
    /// MACs login tokens, and makes their secrets.
    pub login_token: Sensitive,
}

impl DerivedKeys {
    /// Derives every key; `cmac` computes the pair under the root MAC key.
    ///
    /// # Errors
    /// What `cmac` fails with.
    pub fn derive<E>(
        generation: u16,
        instance: &InstanceId,
        cmac: &mut dyn FnMut([[u8; 16]; 2]) -> Result<Sensitive, E>,
    ) -> Result<Self, E> {
        let mut key = |purpose| cmac(messages(purpose, generation, instance));
        Ok(Self {
            storage: key(Purpose::Storage)?,
            record_mac: key(Purpose::RecordMac)?,
            fingerprint: key(Purpose::Fingerprint)?,
            audit: key(Purpose::Audit)?,
            audit_signing: key(Purpose::AuditSigning)?,
            login_token: key(Purpose::LoginToken)?,
        })
    }
}

/// Computes CMAC-AES-256(key, messages\[0\]) ‖ CMAC-AES-256(key, messages\[1\]) here, for roots that are not in a token.
///
/// # Panics
/// Where the key has other than 32 bytes; [`crate::root::RootKeys`] has none such.
pub fn cmac_pair(key: &Sensitive, messages: [[u8; 16]; 2]) -> Sensitive {
    xaes::pair(&xaes::cmac_key(key).expect("a root MAC key has 32 bytes"), messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn instance(name: &str) -> InstanceId {
        name.parse().unwrap()
    }

    #[test]
    fn the_messages_are_laid_out_as_specified() {
        let hash = digest::sha256(b"default");
        let [first, second] = messages(Purpose::Audit, 0x0102, &instance("default"));
        assert_eq!(first[..4], [1, 4, 1, 2]);
        assert_eq!(second[..4], [2, 4, 1, 2]);
        assert_eq!((&first[4..], &second[4..]), (&hash[..12], &hash[..12]));
    }

    #[test]
    fn purpose_generation_and_instance_each_change_both_messages() {
        let all: Vec<_> = [Purpose::Storage, Purpose::RecordMac, Purpose::Fingerprint, Purpose::Audit]
            .into_iter()
            .chain([Purpose::AuditSigning, Purpose::LoginToken])
            .flat_map(|purpose| [0, 1, 256].map(|generation| (purpose, generation)))
            .flat_map(|(purpose, generation)| {
                ["default", "other"].map(|name| messages(purpose, generation, &instance(name)))
            })
            .flatten()
            .collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), distinct.len()), (72, 72));
    }

    /// SP 800-38B, AES-256, the example with a message of one block.
    #[test]
    fn the_cmac_is_that_of_the_standard() {
        let key = [
            0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81,
            0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4,
        ];
        let message = 0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a_u128.to_be_bytes();
        let out = cmac_pair(&Sensitive::copied(&key), [message, [0; 16]]);
        assert_eq!(digest::hex(&out.expose()[..16]), "28a7023f452e8f82bd4bf28d8c37c35c");
        assert_ne!(out.expose()[..16], out.expose()[16..]);
    }

    #[test]
    fn each_key_comes_from_its_own_messages_and_a_failure_stops() {
        let root = Sensitive::copied(&[9; 32]);
        let instance = instance("default");
        let derive = |messages| Ok::<_, Infallible>(cmac_pair(&root, messages));
        let keys = DerivedKeys::derive(1, &instance, &mut { derive }).unwrap();
        for (key, purpose) in [
            (&keys.storage, Purpose::Storage),
            (&keys.record_mac, Purpose::RecordMac),
            (&keys.fingerprint, Purpose::Fingerprint),
            (&keys.audit, Purpose::Audit),
            (&keys.audit_signing, Purpose::AuditSigning),
            (&keys.login_token, Purpose::LoginToken),
        ] {
            assert_eq!(key.expose(), cmac_pair(&root, messages(purpose, 1, &instance)).expose());
        }
        assert_eq!(DerivedKeys::derive(1, &instance, &mut |_| Err("down")).err(), Some("down"));
    }
}
