//! The parent's side of the control lane. It outlives workers: each request goes to the one that runs, started where there is none.

use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, WrappingAlgorithm};
use keymill_core::seam::provider::{
    Adopt, KeyCustody, KeyHandle, ProviderError, StoredKey, Unwrapped, WrappedImport,
};

use crate::connection::{Connection, Trouble};
use crate::supervisor::Supervisor;
use crate::wire::{ControlRequest, Garbled, KeyRef, Kind, Released, StoredMessage, UnwrappedMessage};

/// Room for a control message: key material is to leave no copies behind, which a vector makes when it grows.
const MESSAGE_BYTES: usize = 64 * 1024;

pub(crate) struct WorkerCustody {
    supervisor: Arc<Supervisor>,
    /// The conversation with the worker of a generation.
    lane: Option<(u64, Connection)>,
}

impl WorkerCustody {
    pub(crate) fn open(supervisor: &Arc<Supervisor>) -> Result<Self, ProviderError> {
        let mut custody = Self { supervisor: Arc::clone(supervisor), lane: None };
        custody.connection()?;
        Ok(custody)
    }

    /// Returns a conversation with the worker that runs.
    fn connection(&mut self) -> Result<(u64, &mut Connection), ProviderError> {
        let supervisor = &self.supervisor;
        self.lane.take_if(|(generation, _)| !supervisor.runs(*generation));
        let lane = match self.lane.take() {
            Some(lane) => lane,
            None => {
                let timeout = supervisor.config.control_timeout;
                supervisor.converse((Kind::OpenCustody, Kind::Done), timeout, &[])?
            }
        };
        let (generation, connection) = self.lane.insert(lane);
        Ok((*generation, connection))
    }

    /// Asks one thing of the worker, and gives back handles that have no user with it.
    fn ask<T>(
        &mut self,
        kind: Kind,
        expected: Kind,
        encode: impl FnOnce(&mut Vec<u8>),
        decode: impl FnOnce(&[u8]) -> Result<T, Garbled>,
    ) -> Result<(u64, T), ProviderError> {
        let supervisor = Arc::clone(&self.supervisor);
        let (generation, connection) = self.connection()?;
        let message = connection.begin();
        message.reserve(MESSAGE_BYTES);
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
                let mut reason = supervisor.reason(generation, &trouble, connection.timeout());
                if matches!(kind, Kind::GenerateToStay | Kind::GenerateWrappingKey) {
                    reason.push_str(
                        "; a key may be left in the token, that no CMK uses and that can be destroyed",
                    );
                }
                let lane = self.lane.take();
                if let (Trouble::Hung, Some((_, connection))) = (&trouble, lane) {
                    // Keys are made apart; whatever else hangs holds what all loading needs, so nothing more comes of this worker.
                    supervisor.hung(generation, connection.into_stream(), !is_making(kind));
                }
                Err(ProviderError::unavailable(reason))
            }
        }
    }
}

/// Tells whether a key is made by it, or brought in.
fn is_making(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Generate
            | Kind::GenerateToStay
            | Kind::GenerateWrappingKey
            | Kind::Import
            | Kind::ImportWrapped
    )
}

impl KeyCustody for WorkerCustody {
    fn generate(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        let encode = |out: &mut Vec<u8>| ControlRequest::encode_generate(spec, usage, bulk_mode, out);
        Ok(self.ask(Kind::Generate, Kind::Stored, encode, StoredMessage::decode)?.1)
    }

    fn import(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
        material: &Sensitive,
    ) -> Result<StoredKey, ProviderError> {
        let encode = |out: &mut Vec<u8>| ControlRequest::encode_import(spec, usage, bulk_mode, material, out);
        Ok(self.ask(Kind::Import, Kind::Stored, encode, StoredMessage::decode)?.1)
    }

    fn generate_wrapping_key(
        &mut self,
        spec: KeySpec,
        algorithm: WrappingAlgorithm,
    ) -> Result<StoredKey, ProviderError> {
        let encode = |out: &mut Vec<u8>| ControlRequest::encode_wrapping_key(spec, algorithm, out);
        Ok(self.ask(Kind::GenerateWrappingKey, Kind::Stored, encode, StoredMessage::decode)?.1)
    }

    fn import_wrapped(&mut self, import: &WrappedImport) -> Result<Unwrapped, ProviderError> {
        let encode = |out: &mut Vec<u8>| ControlRequest::encode_import_wrapped(import, out);
        Ok(self.ask(Kind::ImportWrapped, Kind::Unwrapped, encode, UnwrappedMessage::decode)?.1)
    }

    fn destroy_wrapping_key(&mut self, wrapping: &StoredKey) -> Result<(), ProviderError> {
        let encode = |out: &mut Vec<u8>| StoredMessage::encode(wrapping, out);
        self.ask(Kind::DestroyWrappingKey, Kind::Done, encode, |_| Ok(()))?;
        Ok(())
    }

    fn generate_to_stay(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        let encode = |out: &mut Vec<u8>| ControlRequest::encode_generate(spec, usage, bulk_mode, out);
        Ok(self.ask(Kind::GenerateToStay, Kind::Stored, encode, StoredMessage::decode)?.1)
    }

    fn adopt(&mut self, wanted: &Adopt) -> Result<StoredKey, ProviderError> {
        let encode = |out: &mut Vec<u8>| ControlRequest::encode_adopt(wanted, out);
        Ok(self.ask(Kind::Adopt, Kind::Stored, encode, StoredMessage::decode)?.1)
    }

    fn load(&mut self, key: &StoredKey) -> Result<KeyHandle, ProviderError> {
        let encode = |out: &mut Vec<u8>| StoredMessage::encode(key, out);
        let (generation, number) = self.ask(Kind::Load, Kind::Loaded, encode, KeyRef::decode_number)?;
        Ok(self.supervisor.owner.handle(KeyRef { generation, number }))
    }

    fn unload(&mut self, key: KeyHandle) -> Result<(), ProviderError> {
        let Ok(known) = self.supervisor.owner.key(&key) else { return Ok(()) };
        // A handle of before went with its worker.
        if self.supervisor.runs(known.generation) {
            let encode = |out: &mut Vec<u8>| known.put(out);
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
        if let Some((_, connection)) = &mut self.lane {
            connection.close();
        }
    }
}
