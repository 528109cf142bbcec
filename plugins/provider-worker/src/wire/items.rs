//! The use of keys: batches of AES-GCM. Only what is yet to be done travels, one item behind the other, so that no range of
//! the caller's has to be believed on the other side.
//!
//! | offset | size | field of a batch |
//! |---|---|---|
//! | 0 | 16 | generation and number of the key |
//! | 16 | 4 | items, n |
//! | 20 | 4 | bytes of all associated data, a |
//! | 24 | 20 n | for each item: nonce (12), bytes of its associated data (4) and of its text (4) |
//! | .. | a | the associated data |
//! | .. | .. | the texts, each followed by 16 bytes for its tag |
//!
//! The answer: whether the session lives (1, and 4 + .. for the reason), n, a byte of outcome for each item, and all texts again.

use keymill_core::blob::TAG_BYTES;
use keymill_core::seam::provider::{AeadBatch, AeadItem, JobError, SessionLost};

use super::failure::{lost, put_lost};
use super::reader::{Reader, put_u32};
use super::{Garbled, HEADER_BYTES};

/// Bytes of one text and its associated data, at most.
pub const TEXT_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of an item without its texts.
const ITEM_BYTES: usize = 12 + 4 + 4;

/// A loaded key as both sides call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Which start of the worker it belongs to.
    pub generation: u64,
    /// Which it is; numbers are not used twice.
    pub number: u64,
}

impl KeyRef {
    /// Reads the body of a `Loaded`.
    ///
    /// # Errors
    /// [`Garbled`] where it is no number.
    pub fn decode_number(body: &[u8]) -> Result<u64, Garbled> {
        Ok(u64::from_be_bytes(body.try_into().map_err(|_| Garbled("a number that is none"))?))
    }

    /// Writes the sixteen bytes.
    pub fn put(self, out: &mut Vec<u8>) {
        out.extend(self.generation.to_be_bytes());
        out.extend(self.number.to_be_bytes());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Garbled> {
        Ok(Self { generation: reader.u64()?, number: reader.u64()? })
    }
}

/// Items to be sealed or opened.
pub struct AeadRequest {
    /// The key.
    pub key: KeyRef,
    /// The items, whose texts stand in the message that they came in.
    pub batch: AeadBatch,
    /// Where the texts stand in it.
    pub texts: std::ops::Range<usize>,
}

impl AeadRequest {
    /// Writes all of a request but the texts, which follow it in their order.
    pub fn encode<'a>(
        key: KeyRef,
        aad: &[u8],
        items: impl ExactSizeIterator<Item = &'a AeadItem> + Clone,
        out: &mut Vec<u8>,
    ) {
        key.put(out);
        put_u32(out, items.len());
        put_u32(out, items.clone().map(|item| item.aad.len()).sum());
        for item in items.clone() {
            out.extend(item.nonce);
            put_u32(out, item.aad.len());
            put_u32(out, item.text.len());
        }
        items.for_each(|item| out.extend(&aad[item.aad.clone()]));
    }

    /// Reads a request out of a received message of `bytes` bytes, which it keeps as the batch's buffer.
    ///
    /// # Errors
    /// [`Garbled`] where it is none; the message is lost then.
    pub fn decode(message: Vec<u8>, bytes: usize) -> Result<Self, Garbled> {
        let mut reader =
            Reader::new(message.get(HEADER_BYTES..bytes).ok_or(Garbled("a message that is cut"))?);
        let key = KeyRef::read(&mut reader)?;
        // The second length is counted with the items, so that a count of items is never more than the body has.
        let count = reader.u32()?;
        let aad_bytes = reader.u32()?;
        let table =
            reader.take(count.checked_mul(ITEM_BYTES).ok_or(Garbled("a count of more than is there"))?)?;
        let aad = reader.take(aad_bytes)?.to_vec();
        let texts = bytes - reader.rest().len()..bytes;
        let mut items = Vec::with_capacity(count);
        let (mut aad_at, mut text_at) = (0, texts.start);
        for entry in table.chunks_exact(ITEM_BYTES) {
            let mut entry = Reader::new(entry);
            let (nonce, aad_len, text_len) = (entry.array()?, entry.u32()?, entry.u32()?);
            let text = text_at..text_at + text_len;
            items.push(AeadItem { nonce, aad: aad_at..aad_at + aad_len, text, outcome: None });
            aad_at += aad_len;
            text_at += text_len + TAG_BYTES;
        }
        if aad_at != aad.len() || text_at != texts.end {
            return Err(Garbled("items that do not make up their message"));
        }
        Ok(Self { key, batch: AeadBatch { buffer: message, aad, items }, texts })
    }
}

/// What became of a batch, as the parent reads it.
pub struct AeadAnswer<'a> {
    /// Whether the session is lost.
    pub lost: Option<SessionLost>,
    /// A byte for each item.
    outcomes: &'a [u8],
    /// All texts, in the order of the request.
    pub texts: &'a [u8],
}

impl<'a> AeadAnswer<'a> {
    /// Writes all of an answer but the texts, which follow it.
    pub fn encode(lost: Option<&SessionLost>, items: &[AeadItem], out: &mut Vec<u8>) {
        put_lost(out, lost);
        put_u32(out, items.len());
        out.extend(items.iter().map(|item| outcome_code(item.outcome)));
    }

    /// Reads the answer to a request of `items` items and `text_bytes` bytes of texts and tags.
    ///
    /// # Errors
    /// [`Garbled`] where it is not the answer to such.
    pub fn decode(body: &'a [u8], items: usize, text_bytes: usize) -> Result<Self, Garbled> {
        let mut reader = Reader::new(body);
        let lost = lost(&mut reader)?;
        if reader.u32()? != items {
            return Err(Garbled("an answer to another number of items"));
        }
        let outcomes = reader.take(items)?;
        let texts = reader.take(text_bytes)?;
        reader.finish()?;
        for code in outcomes {
            complete(outcome(*code)?, lost.as_ref())?;
        }
        Ok(Self { lost, outcomes, texts })
    }

