//! Data key pairs, and random bytes.

use keymill_core::key::KeySpec;
use keymill_core::operation::*;

use crate::{Answered, Caller, Named, context};

/// A data key pair as it was given out.
pub struct Halves {
    /// The private half in clear, where it is.
    pub private: Option<Vec<u8>>,
    /// The private half, encrypted.
    pub sealed: Vec<u8>,
    /// The public half.
    pub public: Vec<u8>,
}

impl Caller {
    /// Makes a data key pair.
    pub fn data_key_pair(
        &mut self,
        key: impl Named,
        key_pair_spec: KeySpec,
        format: KeyFormat,
        pairs: &[(&str, &str)],
    ) -> Answered<Halves> {
        let request = GenerateDataKeyPairRequest {
            key_id: key.key_ref(),
            key_pair_spec,
            key_format: Some(format),
            encryption_context: context(pairs),
            timeout_ms: Some(50_000),
        };
        self.ask(
            request,
            take!(GenerateDataKeyPair, reply => {
                assert_eq!(reply.key_pair_spec, key_pair_spec);
                Halves {
                    private: Some(reply.private_key_plaintext.into_vec()),
                    sealed: reply.private_key_ciphertext_blob.into_vec(),
                    public: reply.public_key.into_vec(),
                }
            }),
        )
    }

    /// Makes a data key pair in DER, and returns its private half encrypted alone.
    pub fn data_key_pair_sealed(&mut self, key: impl Named, key_pair_spec: KeySpec) -> Answered<Halves> {
        let request = GenerateDataKeyPairWithoutPlaintextRequest {
            key_id: key.key_ref(),
            key_pair_spec,
            key_format: Some(KeyFormat::Der),
            encryption_context: None,
            timeout_ms: Some(50_000),
        };
        self.ask(
            request,
            take!(GenerateDataKeyPairWithoutPlaintext, reply => {
                assert_eq!(reply.key_pair_spec, key_pair_spec);
                Halves {
                    private: None,
                    sealed: reply.private_key_ciphertext_blob.into_vec(),
                    public: reply.public_key.into_vec(),
                }
            }),
        )
    }

    /// Draws random bytes.
    pub fn random(&mut self, length: u32) -> Answered<Vec<u8>> {
        self.ask(
            GenerateRandomRequest { length, timeout_ms: None },
            take!(GenerateRandom, reply => reply.random.into_vec()),
        )
    }
}
