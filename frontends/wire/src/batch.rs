//! The fast path of batch answers: the frame is begun, the caller writes (or seals in place) each item straight into it,
//! and the rest of the result follows. The bytes are those that `response::encode_reply` would have made of the same reply.

use keymill_core::id::{CmkId, KeyVersionId, RequestId};
use keymill_core::operation::ItemError;
use rmp::encode::{write_array_len, write_bin_len, write_map_len, write_str};

use crate::response::{begin, close, named, uint};

/// Bytes of the longest header of a byte string.
pub const MAX_BIN_HEADER: usize = 5;
/// The byte that stands for an item that failed.
pub const NIL: u8 = 0xc0;
/// The byte that opens the pair of a data key: ciphertext, and plaintext or nil.
pub const PAIR: u8 = 0x92;

/// Every batch result has four fields, and so has every single one that is written here.
const FIELDS: u32 = 4;

/// A frame whose items are being written; its length is written by the function that finishes it.
#[must_use = "a frame that is not finished has no length"]
#[derive(Debug)]
pub struct FrameStart(usize);

impl FrameStart {
    /// Returns where the frame starts, for a caller that gives it up: the buffer is cut there.
    pub fn at(&self) -> usize {
        self.0
    }

    /// Takes up a frame whose head was moved to another buffer, where it starts at `at`.
    pub fn moved_to(at: usize) -> Self {
        Self(at)
    }
}

/// Begins the answer to batch request `id`: `[id, 0, {"Items": [` with the header of `items` items.
pub fn begin_batch(id: u64, items: usize, out: &mut Vec<u8>) -> FrameStart {
    let start = begin(id, 0, out);
    write_map_len(out, FIELDS).expect(GROWS);
    field("Items", out);
    array(items, out);
    FrameStart(start)
}

/// Begins the answer to a single operation whose one byte field is `name`, which must follow: `[id, 0, {name:`.
pub fn begin_single(id: u64, name: &str, out: &mut Vec<u8>) -> FrameStart {
    let start = begin(id, 0, out);
    write_map_len(out, FIELDS).expect(GROWS);
    field(name, out);
    FrameStart(start)
}

/// Finishes the answer of `Encrypt`, `Decrypt`, `ReEncrypt` or `GenerateDataKeyWithoutPlaintext`.
pub fn finish_single(
    start: FrameStart,
    key_id: CmkId,
    key_version_id: KeyVersionId,
    request_id: RequestId,
    out: &mut Vec<u8>,
) {
    field("KeyId", out);
    id(&key_id.to_ascii(), out);
    field("KeyVersionId", out);
    id(&key_version_id.to_ascii(), out);
    field("RequestId", out);
    id(&request_id.to_ascii(), out);
    close(start.0, out);
}

/// Returns the header of a byte string of `length` bytes, and how many bytes of it count.
pub fn bin_header(length: usize) -> ([u8; MAX_BIN_HEADER], usize) {
    let bytes = (length as u32).to_be_bytes();
    match length {
        0..=0xff => ([0xc4, bytes[3], 0, 0, 0], 2),
        0x100..=0xffff => ([0xc5, bytes[2], bytes[3], 0, 0], 3),
        _ => ([0xc6, bytes[0], bytes[1], bytes[2], bytes[3]], 5),
    }
}

/// Returns the bytes that a byte string of `length` bytes takes in a frame.
pub const fn bin_bytes(length: usize) -> usize {
    length
        + match length {
            0..=0xff => 2,
            0x100..=0xffff => 3,
            _ => 5,
        }
}

/// Appends the header of a byte string; exactly `length` bytes must follow.
pub fn write_bin_header(length: usize, out: &mut Vec<u8>) {
    write_bin_len(out, length as u32).expect(GROWS);
}

/// Appends the place of an item that failed.
pub fn write_nil(out: &mut Vec<u8>) {
    out.push(NIL);
}

/// Appends what opens the pair of a data key.
pub fn write_pair_header(out: &mut Vec<u8>) {
    out.push(PAIR);
}

/// Finishes the answer of an operation that makes items with one key version: `BatchEncrypt`, `BatchReEncrypt`, `BatchGenerateDataKey`,
/// `BatchSign`, `BatchAsymmetricEncrypt`, `BatchAsymmetricDecrypt`.
pub fn finish_batch(
    start: FrameStart,
    errors: &[ItemError],
    key_id: CmkId,
    key_version_id: KeyVersionId,
    out: &mut Vec<u8>,
) {
    item_errors(errors, out);
    field("KeyId", out);
    id(&key_id.to_ascii(), out);
    field("KeyVersionId", out);
    id(&key_version_id.to_ascii(), out);
    close(start.0, out);
}

/// Finishes the answer of `BatchDecrypt`.
pub fn finish_batch_decrypt(
    start: FrameStart,
    errors: &[ItemError],
    key_ids: impl ExactSizeIterator<Item = CmkId>,
    key_index: &[Option<u32>],
    out: &mut Vec<u8>,
) {
    item_errors(errors, out);
    field("KeyIds", out);
    array(key_ids.len(), out);
    for key_id in key_ids {
        id(&key_id.to_ascii(), out);
    }
    field("KeyIndex", out);
    array(key_index.len(), out);
    for index in key_index {
        match index {
            // Few keys in a batch are the rule, and their places fit in a byte.
            Some(index @ 0..=0x7f) => out.push(*index as u8),
            Some(index) => uint(u64::from(*index), out),
            None => out.push(NIL),
        }
    }
    close(start.0, out);
}

