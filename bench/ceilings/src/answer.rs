//! What the bare loop does with one frame: walks the request on borrowed bytes and writes the answer of the same
//! shape as keymill's in the same pass, sealing each item where it is sent from. Echo mode copies where seal
//! mode seals and opens, so that both write frames of the same length.

use std::sync::Arc;

use aws_lc_rs::aead::LessSafeKey;

use crate::Mode;
use crate::pack::{Output, Reader};
use crate::raw::{self, HEADER_LEN, NONCE_LEN, OVERHEAD};

const KEY_ID: &str = "6b6d0000-0000-4000-8000-000000000001";
const KEY_VERSION_ID: &str = "6b6d0000-0000-4000-8000-000000000002";
const REQUEST_ID: &str = "6b6d0000-0000-4000-8000-000000000003";

/// Format 1, algorithm 1 (its subkey stands in for XAES), the UUID of `KEY_ID`, CMK version 1.
const HEADER: [u8; HEADER_LEN] =
    [0x01, 0x01, 0x6b, 0x6d, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];

/// The header and the canonical form of the empty encryption context (a count of 0).
const AAD: [u8; HEADER_LEN + 4] = {
    let mut aad = [0; HEADER_LEN + 4];
    let mut at = 0;
    while at < HEADER_LEN {
        aad[at] = HEADER[at];
        at += 1;
    }
    aad
};

/// Writes the first frame of a connection.
pub(crate) fn challenge(out: &mut Output) {
    let frame = out.begin_frame();
    out.array(3);
    out.uint(0);
    out.str("Challenge");
    out.map(5);
    out.str("Version");
    out.uint(1);
    out.str("Nonce");
    out.bin(32).fill(0);
    out.str("Server");
    out.str("bare-loop");
    out.str("MaxFrame");
    out.uint(16 << 20);
    out.str("MaxInFlight");
    out.uint(1024);
    out.end_frame(frame);
}

/// Writes the answer to a hello, whoever it is from.
pub(crate) fn welcome(out: &mut Output) {
    let frame = out.begin_frame();
    begin_answer(out, 0, 1);
    out.str("Principal");
    out.str("anyone");
    out.end_frame(frame);
}

/// Seals, opens or copies the items of one connection.
pub(crate) struct Answerer {
    mode: Mode,
    key: Arc<LessSafeKey>,
    /// The half of the nonce that belongs to this connection.
    lane: u32,
    sealed: u64,
}

impl Answerer {
    pub(crate) fn new(mode: Mode, key: Arc<LessSafeKey>, lane: u32) -> Self {
        Self { mode, key, lane, sealed: 0 }
    }

    /// Writes the answer to the request in `frame`; `None` if it is none that the loop knows, or a tag is wrong.
    pub(crate) fn answer(&mut self, frame: &[u8], out: &mut Output) -> Option<()> {
        let mut request = Reader::new(frame);
        if request.array()? != 3 {
            return None;
        }
        let id = request.uint()?;
        let operation = request.str()?;
        let start = out.begin_frame();
        match operation {
            b"BatchEncrypt" => self.batch_encrypt(id, &mut request, out)?,
            b"BatchDecrypt" => self.batch_decrypt(id, &mut request, out)?,
            b"Encrypt" => self.encrypt(id, &mut request, out)?,
            b"Decrypt" => self.decrypt(id, &mut request, out)?,
            _ => return None,
        }
        out.end_frame(start);
        request.is_empty().then_some(())
    }

    fn batch_encrypt(&mut self, id: u64, request: &mut Reader<'_>, out: &mut Output) -> Option<()> {
        begin_answer(out, id, 4);
        parameters(request, b"Items", |request| {
            let items = request.array()?;
            out.str("Items");
            out.array(items);
            for _ in 0..items {
                self.seal(request.bin()?, out);
            }
            Some(())
        })?;
        out.str("Errors");
        out.array(0);
        key(out);
        Some(())
    }

    fn batch_decrypt(&self, id: u64, request: &mut Reader<'_>, out: &mut Output) -> Option<()> {
        begin_answer(out, id, 4);
        parameters(request, b"Items", |request| {
            let items = request.array()?;
            out.str("Items");
            out.array(items);
            for _ in 0..items {
                self.open(request.bin()?, out)?;
            }
            out.str("KeyIndex");
            out.array(items);
            out.zeros(items);
            Some(())
        })?;
        out.str("Errors");
        out.array(0);
        out.str("KeyIds");
        out.array(1);
        out.str(KEY_ID);
        Some(())
    }

    fn encrypt(&mut self, id: u64, request: &mut Reader<'_>, out: &mut Output) -> Option<()> {
        begin_answer(out, id, 4);
        parameters(request, b"Plaintext", |request| {
            out.str("CiphertextBlob");
            self.seal(request.bin()?, out);
            Some(())
        })?;
        key(out);
        request_id(out);
        Some(())
    }

    fn decrypt(&self, id: u64, request: &mut Reader<'_>, out: &mut Output) -> Option<()> {
        begin_answer(out, id, 4);
        parameters(request, b"CiphertextBlob", |request| {
            out.str("Plaintext");
            self.open(request.bin()?, out)
        })?;
        key(out);
        request_id(out);
        Some(())
    }

