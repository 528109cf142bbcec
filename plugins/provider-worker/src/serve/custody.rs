//! A control lane of the provider, on the thread of its conversation.

use std::io::Write;
use std::os::unix::net::UnixStream;

use keymill_core::seam::provider::{KeyCustody, ProviderError, StoredKey};
use zeroize::Zeroizing;

use super::{Serving, answer_done, answer_failed};
use crate::wire::{self, ControlRequest, Incoming, Kind, StoredMessage, UnwrappedMessage};

/// Opens a control lane and serves it until the parent ends the conversation.
pub(super) fn hold(mut stream: UnixStream, mut incoming: Incoming, tag: u64, serving: &Serving) {
    let mut custody = match serving.served.provider.custody() {
        Ok(custody) => custody,
        Err(error) => {
            // The parent may be gone, which is the end, too.
            let _told = answer_failed(&mut stream, tag, &serving.failed(error));
            return;
        }
    };
    let mut told = answer_done(&mut stream, tag).is_ok();
    let mut message = Zeroizing::default();
    while told && let Ok(header) = incoming.receive(&mut stream, None) {
        let Ok((released, request)) = ControlRequest::decode(header.kind, incoming.body()) else { return };
        serving.keys.release(&released.0);
        wire::begin(&mut message);
        let sent = match answer(&mut *custody, request, serving, &mut message) {
            Ok(kind) => {
                wire::finish(&mut message, kind, header.tag, 0);
                stream.write_all(&message)
            }
            Err(error) => answer_failed(&mut stream, header.tag, &serving.failed(error)),
        };
        message.fill(0);
        incoming.wipe();
        told = sent.is_ok();
    }
}

/// Does one request, and writes the body of its answer.
fn answer(
    custody: &mut dyn KeyCustody,
    request: ControlRequest,
    serving: &Serving,
    out: &mut Vec<u8>,
) -> Result<Kind, ProviderError> {
    match request {
        ControlRequest::Generate(spec, usage, bulk_mode) => {
            Ok(stored(&custody.generate(spec, usage, bulk_mode)?, out))
        }
        ControlRequest::GenerateToStay(spec, usage, bulk_mode) => {
            Ok(stored(&custody.generate_to_stay(spec, usage, bulk_mode)?, out))
        }
        ControlRequest::Adopt(wanted) => Ok(stored(&custody.adopt(&wanted)?, out)),
        ControlRequest::Import(spec, usage, bulk_mode, material) => {
            Ok(stored(&custody.import(spec, usage, bulk_mode, &material)?, out))
        }
        ControlRequest::GenerateWrappingKey(spec, algorithm) => {
            Ok(stored(&custody.generate_wrapping_key(spec, algorithm)?, out))
        }
        ControlRequest::ImportWrapped(import) => {
            UnwrappedMessage::encode(&custody.import_wrapped(&import)?, out);
            Ok(Kind::Unwrapped)
        }
        ControlRequest::DestroyWrappingKey(wrapping) => {
            custody.destroy_wrapping_key(&wrapping)?;
            Ok(Kind::Done)
        }
        ControlRequest::Load(key) => {
            let handle = custody.load(&key)?;
            let number = serving.keys.enter(handle.clone());
            let Some(number) = number else {
                custody.unload(handle)?;
                return Err(ProviderError::unavailable("the worker's table of keys is full"));
            };
            out.extend(number.to_be_bytes());
            Ok(Kind::Loaded)
        }
        ControlRequest::Unload(key) => {
            if let Ok(handle) = serving.keys.handle(key) {
                custody.unload(handle)?;
            }
            Ok(Kind::Done)
        }
        ControlRequest::Destroy(key) => {
            custody.destroy(&key)?;
            Ok(Kind::Done)
        }
        ControlRequest::Canary => {
            custody.canary()?;
            Ok(Kind::Done)
        }
    }
}

fn stored(key: &StoredKey, out: &mut Vec<u8>) -> Kind {
    // Key material is to leave no copies behind, which a vector makes when it grows.
    out.reserve(64 * 1024);
    StoredMessage::encode(key, out);
    Kind::Stored
}