const GROWS: &str = "a vector grows";

fn item_errors(errors: &[ItemError], out: &mut Vec<u8>) {
    field("Errors", out);
    named(&errors, out);
}

fn field(name: &str, out: &mut Vec<u8>) {
    write_str(out, name).expect(GROWS);
}

/// Appends the text of an id: `str8` and its 36 characters.
fn id(text: &[u8; 36], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd9, 36]);
    out.extend_from_slice(text);
}

fn array(values: usize, out: &mut Vec<u8>) {
    write_array_len(out, values as u32).expect(GROWS);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::encode_reply;
    use keymill_core::Error;
    use keymill_core::operation::{
        BatchDecryptReply, BatchEncryptReply, BatchGenerateDataKeyReply, Bin, EncryptReply, Reply,
    };

    const KEY: CmkId = CmkId::from_bytes([7; 16]);

    #[test]
    fn a_single_answer_is_written_as_serde_would_write_it() {
        let (version, request) = (KeyVersionId::from_bytes([8; 16]), RequestId::from_bytes([9; 16]));
        let (blob, mut fast, mut slow) = (vec![5; 300], Vec::new(), Vec::new());
        let start = begin_single(77, "CiphertextBlob", &mut fast);
        write_bin_header(blob.len(), &mut fast);
        fast.extend_from_slice(&blob);
        finish_single(start, KEY, version, request, &mut fast);
        let reply = EncryptReply {
            ciphertext_blob: Bin::from(&blob[..]),
            key_id: KEY,
            key_version_id: version,
            request_id: request,
        };
        encode_reply(77, &Reply::Encrypt(reply), &mut slow);
        assert_eq!(fast, slow);
    }

    const VERSION: KeyVersionId = KeyVersionId::from_bytes([9; 16]);

    fn lengths() -> [usize; 8] {
        [0, 1, 31, 255, 256, 65_535, 65_536, 70_000]
    }

    fn errors() -> Vec<ItemError> {
        vec![ItemError::new(3, Error::invalid_ciphertext()), ItemError::new(5, Error::key_not_found())]
    }

    #[test]
    fn an_encrypted_batch_is_byte_for_byte_what_serde_makes() {
        let items: Vec<_> = lengths().map(|length| vec![0xa5; length]).into();
        let mut fast = b"before".to_vec();
        let start = begin_batch(1 << 40, items.len(), &mut fast);
        assert_eq!(start.at(), 6);
        for (index, item) in items.iter().enumerate() {
            if index == 3 {
                write_nil(&mut fast);
                continue;
            }
            let before = fast.len();
            write_bin_header(item.len(), &mut fast);
            let (header, header_bytes) = bin_header(item.len());
            assert_eq!(fast[before..], header[..header_bytes]);
            fast.extend(item);
            assert_eq!(fast.len() - before, bin_bytes(item.len()));
        }
        finish_batch(start, &errors(), KEY, VERSION, &mut fast);

        let reply = Reply::BatchEncrypt(BatchEncryptReply {
            items: items
                .iter()
                .enumerate()
                .map(|(index, item)| (index != 3).then(|| Bin::from(&item[..])))
                .collect(),
            errors: errors(),
            key_id: KEY,
            key_version_id: VERSION,
        });
        let mut slow = b"before".to_vec();
        encode_reply(1 << 40, &reply, &mut slow);
        assert!(fast == slow);
    }

    #[test]
    fn a_decrypted_batch_is_byte_for_byte_what_serde_makes() {
        let key_index: Vec<_> = (0..300).map(|i| (i != 3).then_some(i % 200)).collect();
        let key_ids: Vec<_> = (0..200).map(|i| CmkId::from_bytes([i; 16])).collect();
        let mut fast = Vec::new();
        let start = begin_batch(5, key_index.len(), &mut fast);
        for index in &key_index {
            match index {
                Some(_) => {
                    write_bin_header(2, &mut fast);
                    fast.extend(b"ab");
                }
                None => write_nil(&mut fast),
            }
        }
        finish_batch_decrypt(start, &errors(), key_ids.iter().copied(), &key_index, &mut fast);

        let reply = Reply::BatchDecrypt(BatchDecryptReply {
            items: key_index.iter().map(|index| index.map(|_| Bin::from(&b"ab"[..]))).collect(),
            errors: errors(),
            key_ids,
            key_index,
        });
        let mut slow = Vec::new();
        encode_reply(5, &reply, &mut slow);
        assert!(fast == slow);
    }

    #[test]
    fn data_keys_are_pairs_byte_for_byte_as_serde_makes_them() {
        let mut fast = Vec::new();
        let start = begin_batch(5, 2, &mut fast);
        for plaintext in [Some(b"plain"), None] {
            write_pair_header(&mut fast);
            write_bin_header(4, &mut fast);
            fast.extend(b"blob");
            match plaintext {
                Some(plaintext) => {
                    write_bin_header(plaintext.len(), &mut fast);
                    fast.extend(plaintext);
                }
                None => write_nil(&mut fast),
            }
        }
        finish_batch(start, &[], KEY, VERSION, &mut fast);

        let blob = || Bin::from(&b"blob"[..]);
        let reply = Reply::BatchGenerateDataKey(BatchGenerateDataKeyReply {
            items: vec![Some((blob(), Some(Bin::from(&b"plain"[..])))), Some((blob(), None))],
            errors: vec![],
            key_id: KEY,
            key_version_id: VERSION,
        });
        let mut slow = Vec::new();
        encode_reply(5, &reply, &mut slow);
        assert!(fast == slow);
    }
}
