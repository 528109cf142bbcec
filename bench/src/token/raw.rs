//! The module's own calls in a plain loop, on one session after the other thread: what there is to be had of it.

use keymill_core::limit;
use keymill_provider_pkcs11::module::number::*;
use keymill_provider_pkcs11::module::{Attribute, Failure, Mechanism, Module, Object, Session};
use keymill_provider_pkcs11::{DOMAIN_KEY_LABEL, GcmMethod, ModuleProfile, WrapMechanism};

/// Bytes of a text.
pub const TEXT_BYTES: usize = 1024;
/// What is authenticated beside a text: as many bytes as of a record without a context.
pub const AAD: [u8; 26] = [1; 26];
const TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = 64;
/// Bytes of the largest signature.
const SIGNATURE_BYTES: usize = 512;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// AES-256-GCM of a text, by `C_Encrypt`.
    Seal,
    /// The same by `C_EncryptMessage`.
    SealMessage,
    /// AES-256-GCM of what was sealed, by `C_Decrypt`.
    Open,
    /// AES-CMAC of a block.
    Cmac,
    /// A signature by RSA-2048, PKCS #1, of an encoded SHA-256.
    SignRsa,
    /// A signature by ECDSA on P-256, of a digest.
    SignEc,
    /// Wraps a key of AES-256 under the domain's.
    Wrap,
    /// Unwraps it, and destroys what came of it.
    Unwrap,
    /// Generates a key of AES-256, and destroys it.
    Generate,
    /// Draws 32 bytes.
    Random,
}

impl Operation {
    /// Every one, in the order of a table.
    pub const ALL: [Self; 10] = [
        Self::Seal,
        Self::SealMessage,
        Self::Open,
        Self::Cmac,
        Self::SignRsa,
        Self::SignEc,
        Self::Wrap,
        Self::Unwrap,
        Self::Generate,
        Self::Random,
    ];

    /// Returns the name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seal => "AES-256-GCM seal 1 KiB",
            Self::SealMessage => "the same by C_EncryptMessage",
            Self::Open => "AES-256-GCM open 1 KiB",
            Self::Cmac => "AES-CMAC of a block",
            Self::SignRsa => "RSA-2048 sign (PKCS #1)",
            Self::SignEc => "ECDSA P-256 sign",
            Self::Wrap => "wrap AES-256",
            Self::Unwrap => "unwrap AES-256, destroy",
            Self::Generate => "generate AES-256, destroy",
            Self::Random => "32 random bytes",
        }
    }

    /// Returns the name in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Self::Seal => "seal-1k",
            Self::SealMessage => "seal-message-1k",
            Self::Open => "open-1k",
            Self::Cmac => "cmac",
            Self::SignRsa => "sign-rsa-2048",
            Self::SignEc => "sign-ec-p256",
            Self::Wrap => "wrap-aes-256",
            Self::Unwrap => "unwrap-destroy-aes-256",
            Self::Generate => "generate-destroy-aes-256",
            Self::Random => "random-32",
        }
    }
}

/// The keys of the loops.
pub struct Keys {
    aead: Object,
    mac: Object,
    rsa: Result<Object, Failure>,
    ec: Result<Object, Failure>,
    leaving: Object,
    domain: Object,
    wrapped: Vec<u8>,
    wrap: WrapMechanism,
    value_len: bool,
}

fn aes(session: &Session, extractable: bool, uses: &[CK_ATTRIBUTE_TYPE]) -> Result<Object, Failure> {
    let mut template = vec![
        Attribute::number(CKA_VALUE_LEN, 32),
        Attribute::flag(CKA_TOKEN, false),
        Attribute::flag(CKA_PRIVATE, true),
        Attribute::flag(CKA_SENSITIVE, true),
        Attribute::flag(CKA_EXTRACTABLE, extractable),
    ];
    template.extend(uses.iter().map(|kind| Attribute::flag(*kind, true)));
    session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template)
}

