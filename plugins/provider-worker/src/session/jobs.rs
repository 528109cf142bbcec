//! Derivations, signatures, MACs and decryptions by a private key: each job with an input and an output of its own.

use std::time::Instant;

use keymill_core::Sensitive;
use keymill_core::seam::provider::{DecryptJob, DeriveJob, JobError, KeyHandle, SessionLost, SignJob};
use zeroize::Zeroizing;

use super::{MESSAGE_BYTES, Paces, WorkerSession};
use crate::pace::Pace;
use crate::wire::{Job, JobsAnswer, JobsRequest, KeyRef, Kind, Output, TEXT_BYTES, packed};

/// Jobs of a message, at most.
const MESSAGE_JOBS: usize = 4096;

/// What all such jobs have in common.
pub(super) trait Remote {
    /// What asks for them.
    const KIND: Kind;
    /// The bytes of an output, where they are always as many.
    const OUTPUT_BYTES: Option<usize>;
    /// How it is done, where there is a choice.
    type Algorithm: Copy + PartialEq;
    fn algorithm(&self) -> Self::Algorithm;
    fn packed(algorithm: Self::Algorithm) -> Zeroizing<Vec<u8>>;
    fn input(&self) -> &[u8];
    fn is_done(&self) -> bool;
    fn set(&mut self, output: Output<Sensitive>);
    fn pace(paces: &mut Paces) -> &mut Pace;
}

impl Remote for DeriveJob {
    const KIND: Kind = Kind::Derive;
    const OUTPUT_BYTES: Option<usize> = Some(32);
    type Algorithm = ();

    fn algorithm(&self) {}

    fn packed((): ()) -> Zeroizing<Vec<u8>> {
        Zeroizing::default()
    }

    fn input(&self) -> &[u8] {
        self.messages.as_flattened()
    }

    fn is_done(&self) -> bool {
        self.output.is_some()
    }

    fn set(&mut self, output: Output<Sensitive>) {
        self.output = output;
    }

    fn pace(paces: &mut Paces) -> &mut Pace {
        &mut paces.derive
    }
}

impl Remote for SignJob {
    const KIND: Kind = Kind::Sign;
    const OUTPUT_BYTES: Option<usize> = None;
    type Algorithm = keymill_core::key::SignAlgorithm;

    fn algorithm(&self) -> Self::Algorithm {
        self.algorithm
    }

    fn packed(algorithm: Self::Algorithm) -> Zeroizing<Vec<u8>> {
        packed(&algorithm, 0)
    }

    fn input(&self) -> &[u8] {
        &self.input
    }

    fn is_done(&self) -> bool {
        self.output.is_some()
    }

    fn set(&mut self, output: Output<Sensitive>) {
        self.output = output.map(|output| output.map(|signature| signature.expose().to_vec()));
    }

    fn pace(paces: &mut Paces) -> &mut Pace {
        &mut paces.sign
    }
}

impl Remote for DecryptJob {
    const KIND: Kind = Kind::DecryptAsymmetric;
    const OUTPUT_BYTES: Option<usize> = None;
    type Algorithm = keymill_core::key::DecryptAlgorithm;

    fn algorithm(&self) -> Self::Algorithm {
        self.algorithm
    }

    fn packed(algorithm: Self::Algorithm) -> Zeroizing<Vec<u8>> {
        packed(&algorithm, 0)
    }

    fn input(&self) -> &[u8] {
        &self.ciphertext
    }

    fn is_done(&self) -> bool {
        self.output.is_some()
    }

    fn set(&mut self, output: Output<Sensitive>) {
        self.output = output;
    }

    fn pace(paces: &mut Paces) -> &mut Pace {
        &mut paces.decrypt_asymmetric
    }
}

impl WorkerSession {
    /// Does every job that has no output yet.
    pub(super) fn jobs<J: Remote>(&mut self, key: &KeyHandle, jobs: &mut [J]) -> Result<(), SessionLost> {
        let key = self.key(key)?;
        let mut undone: Vec<&mut J> = Vec::new();
        for job in jobs.iter_mut().filter(|job| !job.is_done()) {
            match &key {
                Err(error) => job.set(Some(Err(*error))),
                Ok(_) if job.input().len() > TEXT_BYTES => job.set(Some(Err(JobError::Rejected))),
                Ok(_) => undone.push(job),
            }
        }
        let Ok(key) = key else { return Ok(()) };
        let mut undone = undone.as_mut_slice();
        while !undone.is_empty() {
            let limit = J::pace(&mut self.pace).items(self.supervisor.config.call_timeout).min(MESSAGE_JOBS);
            let mut bytes = 0;
            let fitting = undone.iter().take(limit).take_while(|job| {
                bytes += job.input().len();
                bytes <= MESSAGE_BYTES
            });
            // The first may be larger by itself.
            let (message, rest) = undone.split_at_mut(fitting.count().max(1));
            undone = rest;
            self.jobs_message(key, message)?;
        }
        Ok(())
    }

    fn jobs_message<J: Remote>(&mut self, key: KeyRef, jobs: &mut [&mut J]) -> Result<(), SessionLost> {
        let connection = self.connection()?;
        let message = connection.begin();
        JobsRequest::encode(key, jobs.len(), message);
        // Mostly they are all of one algorithm.
        let mut algorithm: Option<(J::Algorithm, _)> = None;
        for job in jobs.iter() {
            if algorithm.as_ref().is_none_or(|(last, _)| *last != job.algorithm()) {
                algorithm = Some((job.algorithm(), J::packed(job.algorithm())));
            }
            let packed = algorithm.as_ref().map_or(&[][..], |(_, packed)| packed);
            JobsRequest::encode_job(Job { algorithm: packed, input: job.input() }, message);
        }
        let asked = Instant::now();
        let answered = connection.ask(J::KIND, [].into_iter());
        let elapsed = asked.elapsed();
        let answer = answered.and_then(|header| {
            connection
                .read(header, Kind::Outputs, |body| JobsAnswer::decode(body, jobs.len(), J::OUTPUT_BYTES))
        });
        let JobsAnswer { lost, outputs } = match answer {
            Ok(answer) => answer,
            Err(trouble) => return Err(self.lose(&trouble)),
        };
        jobs.iter_mut().zip(outputs).for_each(|(job, output)| job.set(output));
        J::pace(&mut self.pace).took(jobs.len(), elapsed);
        self.end_of_message(lost)
    }
}