    #[inline]
    fn seal(&mut self, plaintext: &[u8], out: &mut Output) {
        let blob = out.bin(plaintext.len() + OVERHEAD);
        let nonce = raw::nonce(self.lane, self.sealed);
        self.sealed += 1;
        match self.mode {
            Mode::Seal => raw::seal_blob(&self.key, &HEADER, &AAD, nonce, plaintext, blob),
            Mode::Echo => {
                let (body, tag) = raw::frame_blob(&HEADER, nonce, plaintext.len(), blob);
                body.copy_from_slice(plaintext);
                tag.fill(0);
            }
        }
    }

    #[inline]
    fn open(&self, blob: &[u8], out: &mut Output) -> Option<()> {
        let plaintext = out.bin(blob.len().checked_sub(OVERHEAD)?);
        match self.mode {
            Mode::Seal => raw::open_blob(&self.key, &AAD, blob, plaintext).ok(),
            Mode::Echo => {
                let body = &blob[HEADER_LEN + NONCE_LEN..];
                plaintext.copy_from_slice(&body[..plaintext.len()]);
                Some(())
            }
        }
    }
}

/// Walks the parameters, hands the one called `name` to `each`, and passes over those that change nothing here.
fn parameters<'a>(
    request: &mut Reader<'a>,
    name: &[u8],
    mut each: impl FnMut(&mut Reader<'a>) -> Option<()>,
) -> Option<()> {
    let mut found = 0;
    for _ in 0..request.map()? {
        match request.str()? {
            b"KeyId" => {
                request.str()?;
            }
            b"TimeoutMs" => {
                request.uint()?;
            }
            // An encryption context would have to be sealed in: a loop that ignored it would flatter itself.
            key if key == name => {
                each(request)?;
                found += 1;
            }
            _ => return None,
        }
    }
    (found == 1).then_some(())
}

fn begin_answer(out: &mut Output, id: u64, pairs: u8) {
    out.array(3);
    out.uint(id);
    out.uint(0);
    out.map(pairs);
}

fn key(out: &mut Output) {
    out.str("KeyId");
    out.str(KEY_ID);
    out.str("KeyVersionId");
    out.str(KEY_VERSION_ID);
}

fn request_id(out: &mut Output) {
    out.str("RequestId");
    out.str(REQUEST_ID);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(operation: &str, field: &str, payload: &[u8]) -> Vec<u8> {
        let mut out = Output::default();
        out.array(3);
        out.uint(9);
        out.str(operation);
        out.map(2);
        out.str("KeyId");
        out.str("alias/people");
        out.str(field);
        out.bin(payload.len()).copy_from_slice(payload);
        out.filled().to_vec()
    }

    fn answerer(mode: Mode) -> Answerer {
        Answerer::new(mode, Arc::new(raw::fresh_key()), 1)
    }

    #[test]
    fn a_single_blob_has_the_layout_of_the_format_and_opens_again() {
        let mut answerer = answerer(Mode::Seal);
        let mut out = Output::default();
        answerer.answer(&request("Encrypt", "Plaintext", &[5; 100]), &mut out).unwrap();
        let mut answer = Reader::new(&out.filled()[4..]);
        assert_eq!(
            (answer.array(), answer.uint(), answer.uint(), answer.map()),
            (Some(3), Some(9), Some(0), Some(4))
        );
        assert_eq!(answer.str(), Some(b"CiphertextBlob".as_slice()));
        let blob = answer.bin().unwrap().to_vec();
        assert_eq!(blob.len(), 22 + 24 + 100 + 16);
        assert_eq!(blob[..2], [1, 1]);
        assert_ne!(blob[46..146], [5; 100]);

        out.clear();
        answerer.answer(&request("Decrypt", "CiphertextBlob", &blob), &mut out).unwrap();
        let mut answer = Reader::new(&out.filled()[4..]);
        assert_eq!(
            (answer.array(), answer.uint(), answer.uint(), answer.map()),
            (Some(3), Some(9), Some(0), Some(4))
        );
        assert_eq!(answer.str(), Some(b"Plaintext".as_slice()));
        assert_eq!(answer.bin(), Some([5; 100].as_slice()));
    }

    #[test]
    fn a_blob_with_a_wrong_tag_or_too_short_ends_the_connection() {
        let mut answerer = answerer(Mode::Seal);
        let blob = [0; 200];
        assert!(
            answerer.answer(&request("Decrypt", "CiphertextBlob", &blob), &mut Output::default()).is_none()
        );
        for mode in [Mode::Seal, Mode::Echo] {
            let mut answerer = self::answerer(mode);
            let short = request("Decrypt", "CiphertextBlob", &[0; OVERHEAD - 1]);
            assert!(answerer.answer(&short, &mut Output::default()).is_none());
        }
    }

    #[test]
    fn an_encryption_context_is_refused_rather_than_left_out_of_the_seal() {
        let mut answerer = answerer(Mode::Seal);
        let frame = request("Encrypt", "EncryptionContext", &[]);
        assert!(answerer.answer(&frame, &mut Output::default()).is_none());
    }
}
