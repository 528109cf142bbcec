//! Batches of AES-GCM: sent from the caller's buffer as it stands, and written back item by item, so that whatever goes wrong half way
//! leaves what is not done as it was.

use std::ops::Range;
use std::time::Instant;

use keymill_core::blob::TAG_BYTES;
use keymill_core::seam::provider::{AeadBatch, AeadItem, JobError, KeyHandle, SessionLost};

use super::{MESSAGE_BYTES, WorkerSession};
use crate::wire::{AeadAnswer, AeadRequest, KeyRef, Kind, TEXT_BYTES};

impl WorkerSession {
    /// Does every item that has no outcome yet.
    pub(super) fn aead(
        &mut self,
        kind: Kind,
        key: &KeyHandle,
        batch: &mut AeadBatch,
    ) -> Result<(), SessionLost> {
        let key = match self.key(key)? {
            Ok(key) => key,
            Err(error) => {
                let undone = batch.items.iter_mut().filter(|item| item.outcome.is_none());
                undone.for_each(|item| item.outcome = Some(Err(error)));
                return Ok(());
            }
        };
        let mut from = 0;
        while let Some(message) = self.next_message(batch, from) {
            from = message.last().map_or(from, |at| at + 1);
            self.message(kind, key, batch, &message)?;
        }
        Ok(())
    }

    /// Chooses the undone items from `from` on that go together; those that no message can carry are rejected.
    fn next_message(&self, batch: &mut AeadBatch, from: usize) -> Option<Vec<usize>> {
        let AeadBatch { buffer, aad, items } = batch;
        let limit = self.pace.aead.items(self.supervisor.config.call_timeout);
        let (mut message, mut bytes) = (Vec::new(), 0);
        for (at, item) in items.iter_mut().enumerate().skip(from) {
            if item.outcome.is_some() {
                continue;
            }
            let Some(item_bytes) = measured(item, buffer.len(), aad.len()) else {
                item.outcome = Some(Err(JobError::Rejected));
                continue;
            };
            if message.len() == limit || (!message.is_empty() && bytes + item_bytes > MESSAGE_BYTES) {
                break;
            }
            bytes += item_bytes;
            message.push(at);
        }
        (!message.is_empty()).then_some(message)
    }

    /// Sends some items, and writes back what became of them.
    fn message(
        &mut self,
        kind: Kind,
        key: KeyRef,
        batch: &mut AeadBatch,
        message: &[usize],
    ) -> Result<(), SessionLost> {
        let AeadBatch { buffer, aad, items } = batch;
        let ranges = texts(items, message);
        let bytes = ranges.iter().map(|range| range.len()).sum();
        let connection = self.connection()?;
        AeadRequest::encode(key, aad, message.iter().map(|at| &items[*at]), connection.begin());
        let asked = Instant::now();
        let answered = connection.ask(kind, ranges.iter().map(|range| &buffer[range.clone()]));
        let elapsed = asked.elapsed();
        let answer = answered.and_then(|header| {
            connection.read(header, Kind::Outcomes, |body| AeadAnswer::decode(body, message.len(), bytes))
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(trouble) => return Err(self.lose(&trouble)),
        };
        let mut at_text = 0;
        for (at, outcome) in message.iter().zip(answer.outcomes()) {
            let item = &mut items[*at];
            let tagged = tagged(item);
            if outcome == Some(Ok(())) {
                buffer[tagged.clone()].copy_from_slice(&answer.texts[at_text..at_text + tagged.len()]);
            }
            at_text += tagged.len();
            item.outcome = outcome;
        }
        let lost = answer.lost;
        self.pace.aead.took(message.len(), elapsed);
        self.end_of_message(lost)
    }
}

/// Returns the bytes of an item, if its ranges lie inside the batch and a message can carry it.
fn measured(item: &AeadItem, buffer: usize, aad: usize) -> Option<usize> {
    let text = item.text.end.checked_sub(item.text.start)?;
    let associated = item.aad.end.checked_sub(item.aad.start)?;
    let inside = item.text.end.checked_add(TAG_BYTES)? <= buffer && item.aad.end <= aad;
    let bytes = text.checked_add(associated)?.checked_add(TAG_BYTES)?;
    (inside && bytes <= TEXT_BYTES).then_some(bytes)
}

/// Returns where the texts and tags of some items stand; neighbours are joined.
fn texts(items: &[AeadItem], message: &[usize]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::with_capacity(1);
    for tagged in message.iter().map(|at| tagged(&items[*at])) {
        match ranges.last_mut() {
            Some(last) if last.end == tagged.start => last.end = tagged.end,
            _ => ranges.push(tagged),
        }
    }
    ranges
}

/// Returns where the text of an item and its tag stand.
fn tagged(item: &AeadItem) -> Range<usize> {
    item.text.start..item.text.end + TAG_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(aad: Range<usize>, text: Range<usize>) -> AeadItem {
        AeadItem { nonce: [0; 12], aad, text, outcome: None }
    }

    #[test]
    fn only_what_lies_inside_the_batch_is_sent() {
        assert_eq!(measured(&item(0..4, 0..10), 26, 4), Some(30));
        #[allow(clippy::reversed_empty_ranges)]
        let outside = [
            item(0..5, 0..10),
            item(0..4, 0..11),
            item(3..2, 0..10),
            item(0..4, 10..9),
            item(0..4, 0..usize::MAX),
            item(0..4, usize::MAX - 1..usize::MAX),
        ];
        assert!(outside.iter().all(|item| measured(item, 26, 4).is_none()));
    }

    #[test]
    fn neighbours_go_as_one_piece() {
        let items = [item(0..0, 0..4), item(0..0, 20..30), item(0..0, 60..60), item(0..0, 46..50)];
        assert_eq!(texts(&items, &[0, 1, 2, 3]), [0..46, 60..76, 46..66]);
        let joined = texts(&items, &[0, 1, 3]);
        assert_eq!((joined.len(), &joined[0]), (1, &(0..66)));
    }
}
