//! Signatures, MACs and decryptions by private keys: each a job of its own, and put to the proof at once where it fails in doubt, for
//! each costs as much as a hundred songs of the canary.

use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::key::{DecryptAlgorithm, SignAlgorithm};
use keymill_core::seam::provider::{DecryptJob, JobError, KeyHandle, SessionLost, SignJob};

use super::{Pkcs11Session, RETRIES, exactly, loaded};
use crate::cache::Loaded;
use crate::der;
use crate::kind::{self, Kind};
use crate::module::Failure;
use crate::verdict::{Blame, Verdict, judge};

/// Bytes of a signature or a modulus, at most.
const RESULT_BYTES: usize = 512;

impl Pkcs11Session {
    pub(super) fn sign_each(&mut self, key: &KeyHandle, jobs: &mut [SignJob]) -> Result<(), SessionLost> {
        let token = Arc::clone(&self.token);
        let _using = token.using.read();
        let mut key = loaded(&token, key, |_| true);
        for job in jobs.iter_mut().filter(|job| job.output.is_none()) {
            let algorithm = job.algorithm;
            let offered = token.profile.signatures.contains(&algorithm);
            let fits = match algorithm.digest_bytes() {
                Some(bytes) => job.input.len() == bytes,
                None => job.input.len() <= token.profile.max_item_bytes,
            };
            // Nothing that does not fit reaches the module: digests longer than a curve are cut by some, and refused by others.
            let usable = key.and_then(|key| {
                if offered && fits && key.kind.signs(algorithm) { Ok(key) } else { Err(JobError::Rejected) }
            });
            let outcome = match usable {
                Ok(usable) => {
                    self.settled(Blame::JOB, |session| session.signed(usable, algorithm, &job.input))?
                }
                Err(error) => Err(error),
            };
            key = gone(key, &outcome);
            job.output = Some(outcome);
        }
        Ok(())
    }

    pub(super) fn open_each(&mut self, key: &KeyHandle, jobs: &mut [DecryptJob]) -> Result<(), SessionLost> {
        let token = Arc::clone(&self.token);
        let _using = token.using.read();
        let mut key = loaded(&token, key, |_| true);
        for job in jobs.iter_mut().filter(|job| job.output.is_none()) {
            let algorithm = job.algorithm;
            let offered = token.profile.decryptions.contains(&algorithm);
            let usable = key.and_then(|key| match key.kind.spec().modulus_bytes() {
                Some(bytes) if offered && key.kind.opens(algorithm) => {
                    if job.ciphertext.len() == bytes {
                        Ok(key)
                    } else {
                        Err(JobError::InvalidCiphertext)
                    }
                }
                _ => Err(JobError::Rejected),
            });
            let outcome = match usable {
                Ok(usable) => self
                    .settled(Blame::PRIVATE, |session| session.opened(usable, algorithm, &job.ciphertext))?,
                Err(error) => Err(error),
            };
            key = gone(key, &outcome);
            job.output = Some(outcome);
        }
        Ok(())
    }

    /// Does a job, and settles whose fault it is where it fails.
    fn settled<T>(
        &mut self,
        blame: Blame,
        mut job: impl FnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<Result<T, JobError>, SessionLost> {
        for tried in 0..=RETRIES {
            let failure = match job(self) {
                Ok(done) => return Ok(Ok(done)),
                Err(failure) => failure,
            };
            match judge(blame, failure) {
                Verdict::Outcome(outcome) => return Ok(Err(outcome.err().unwrap_or(JobError::Rejected))),
                Verdict::KeyGone => return Ok(Err(JobError::StaleHandle)),
                Verdict::Lost(failure) => return Err(self.lost(&failure)),
                Verdict::Doubtful if tried == 0 => self.hear()?,
                Verdict::Doubtful => {}
            }
        }
        Ok(Err(blame.error))
    }

    fn signed(&mut self, key: &Loaded, algorithm: SignAlgorithm, input: &[u8]) -> Result<Vec<u8>, Failure> {
        self.retried(|session| session.sign_init(kind::signing(algorithm)?, key.object))?;
        let mut out = [0; RESULT_BYTES];
        let bytes = self.session.sign(&kind::signed(algorithm, input), &mut out)?;
        let expected = signature_bytes(key.kind, algorithm);
        let made = &out[..exactly("C_Sign", expected, bytes)?];
        Ok(match algorithm {
            SignAlgorithm::EcdsaSha256 | SignAlgorithm::EcdsaSha384 => der::ecdsa_signature(made),
            _ => made.to_vec(),
        })
    }

    fn opened(
        &mut self,
        key: &Loaded,
        algorithm: DecryptAlgorithm,
        sealed: &[u8],
    ) -> Result<Sensitive, Failure> {
        self.retried(|session| session.decrypt_init(kind::opening(algorithm)?, key.object))?;
        let mut out = Sensitive::zeroed(sealed.len());
        let bytes = self.session.decrypt(sealed, out.expose_mut())?;
        Ok(Sensitive::copied(&out.expose()[..bytes]))
    }
}

/// Returns the key, unless the token turned out to know it no longer: the jobs that are left need not ask.
fn gone<'a, T>(
    key: Result<&'a Loaded, JobError>,
    outcome: &Result<T, JobError>,
) -> Result<&'a Loaded, JobError> {
    let key = key?;
    if matches!(outcome, Err(JobError::StaleHandle)) {
        key.set_gone();
        return Err(JobError::StaleHandle);
    }
    Ok(key)
}

fn signature_bytes(kind: Kind, algorithm: SignAlgorithm) -> usize {
    match (kind.spec().modulus_bytes(), der::coordinate_bytes(kind.spec()), algorithm) {
        (Some(modulus), ..) => modulus,
        (_, Some(coordinate), _) => 2 * coordinate,
        (.., SignAlgorithm::HmacSha384) => 48,
        (.., SignAlgorithm::HmacSha512) => 64,
        _ => 32,
    }
}