    /// Returns what became of each item.
    pub fn outcomes(&self) -> impl Iterator<Item = Option<Result<(), JobError>>> + use<'a> {
        self.outcomes.iter().map(|code| outcome(*code).expect("each was looked at"))
    }
}

/// Returns an outcome as it is written.
pub(super) fn outcome_code(outcome: Option<Result<(), JobError>>) -> u8 {
    match outcome {
        None => 0,
        Some(Ok(())) => 1,
        Some(Err(JobError::InvalidCiphertext)) => 2,
        Some(Err(JobError::Rejected)) => 3,
        Some(Err(JobError::StaleHandle)) => 4,
    }
}

/// Reads an outcome.
pub(super) fn outcome(code: u8) -> Result<Option<Result<(), JobError>>, Garbled> {
    Ok(match code {
        0 => None,
        1 => Some(Ok(())),
        2 => Some(Err(JobError::InvalidCiphertext)),
        3 => Some(Err(JobError::Rejected)),
        4 => Some(Err(JobError::StaleHandle)),
        _ => return Err(Garbled("an outcome that there is not")),
    })
}

/// A session that lives has done every item.
pub(super) fn complete(
    outcome: Option<Result<(), JobError>>,
    lost: Option<&SessionLost>,
) -> Result<(), Garbled> {
    if outcome.is_none() && lost.is_none() { Err(Garbled("an item without an outcome")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Kind, begin, finish};

    const KEY: KeyRef = KeyRef { generation: 5, number: 77 };

    fn batch() -> AeadBatch {
        let item = |n, aad, text| AeadItem { nonce: [n; 12], aad, text, outcome: None };
        AeadBatch {
            buffer: (0..100).collect(),
            aad: b"associated".to_vec(),
            // Not in their order, and with associated data in common.
            items: vec![item(1, 0..10, 40..60), item(2, 3..3, 0..0), item(3, 0..10, 80..84)],
        }
    }

    fn sent(batch: &AeadBatch) -> Vec<u8> {
        let mut message = Vec::new();
        begin(&mut message);
        AeadRequest::encode(KEY, &batch.aad, batch.items.iter(), &mut message);
        for item in &batch.items {
            message.extend(&batch.buffer[item.text.start..item.text.end + TAG_BYTES]);
        }
        finish(&mut message, Kind::Encrypt, 1, 0);
        message
    }

    #[test]
    fn a_batch_arrives_item_by_item() {
        let batch = batch();
        let message = sent(&batch);
        let bytes = message.len();
        let request = AeadRequest::decode(message, bytes).unwrap();
        assert_eq!(request.key, KEY);
        assert_eq!(request.texts.len(), 24 + 3 * TAG_BYTES);
        for (item, original) in request.batch.items.iter().zip(&batch.items) {
            assert_eq!(item.nonce, original.nonce);
            assert_eq!(request.batch.aad[item.aad.clone()], batch.aad[original.aad.clone()]);
            let tagged = |item: &AeadItem| item.text.start..item.text.end + TAG_BYTES;
            assert_eq!(request.batch.buffer[tagged(item)], batch.buffer[tagged(original)]);
        }
    }

    #[test]
    fn a_batch_whose_lengths_do_not_add_up_is_garbled() {
        let message = sent(&batch());
        for cut in HEADER_BYTES..message.len() {
            assert!(AeadRequest::decode(message.clone(), cut).is_err(), "{cut} bytes");
        }
        let longer = [&message[..], &[0]].concat();
        assert!(AeadRequest::decode(longer, message.len() + 1).is_err());
        // The counts of items and of associated data, and an item's two lengths.
        for at in [16, 20, 36, 40] {
            for byte in [1, 0xff] {
                let mut other = message.clone();
                other[HEADER_BYTES + at] ^= byte;
                assert!(AeadRequest::decode(other, message.len()).is_err(), "offset {at}");
            }
        }
    }

    #[test]
    fn an_answer_tells_of_each_item_or_is_garbled() {
        let mut batch = batch();
        batch.items[0].outcome = Some(Ok(()));
        batch.items[1].outcome = Some(Err(JobError::Rejected));
        let encoded = |lost: Option<&SessionLost>, items: &[AeadItem]| {
            let mut body = Vec::new();
            AeadAnswer::encode(lost, items, &mut body);
            body.extend([9; 72]);
            body
        };
        let lost = SessionLost::from("gone");
        let body = encoded(Some(&lost), &batch.items);
        let answer = AeadAnswer::decode(&body, 3, 72).unwrap();
        assert_eq!(answer.lost.as_ref().map(|lost| lost.reason.as_str()), Some("gone"));
        let outcomes: Vec<_> = answer.outcomes().collect();
        assert_eq!(outcomes, batch.items.iter().map(|item| item.outcome).collect::<Vec<_>>());
        assert!(AeadAnswer::decode(&body, 2, 72).is_err() && AeadAnswer::decode(&body, 3, 71).is_err());
        let alive = encoded(None, &batch.items);
        assert!(AeadAnswer::decode(&alive, 3, 72).is_err(), "the last item has no outcome");
        batch.items[2].outcome = Some(Err(JobError::StaleHandle));
        let mut alive = encoded(None, &batch.items);
        assert!(AeadAnswer::decode(&alive, 3, 72).is_ok());
        alive[9] = 7;
        assert!(AeadAnswer::decode(&alive, 3, 72).is_err(), "there is no such outcome");
    }
}