fn pair(
    session: &Session,
    mechanism: CK_MECHANISM_TYPE,
    public: &[Attribute<'_>],
) -> Result<Object, Failure> {
    let mut template = vec![Attribute::flag(CKA_TOKEN, false), Attribute::flag(CKA_VERIFY, true)];
    template.extend(public);
    let private = [
        Attribute::flag(CKA_TOKEN, false),
        Attribute::flag(CKA_PRIVATE, true),
        Attribute::flag(CKA_SENSITIVE, true),
        Attribute::flag(CKA_EXTRACTABLE, false),
        Attribute::flag(CKA_SIGN, true),
    ];
    session.generate_key_pair(Mechanism::Plain(mechanism), &template, &private).map(|(_, private)| private)
}

impl Keys {
    /// Makes them as objects of a session, which they go with; a key pair that the module does not make costs its row alone. The user has to
    /// be logged in, and the token to have a domain key.
    ///
    /// # Errors
    /// [`Failure`] where the module makes no AES key, or has no domain key to wrap it with.
    pub fn make(
        module: &Module,
        slot: CK_SLOT_ID,
        profile: &ModuleProfile,
    ) -> Result<(Self, Session), Failure> {
        /// prime256v1 (RFC 5480 §2.1.1.1).
        const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let owner = module.open_session(slot, false)?;
        let missing = Failure::Missing { call: DOMAIN_KEY_LABEL };
        let found = owner.find_objects(&[
            Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
            Attribute::flag(CKA_TOKEN, true),
            Attribute::bytes(CKA_LABEL, DOMAIN_KEY_LABEL.as_bytes()),
        ])?;
        let domain = *found.first().ok_or(missing)?;
        let leaving = aes(&owner, true, &[CKA_ENCRYPT, CKA_DECRYPT])?;
        let mut wrapped = vec![0; WRAPPED_BYTES];
        let len = owner.wrap_key(profile.wrap.mechanism(), domain, leaving, &mut wrapped)?;
        wrapped.truncate(len);
        let modulus_bits = Attribute::number(CKA_MODULUS_BITS, 2048);
        let exponent = Attribute::bytes(CKA_PUBLIC_EXPONENT, &[1, 0, 1]);
        let keys = Self {
            aead: aes(&owner, false, &[CKA_ENCRYPT, CKA_DECRYPT])?,
            mac: aes(&owner, false, &[CKA_SIGN])?,
            rsa: pair(&owner, CKM_RSA_PKCS_KEY_PAIR_GEN, &[modulus_bits, exponent]),
            ec: pair(&owner, CKM_EC_KEY_PAIR_GEN, &[Attribute::bytes(CKA_EC_PARAMS, P256)]),
            leaving,
            domain,
            wrapped,
            wrap: profile.wrap,
            value_len: profile.unwrap_value_len,
        };
        Ok((keys, owner))
    }

    /// Tells why an operation is not to be had, before anything is timed.
    pub fn lacks(&self, operation: Operation, profile: &ModuleProfile) -> Option<String> {
        let refused = |key: &Result<Object, Failure>| key.as_ref().err().map(ToString::to_string);
        match operation {
            Operation::SealMessage => {
                (profile.gcm != GcmMethod::Message).then(|| "the module has no message interface".to_owned())
            }
            Operation::Cmac => (!profile.derives).then(|| "the token has no AES-CMAC".to_owned()),
            Operation::SignRsa => refused(&self.rsa),
            Operation::SignEc => refused(&self.ec),
            _ => None,
        }
    }
}

/// A session in a thread of its own.
pub struct Worker {
    session: Session,
    /// Given out, each once.
    nonces: u64,
    text: Vec<u8>,
    out: Vec<u8>,
    sealed: Vec<u8>,
}

impl Worker {
    /// Opens a session, and gets it ready for what is to be timed. `number` is another one of each worker at work.
    ///
    /// # Errors
    /// [`Failure`] where the module refuses.
    pub fn open(
        module: &Module,
        slot: CK_SLOT_ID,
        keys: &Keys,
        operation: Operation,
        number: usize,
    ) -> Result<Self, Failure> {
        let mut worker = Self {
            session: module.open_session(slot, false)?,
            // No other worker comes there.
            nonces: (number as u64) << 48,
            text: vec![7; TEXT_BYTES],
            out: vec![0; (TEXT_BYTES + TAG_BYTES).max(SIGNATURE_BYTES)],
            sealed: vec![0; TEXT_BYTES + TAG_BYTES],
        };
        match operation {
            Operation::Open => {
                let nonce = worker.nonce();
                worker.nonces -= 1;
                worker.session.encrypt_init(Mechanism::Gcm { nonce: &nonce, aad: &AAD }, keys.aead)?;
                worker.session.encrypt(&worker.text, &mut worker.sealed)?;
            }
            Operation::SealMessage => worker.session.message_encrypt_init(keys.aead)?,
            _ => {}
        }
        Ok(worker)
    }

    fn nonce(&mut self) -> [u8; 12] {
        self.nonces += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.nonces.to_be_bytes());
        nonce
    }

    /// Does the operation once, and returns 1.
    ///
    /// # Errors
    /// [`Failure`] where the module refuses.
    pub fn call(&mut self, keys: &Keys, operation: Operation) -> Result<u64, Failure> {
        match operation {
            Operation::Seal => {
                let nonce = self.nonce();
                self.session.encrypt_init(Mechanism::Gcm { nonce: &nonce, aad: &AAD }, keys.aead)?;
                self.session.encrypt(&self.text, &mut self.out[..TEXT_BYTES + TAG_BYTES])?;
            }
            Operation::SealMessage => {
                let nonce = self.nonce();
                let (out, tag) = self.out.split_at_mut(TEXT_BYTES);
                let tag = tag.first_chunk_mut().expect("a tag's room follows");
                self.session.encrypt_message(&nonce, &AAD, &self.text, out, tag)?;
            }
            Operation::Open => {
                let nonce = self.nonce();
                self.nonces -= 1;
                self.session.decrypt_init(Mechanism::Gcm { nonce: &nonce, aad: &AAD }, keys.aead)?;
                self.session.decrypt(&self.sealed, &mut self.out[..TEXT_BYTES + TAG_BYTES])?;
            }
            Operation::Cmac => {
                self.session.sign_init(Mechanism::Plain(CKM_AES_CMAC), keys.mac)?;
                self.session.sign(&self.text[..16], &mut self.out[..16])?;
            }
            Operation::SignRsa => {
                // What is signed is as long as an encoded SHA-256 (RFC 8017 §9.2).
                self.session.sign_init(Mechanism::Plain(CKM_RSA_PKCS), keys.rsa?)?;
                self.session.sign(&self.text[..51], &mut self.out)?;
            }
            Operation::SignEc => {
                self.session.sign_init(Mechanism::Plain(CKM_ECDSA), keys.ec?)?;
                self.session.sign(&self.text[..32], &mut self.out)?;
            }
            Operation::Wrap => {
                let out = &mut self.out[..WRAPPED_BYTES];
                self.session.wrap_key(keys.wrap.mechanism(), keys.domain, keys.leaving, out)?;
            }
            Operation::Unwrap => {
                let mut template = vec![
                    Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
                    Attribute::number(CKA_KEY_TYPE, CKK_AES),
                    Attribute::flag(CKA_TOKEN, false),
                    Attribute::flag(CKA_PRIVATE, true),
                    Attribute::flag(CKA_SENSITIVE, true),
                    Attribute::flag(CKA_EXTRACTABLE, false),
                    Attribute::flag(CKA_WRAP, false),
                    Attribute::flag(CKA_UNWRAP, false),
                    Attribute::flag(CKA_DERIVE, false),
                    Attribute::flag(CKA_ENCRYPT, true),
                    Attribute::flag(CKA_DECRYPT, true),
                ];
                if keys.value_len {
                    template.push(Attribute::number(CKA_VALUE_LEN, 32));
                }
                let mechanism = keys.wrap.mechanism();
                let key = self.session.unwrap_key(mechanism, keys.domain, &keys.wrapped, &template)?;
                self.session.destroy_object(key)?;
            }
            Operation::Generate => {
                let key = aes(&self.session, true, &[CKA_ENCRYPT, CKA_DECRYPT])?;
                self.session.destroy_object(key)?;
            }
            Operation::Random => self.session.random(&mut self.out[..32])?,
        }
        Ok(1)
    }
}

const _: () = assert!(TEXT_BYTES <= limit::BATCH_ITEM_BYTES);
