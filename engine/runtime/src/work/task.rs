//! What a job does to its items, and under which keys and contexts.

use std::sync::Arc;

use keymill_core::access::Rule;
use keymill_core::blob::{self, Algorithm, HEADER_BYTES};
use keymill_core::context::{EMPTY_CANONICAL, EncryptionContext};
use keymill_core::error::Error;
use keymill_core::id::CmkId;
use keymill_core::key::ProtectionLevel;
use keymill_core::operation::Reply;

use super::compute::Computation;
use super::{Fault, Items, WantedPair};
use crate::keyring::{CmkEntry, VersionEntry};

/// The contexts of a request's items.
pub(crate) enum Contexts {
    /// None at all.
    None,
    /// One for all.
    Common(EncryptionContext),
    /// One an item.
    Each(Vec<Option<EncryptionContext>>),
}

impl Contexts {
    /// Returns the context of item `i`.
    pub(crate) fn get(&self, i: usize) -> Option<&EncryptionContext> {
        match self {
            Contexts::None => None,
            Contexts::Common(context) => Some(context),
            Contexts::Each(contexts) => contexts[i].as_ref(),
        }
    }

    /// Lists the contexts that a right to a key is asked for under; of many the first alone where `matters` says that they do not matter.
    pub(crate) fn distinct(
        &self,
        matters: impl FnOnce() -> bool,
    ) -> impl Iterator<Item = Option<&EncryptionContext>> {
        let (first, others) = match self {
            Contexts::None => (None, &[][..]),
            Contexts::Common(context) => (Some(context), &[][..]),
            Contexts::Each(contexts) => match contexts.split_first() {
                Some((first, others)) if matters() => (first.as_ref(), others),
                first => (first.and_then(|(first, _)| first.as_ref()), &[][..]),
            },
        };
        // Neighbours are mostly alike.
        let mut last = first;
        let others = others
            .iter()
            .map(Option::as_ref)
            .filter(move |context| *context != std::mem::replace(&mut last, *context));
        std::iter::once(first).chain(others)
    }

    pub(crate) fn canonical(&self, i: usize) -> &[u8] {
        match self {
            Contexts::None => &EMPTY_CANONICAL,
            Contexts::Common(context) => context.canonical(),
            Contexts::Each(contexts) => {
                contexts[i].as_ref().map_or(&EMPTY_CANONICAL[..], EncryptionContext::canonical)
            }
        }
    }
}

/// The key version that a job seals under, pinned when it was admitted.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) entry: Arc<CmkEntry>,
    pub(crate) version: Arc<VersionEntry>,
    /// For a plaintext that is no text.
    pub(crate) header: [u8; HEADER_BYTES],
    pub(crate) algorithm: Algorithm,
}

impl Destination {
    /// Returns the header of an item.
    pub(crate) fn header(&self, is_text: bool) -> [u8; HEADER_BYTES] {
        blob::mark_text(self.header, is_text)
    }
}

/// What a job does to its items.
pub(crate) enum Task {
    Seal { to: Destination, contexts: Contexts, what: Sealing, done: u32 },
    Open(OpenTask),
    Compute(Box<Computation>),
    Answered(Box<Reply<'static>>),
    Refused(Error),
}

/// Where the plaintexts of a sealing job come from.
pub(crate) enum Sealing {
    /// The request.
    Plaintexts { items: Items, max_item_bytes: usize, is_text: bool },
    /// Other ciphertexts.
    Blobs(Box<OpenTask>),
    /// Nowhere yet: data keys.
    DataKeys { count: usize, bytes: usize, with_plaintext: bool },
    /// Nowhere yet: the private half of a data key pair, which becomes a plaintext once it is made.
    Pair(WantedPair),
}

impl Sealing {
    /// Tells whether the plaintext of an item is text of the cloud's dialect. Of another ciphertext its header says so, which is a part of
    /// what is authenticated when it is opened.
    pub(crate) fn is_text(&self, i: usize) -> bool {
        match self {
            Sealing::Plaintexts { is_text, .. } => *is_text,
            Sealing::Blobs(open) => blob::says_text(open.items.get(i)),
            Sealing::DataKeys { .. } | Sealing::Pair(_) => false,
        }
    }
}

/// Ciphertexts to open, and the keys that they named so far.
pub(crate) struct OpenTask {
    pub(crate) items: Items,
    pub(crate) keys: NamedKeys,
    /// The slot of each item that was opened.
    pub(crate) index: Vec<Option<u32>>,
}

impl OpenTask {
    pub(crate) fn new(
        items: Items,
        contexts: Contexts,
        required: Option<CmkId>,
        max_item_bytes: usize,
    ) -> Self {
        let index = Vec::with_capacity(items.len());
        let (slots, allowed_by, denied_by) = (Vec::new(), None, None);
        let keys = NamedKeys { contexts, required, slots, allowed_by, denied_by, max_item_bytes };
        Self { items, keys, index }
    }
}

/// The keys that items name, and what each item is opened under.
pub(crate) struct NamedKeys {
    pub(crate) contexts: Contexts,
    /// The key that all must be under.
    pub(crate) required: Option<CmkId>,
    pub(crate) slots: Vec<KeySlot>,
    /// The first rule that let the caller use a key that an item names.
    pub(crate) allowed_by: Option<Rule>,
    /// The first rule that did not.
    pub(crate) denied_by: Option<Rule>,
    pub(crate) max_item_bytes: usize,
}

/// A key that an item named: usable, or the error of each item that names it.
pub(crate) struct KeySlot {
    pub(crate) cmk: CmkId,
    pub(crate) version_number: u32,
    /// Where its material lives; none where there is no such key, or none for this caller.
    pub(crate) protection: Option<ProtectionLevel>,
    /// Whether the right to it depends on the context, so that it is asked for each item.
    pub(crate) per_context: bool,
    pub(crate) state: Result<(Arc<CmkEntry>, Arc<VersionEntry>), Fault>,
    pub(crate) done: u32,
}
