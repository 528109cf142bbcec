//! The suite for `CryptoProvider`: what it runs on, the macro that makes a test of each behaviour, and the words that the
//! behaviours are written in.

use keymill_core::key::{BulkMode, DecryptAlgorithm, KeySpec, KeyUsage, ProtectionLevel, SignAlgorithm};
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoProvider, CryptoSession, DecryptJob, DeriveJob, JobError, KeyCustody,
    KeyHandle, SignJob, StoredKey,
};

mod halves;
mod imports;
mod items;
mod keys;
mod pairs;
mod signatures;

pub use halves::*;
pub use imports::*;
pub use items::*;
pub use keys::*;
pub use pairs::*;
pub use signatures::*;

/// Makes a `#[test]` of each behaviour of the suite. It takes what makes a [`Fixture`].
#[macro_export]
macro_rules! provider_suite {
    ($make:expr) => {
        $crate::provider_suite! { @tests $make;
            a_profile_is_filled_in
            every_listed_specification_is_generated_and_loaded
            what_the_profile_does_not_list_is_rejected
            a_stored_key_is_the_same_key_each_time_it_is_loaded
            an_unloaded_handle_leaves_the_others
            generated_keys_differ
            an_imported_key_is_the_one_that_was_made_elsewhere
            what_is_no_key_of_its_specification_is_not_imported
            wrapped_material_is_the_key_that_was_made_elsewhere
            wrapping_that_the_profile_does_not_list_is_rejected
            damaged_material_is_corrupt
            lanes_of_control_share_what_is_loaded
            the_canary_lives
            random_bytes_differ_and_fill_every_length
            derivation_is_the_cmac_of_the_standard
            derivation_does_each_job_that_is_not_done
            sealing_is_the_aes_gcm_of_the_standard
            sealing_by_shorter_keys_is_that_of_the_standard
            sealing_by_sm4_is_that_of_the_standard
            a_batch_seals_and_opens_again
            an_altered_tag_text_nonce_or_aad_does_not_open
            a_bad_item_leaves_its_neighbours_fine
            an_item_that_has_its_outcome_is_left_alone
            batches_of_nothing_and_of_the_largest_size_are_done
            a_handle_serves_every_session
            a_handle_of_another_provider_is_stale
            a_mac_is_the_hmac_of_the_standard
            every_signature_verifies_elsewhere_and_for_its_digest_alone
            a_job_that_does_not_fit_is_rejected_and_leaves_its_neighbours_fine
            a_signature_that_has_its_outcome_is_left_alone
            one_key_signs_on_every_session
            signing_with_a_handle_of_another_provider_is_stale
            a_key_pair_has_a_public_half_of_its_own
            a_stored_pair_signs_alike_each_time_it_is_loaded
            a_pair_whose_halves_do_not_match_is_corrupt
            damaged_private_material_is_corrupt
            an_imported_pair_is_the_one_that_was_made_elsewhere
            what_is_no_pair_of_its_specification_is_not_imported
            what_was_encrypted_elsewhere_decrypts
            what_does_not_decrypt_is_opaque
            a_key_does_what_it_was_made_for_and_nothing_else
            a_public_half_verifies_what_the_private_one_signs
            a_signature_is_of_one_algorithm_alone
            a_signature_of_sm2_by_another_identity_is_none
            a_public_half_encrypts_for_the_private_one
            what_is_no_public_half_is_corrupt
        }
    };
    (@tests $make:expr; $($case:ident)+) => {
        $(
            #[test]
            fn $case() {
                let fixture: $crate::provider::Fixture = ($make)();
                $crate::provider::$case(&fixture);
            }
        )+
    };
}

/// What brings known material of a symmetric key into a provider.
type Bring = Box<dyn Fn(KeySpec, &[u8], Option<BulkMode>) -> StoredKey>;

/// A provider, another of the same technology, and the way to bring known material into the first.
pub struct Fixture {
    provider: Box<dyn CryptoProvider>,
    other: Box<dyn CryptoProvider>,
    bring: Bring,
    halves: bool,
}

impl Fixture {
    /// Takes two providers opened apart; `bring` stores a symmetric key of known bytes, for its usual use, as `load` of the
    /// first wants it.
    pub fn new(
        provider: impl CryptoProvider + 'static,
        other: impl CryptoProvider + 'static,
        bring: impl Fn(KeySpec, &[u8], Option<BulkMode>) -> StoredKey + 'static,
    ) -> Self {
        Self { provider: Box::new(provider), other: Box::new(other), bring: Box::new(bring), halves: false }
    }

    /// Says that the provider uses public halves, too, which others leave to software.
    pub fn with_public_halves(self) -> Self {
        Self { halves: true, ..self }
    }

    /// Returns the bulk mode of keys that do `use_`: an HSM key has one use, a software key both.
    fn mode(&self, use_: Use) -> Option<BulkMode> {
        match (self.provider.profile().protection, use_) {
            (ProtectionLevel::Software, _) => None,
            (ProtectionLevel::Hsm, Use::Aead) => Some(BulkMode::InHsm),
            (ProtectionLevel::Hsm, Use::Derive) => Some(BulkMode::HsmDerived),
        }
    }

    /// Opens the control lane.
    fn custody(&self) -> Box<dyn KeyCustody> {
        self.provider.custody().expect("the control lane is free")
    }

