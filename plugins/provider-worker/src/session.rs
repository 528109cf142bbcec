//! The parent's side of a session: a batch goes over as one message, or a few where it is large or the device slow, and what comes
//! back is written where it belongs.

mod aead;
mod jobs;

use std::sync::Arc;

use keymill_core::seam::provider::{
    AeadBatch, CryptoSession, DecryptJob, DeriveJob, JobError, KeyHandle, ProviderError, SessionLost, SignJob,
};

use crate::connection::{Connection, Trouble};
use crate::pace::Pace;
use crate::supervisor::Supervisor;
use crate::wire::{KeyRef, Kind, RANDOM_BYTES};

/// Bytes of a message, where its first item is not larger by itself: what stays in the cache of a core goes fastest.
const MESSAGE_BYTES: usize = 512 * 1024;

pub(crate) struct WorkerSession {
    supervisor: Arc<Supervisor>,
    generation: u64,
    /// `None` once it is lost.
    connection: Option<Connection>,
    pace: Paces,
}

/// Each kind of work has its own: a signature takes a thousand times as long as a MAC.
#[derive(Default)]
struct Paces {
    aead: Pace,
    derive: Pace,
    sign: Pace,
    decrypt_asymmetric: Pace,
}

impl WorkerSession {
    pub(crate) fn open(supervisor: &Arc<Supervisor>) -> Result<Self, ProviderError> {
        let timeout = supervisor.config.call_timeout;
        let (generation, connection) = supervisor.converse((Kind::OpenSession, Kind::Done), timeout, &[])?;
        supervisor.session_opened(generation);
        Ok(Self {
            supervisor: Arc::clone(supervisor),
            generation,
            connection: Some(connection),
            pace: Paces::default(),
        })
    }

    /// Returns the key of a handle, if it is of the worker that the session speaks with.
    fn key(&mut self, handle: &KeyHandle) -> Result<Result<KeyRef, JobError>, SessionLost> {
        match self.supervisor.owner.key(handle) {
            Ok(key) if key.generation == self.generation => Ok(Ok(key)),
            // The handle is fine, or will be after another load; it is the session that is of before.
            _ if self.supervisor.generation() != self.generation => {
                Err(self.lose(&Trouble::Gone("another has been started".into())))
            }
            Ok(_) => Ok(Err(JobError::StaleHandle)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, SessionLost> {
        self.connection.as_mut().ok_or_else(|| "the session was lost before".into())
    }

    /// Gives the session up.
    fn lose(&mut self, trouble: &Trouble) -> SessionLost {
        let timeout = self.supervisor.config.call_timeout;
        let reason = self.supervisor.reason(self.generation, trouble, timeout);
        if let Some(connection) = self.connection.take() {
            self.supervisor.session_closed(self.generation);
            if matches!(trouble, Trouble::Hung) {
                self.supervisor.hung(self.generation, connection.into_stream(), false);
            }
        }
        reason.into()
    }

    /// Wipes what came, and gives the session up where the worker did.
    fn end_of_message(&mut self, lost: Option<SessionLost>) -> Result<(), SessionLost> {
        self.connection()?.wipe();
        let Some(lost) = lost else { return Ok(()) };
        if self.connection.take().is_some() {
            self.supervisor.session_closed(self.generation);
        }
        Err(lost)
    }

    fn random_chunk(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        let connection = self.connection()?;
        connection.begin().extend((out.len() as u32).to_be_bytes());
        let answer = match connection.ask_for(Kind::Random, Kind::Bytes) {
            Ok(Ok(bytes)) if bytes.len() == out.len() => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            Ok(Ok(_)) => Err(connection.unexpected()),
            Ok(Err(failed)) => return Err(self.supervisor.judged(failed)),
            Err(trouble) => Err(trouble),
        };
        match answer {
            Ok(()) => Ok(self.end_of_message(None)?),
            Err(trouble) => Err(self.lose(&trouble).into()),
        }
    }
}

impl CryptoSession for WorkerSession {
    fn encrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        self.aead(Kind::Encrypt, key, batch)
    }

    fn decrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        self.aead(Kind::Decrypt, key, batch)
    }

    fn derive(&mut self, key: &KeyHandle, jobs: &mut [DeriveJob]) -> Result<(), SessionLost> {
        self.jobs(key, jobs)
    }

    fn sign(&mut self, key: &KeyHandle, jobs: &mut [SignJob]) -> Result<(), SessionLost> {
        self.jobs(key, jobs)
    }

    fn decrypt_asymmetric(&mut self, key: &KeyHandle, jobs: &mut [DecryptJob]) -> Result<(), SessionLost> {
        self.jobs(key, jobs)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        let drawn = out.chunks_mut(RANDOM_BYTES).try_for_each(|chunk| self.random_chunk(chunk));
        if drawn.is_err() {
            out.fill(0);
        }
        drawn
    }
}

impl Drop for WorkerSession {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.close();
            self.supervisor.session_closed(self.generation);
        }
    }
}
