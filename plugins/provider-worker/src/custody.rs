//! The parent's side of the control lane. It outlives workers: each request goes to the one that runs, started where there is none.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use keymill_core::key::{BulkMode, KeySpec};
use keymill_core::seam::provider::{KeyCustody, KeyHandle, ProviderError, StoredKey};

use crate::connection::{Connection, Trouble};
use crate::wire::{ControlRequest, KeyRef, Kind, Released, StoredMessage};
use crate::{Lane, Shared};

pub(crate) struct WorkerCustody {
    shared: Arc<Shared>,
    lane: Lane,
}

impl WorkerCustody {
    /// Takes the lane over from the last one who had it.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, ProviderError> {
        let lane = shared.lane.lock().take();
        let mut custody = Self { shared, lane };
        custody.connection()?;
        Ok(custody)
    }

    /// Returns a conversation with the worker that runs.
    fn connection(&mut self) -> Result<(u64, &mut Connection), ProviderError> {
        let supervisor = &self.shared.supervisor;
        if let Some((generation, _)) = &self.lane
            && !supervisor.runs(*generation)
        {
            self.lane = None;
        }
        if self.lane.is_none() {
            self.lane = Some(supervisor.converse(Kind::OpenCustody, supervisor.config.control_timeout)?);
        }
        let (generation, connection) = self.lane.as_mut().expect("it was just opened");
        Ok((*generation, connection))
    }

    /// Asks one thing of the worker, and gives back handles that have no user with it.
    fn ask<T>(
        &mut self,
        kind: Kind,
        expected: Kind,
        encode: impl FnOnce(&mut Vec<u8>),
        decode: impl FnOnce(&[u8]) -> Result<T, crate::wire::Garbled>,
    ) -> Result<(u64, T), ProviderError> {
        let shared = Arc::clone(&self.shared);
        let supervisor = &shared.supervisor;
        let (generation, connection) = self.connection()?;
        let message = connection.begin();
        // Key material is to leave no copies behind, which a vector makes when it grows.
        message.reserve(64 * 1024);
        let mut dropped = supervisor.owner.take_dropped(generation);
        Released::encode(&mut dropped, message);
        supervisor.owner.put_back(generation, dropped);
        encode(message);
        let answer = match connection.ask_for(kind, expected) {
            Ok(Ok(body)) => decode(body).map_err(|garbled| Trouble::Garbled(garbled.0)),
            Ok(Err(failed)) => return Err(supervisor.judged(failed)),
            Err(trouble) => Err(trouble),
        };
        match answer {
            Ok(answer) => {
                connection.wipe();
                Ok((generation, answer))
            }
            Err(trouble) => {
                let timeout = connection.timeout();
                let reason = supervisor.reason(generation, &trouble, timeout);
                let lane = self.lane.take();
                if let (Trouble::Hung, Some((_, connection))) = (&trouble, lane) {
                    // There is one lane, so nothing more can be had of this worker.
                    supervisor.hung(generation, connection.into_stream(), true);
                }
                Err(ProviderError::Unavailable(reason))
            }
        }
    }
}

impl KeyCustody for WorkerCustody {
    fn generate(&mut self, spec: KeySpec, bulk_mode: Option<BulkMode>) -> Result<StoredKey, ProviderError> {
        let encode = |out: &mut Vec<u8>| ControlRequest::encode_generate(spec, bulk_mode, out);
        Ok(self.ask(Kind::Generate, Kind::Stored, encode, StoredMessage::decode)?.1)
    }

    fn load(&mut self, key: &StoredKey) -> Result<KeyHandle, ProviderError> {
        let encode = |out: &mut Vec<u8>| StoredMessage::encode(key, out);
        let (generation, number) = self.ask(Kind::Load, Kind::Loaded, encode, KeyRef::decode_number)?;
        Ok(self.shared.supervisor.owner.handle(KeyRef { generation, number }))
    }

    fn unload(&mut self, key: KeyHandle) -> Result<(), ProviderError> {
        let Ok(known) = self.shared.supervisor.owner.key(&key) else { return Ok(()) };
        // A handle of before went with its worker.
        let current = self.lane.as_ref().is_some_and(|(generation, _)| *generation == known.generation);
        if current && self.shared.supervisor.runs(known.generation) {
            let encode = |out: &mut Vec<u8>| out.extend(known.number.to_be_bytes());
            self.ask(Kind::Unload, Kind::Done, encode, |_| Ok(()))?;
        }
        Ok(())
    }

    fn destroy(&mut self, key: &StoredKey) -> Result<(), ProviderError> {
        self.ask(Kind::Destroy, Kind::Done, |out| StoredMessage::encode(key, out), |_| Ok(()))?;
        Ok(())
    }

    fn canary(&mut self) -> Result<(), ProviderError> {
        self.ask(Kind::Canary, Kind::Done, |_| (), |_| Ok(()))?;
        Ok(())
    }
}

impl Drop for WorkerCustody {
    fn drop(&mut self) {
        *self.shared.lane.lock() = self.lane.take();
        self.shared.custody_taken.store(false, Ordering::Release);
    }
}