    /// Generates a key.
    fn stored(&self, custody: &mut dyn KeyCustody, use_: Use) -> StoredKey {
        custody
            .generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, self.mode(use_))
            .expect("a key is generated")
    }

    /// Generates a key and loads it.
    fn fresh(&self, use_: Use) -> KeyHandle {
        let mut custody = self.custody();
        let stored = self.stored(&mut *custody, use_);
        custody.load(&stored).expect("a generated key loads")
    }

    /// Loads a key of known bytes.
    pub fn known(&self, material: &[u8], use_: Use) -> KeyHandle {
        self.load(&(self.bring)(KeySpec::Aes256, material, self.mode(use_)))
    }

    /// Loads a key.
    fn load(&self, stored: &StoredKey) -> KeyHandle {
        self.custody().load(stored).expect("a key loads")
    }

    /// Generates a key that works without a bulk mode: one that signs, decrypts or computes MACs.
    fn made(&self, spec: KeySpec, usage: KeyUsage) -> StoredKey {
        self.custody().generate(spec, usage, None).expect("the profile lists it")
    }

    /// Returns the specifications with a use that the provider offers, of those that have no bulk mode.
    fn offered(&self, usage: KeyUsage) -> Vec<KeySpec> {
        let offers = |spec: &KeySpec| self.provider.profile().offers(*spec, usage);
        KeySpec::ALL
            .into_iter()
            .filter(|spec| spec.is_key_pair() || usage != KeyUsage::EncryptDecrypt)
            .filter(offers)
            .collect()
    }

    /// Opens a session.
    pub fn session(&self) -> Box<dyn CryptoSession> {
        self.provider.open_session().expect("a session opens")
    }
}

/// What a key is to do.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    /// `encrypt` and `decrypt`.
    Aead,
    /// `derive`.
    Derive,
}

/// One message before or after sealing, apart from any batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The nonce.
    pub nonce: [u8; 12],
    /// The associated data.
    pub aad: Vec<u8>,
    /// The plaintext or ciphertext.
    pub text: Vec<u8>,
    /// The tag; whatever before sealing.
    pub tag: [u8; 16],
}

impl Message {
    /// Makes the message of number `i`, with a length, nonce and associated data of its own.
    fn numbered(i: usize) -> Self {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&(i as u64).to_be_bytes());
        Self { nonce, aad: vec![!(i as u8); i % 23], text: vec![i as u8; 7 * i % 300], tag: [0xee; 16] }
    }
}

/// Packs messages into a batch.
fn pack(messages: &[Message]) -> AeadBatch {
    let mut batch = AeadBatch::default();
    for message in messages {
        let (text, aad) = (batch.buffer.len(), batch.aad.len());
        batch.buffer.extend(&message.text);
        batch.buffer.extend(message.tag);
        batch.aad.extend(&message.aad);
        batch.items.push(AeadItem {
            nonce: message.nonce,
            aad: aad..batch.aad.len(),
            text: text..text + message.text.len(),
            outcome: None,
        });
    }
    batch
}

/// Takes a batch apart again; every item must have its outcome.
fn unpack(batch: &AeadBatch) -> Vec<Result<Message, JobError>> {
    let message = |item: &AeadItem| Message {
        nonce: item.nonce,
        aad: batch.aad[item.aad.clone()].to_vec(),
        text: batch.buffer[item.text.clone()].to_vec(),
        tag: *batch.buffer[item.text.end..].first_chunk().expect("a tag follows each text"),
    };
    let done = |item: &AeadItem| item.outcome.expect("each item has its outcome").map(|()| message(item));
    batch.items.iter().map(done).collect()
}

/// Seals messages as one batch.
pub fn seal(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
    messages: &[Message],
) -> Vec<Result<Message, JobError>> {
    let mut batch = pack(messages);
    session.encrypt(key, &mut batch).expect("the session lives");
    unpack(&batch)
}

/// Opens messages as one batch; the tag of an opened one is left as it was.
pub fn open(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
    messages: &[Message],
) -> Vec<Result<Message, JobError>> {
    let mut batch = pack(messages);
    session.decrypt(key, &mut batch).expect("the session lives");
    unpack(&batch)
}

/// Computes CMAC(K, messages\[0\]) ‖ CMAC(K, messages\[1\]).
pub fn derive(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
    messages: [[u8; 16]; 2],
) -> Result<Vec<u8>, JobError> {
    let mut jobs = [DeriveJob::new(messages)];
    session.derive(key, &mut jobs).expect("the session lives");
    let [job] = jobs;
    job.output.expect("the job is done").map(|output| output.expose().to_vec())
}

/// Signs, or computes a MAC.
pub fn sign(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
    algorithm: SignAlgorithm,
    input: &[u8],
) -> Result<Vec<u8>, JobError> {
    let mut jobs = [SignJob::new(algorithm, input.to_vec())];
    session.sign(key, &mut jobs).expect("the session lives");
    let [job] = jobs;
    job.output.expect("the job is done")
}

/// Opens what was encrypted under the public half.
pub fn decrypt(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
    algorithm: DecryptAlgorithm,
    ciphertext: &[u8],
) -> Result<Vec<u8>, JobError> {
    let mut jobs = [DecryptJob::new(algorithm, ciphertext.to_vec())];
    session.decrypt_asymmetric(key, &mut jobs).expect("the session lives");
    let [job] = jobs;
    job.output.expect("the job is done").map(|text| text.expose().to_vec())
}

/// Reads hexadecimal digits.
fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    assert_eq!(hex.len(), 2 * N);
    std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..][..2], 16).expect("hexadecimal digits"))
}
