//! A handle: one principal's way to call operations from any thread of the program.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use keymill_core::EncryptionContext;
use keymill_core::access::Principal;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::KeyRef;
use keymill_core::operation::{BatchDecryptRequest, BatchEncryptRequest, Bin, Request};
use keymill_runtime::gate::Ask;
use keymill_runtime::work::Cancel;
use keymill_runtime::{Call, Finished, Gate, Opened, Product, Sheet};
use tokio::runtime::Runtime;

const NAME: &str = "in-process";

/// Calls operations as one principal; clones act alike, and threads may share one.
#[derive(Clone)]
pub struct Handle {
    gate: Gate,
    principal: Principal,
    waiting: Arc<Runtime>,
}

impl Handle {
    pub(crate) fn new(gate: Gate, principal: Principal, waiting: Arc<Runtime>) -> Self {
        Self { gate, principal, waiting }
    }

    /// Returns who calls.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Does an operation and returns what came of it, which lends its reply. It blocks, so a task of an async program calls it
    /// where blocking is allowed.
    ///
    /// # Errors
    /// As over the network.
    pub fn call<'a>(&self, request: impl Into<Request<'a>>) -> Result<Finished> {
        self.perform(None, request.into())
    }

    /// Does an operation whose byte fields lie in `frame`; those are not copied on the way in.
    ///
    /// # Errors
    /// As over the network.
    pub fn call_in<'a>(&self, frame: &'a Bytes, request: impl Into<Request<'a>>) -> Result<Finished> {
        self.perform(Some(frame), request.into())
    }

    /// Encrypts items under one key; those that lie in `frame` are not copied on the way in. The sheet of the result has their
    /// ciphertexts.
    ///
    /// # Errors
    /// As over the network; an item that fails is among the errors of the product.
    pub fn batch_encrypt<'a>(
        &self,
        key_id: KeyRef,
        frame: &'a Bytes,
        items: impl IntoIterator<Item = &'a [u8]>,
        encryption_context: Option<EncryptionContext>,
    ) -> Result<Finished> {
        let items = items.into_iter().map(Bin::from).collect();
        let request = BatchEncryptRequest {
            key_id,
            items,
            encryption_context,
            encryption_contexts: None,
            timeout_ms: None,
        };
        self.call_in(frame, request)
    }

    /// Decrypts items, each under the key that it names; those that lie in `frame` are not copied on the way in. The sheet of
    /// the result has their plaintexts.
    ///
    /// # Errors
    /// As over the network; an item that fails is among the errors of the product.
    pub fn batch_decrypt<'a>(
        &self,
        frame: &'a Bytes,
        items: impl IntoIterator<Item = &'a [u8]>,
        encryption_context: Option<EncryptionContext>,
    ) -> Result<Finished> {
        let items = items.into_iter().map(Bin::from).collect();
        let request = BatchDecryptRequest {
            items,
            key_id: None,
            encryption_context,
            encryption_contexts: None,
            timeout_ms: None,
        };
        self.call_in(frame, request)
    }

    fn perform(&self, frame: Option<&Bytes>, request: Request<'_>) -> Result<Finished> {
        let gate = &self.gate;
        let operation = request.operation();
        let call = Call {
            request_id: gate.request_id(),
            principal: self.principal.clone(),
            source: None,
            frontend: NAME,
            received: Instant::now(),
            nonce: None,
        };
        let opened = if gate.is_admitted(&self.principal) {
            let sheet = Sheet::plain(None);
            gate.open(Ask {
                call,
                request,
                is_text: false,
                is_dry_run: false,
                frame,
                sheet,
                reply_to: None,
                cancel: Cancel::default(),
                ticket: 0,
            })
        } else {
            let error = Error::new(ErrorKind::AccessKeyInactive, "the access key is inactive or gone");
            Opened::Job(gate.refuse(call, Some(operation), error, None, Cancel::default(), 0))
        };
        let finished = match opened {
            Opened::Job(job) => gate.perform(job)?,
            Opened::Managed(managed) => {
                let call = managed.call().clone();
                let reply = self.waiting.block_on(gate.manage(*managed))?;
                let result = Ok(Product::Reply(Box::new(reply)));
                Finished { ticket: 0, call, operation: Some(operation), result, sheet: Sheet::default() }
            }
        };
        match finished.result {
            Ok(_) => Ok(finished),
            Err(error) => Err(error),
        }
    }
}
