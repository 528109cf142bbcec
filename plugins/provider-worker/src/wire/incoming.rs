//! Receives one message into a buffer that is kept: it grows as bytes arrive, never by a length that was only announced.

use std::fmt;
use std::io::{self, Read};
use std::time::Instant;

use zeroize::Zeroizing;

use super::{Garbled, HEADER_BYTES, Header};

/// Bytes of the buffer at first: most control messages fit.
const FIRST_BYTES: usize = 4 * 1024;
/// Bytes of the buffer that are kept from message to message, at most.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// A buffer that messages arrive in, wiped after each and when dropped.
#[derive(Default)]
pub struct Incoming {
    buffer: Zeroizing<Vec<u8>>,
    used: usize,
}

impl Incoming {
    /// Receives one message; the other side sends no next before it has an answer.
    ///
    /// # Errors
    /// [`ReceiveError`]; nothing more is to be received then.
    pub fn receive(
        &mut self,
        from: &mut impl Read,
        deadline: Option<Instant>,
    ) -> Result<Header, ReceiveError> {
        self.wipe();
        let mut header = None;
        loop {
            if let Some(bytes) = self.buffer[..self.used].first_chunk()
                && header.is_none()
            {
                header = Some(Header::parse(bytes)?);
            }
            let need = header.map(|header| HEADER_BYTES + header.body_bytes);
            match need {
                Some(need) if self.used == need => return Ok(header.expect("it was read")),
                Some(need) if self.used > need => {
                    return Err(Garbled("two messages in the place of one").into());
                }
                _ => {}
            }
            if self.used == self.buffer.len() {
                // As much again as has arrived.
                let room = (2 * self.used).max(FIRST_BYTES);
                self.grow(need.map_or(room, |need| room.min(need)));
            }
            match from.read(&mut self.buffer[self.used..]) {
                Ok(0) => return Err(ReceiveError::Ended),
                Ok(read) => self.used += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(ReceiveError::Late);
                }
                Err(_) => return Err(ReceiveError::Ended),
            }
            if deadline.is_some_and(|deadline| {
                self.used < HEADER_BYTES.max(need.unwrap_or(0)) && Instant::now() > deadline
            }) {
                return Err(ReceiveError::Late);
            }
        }
    }

    /// Returns the body of the message that was received last.
    pub fn body(&self) -> &[u8] {
        self.buffer.get(HEADER_BYTES..self.used).unwrap_or(&[])
    }

    /// Lends the whole buffer, header and all, to whoever works in it; [`Incoming::put_back`] takes it again.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.buffer)
    }

    /// Takes the buffer back.
    pub(crate) fn put_back(&mut self, buffer: Vec<u8>) {
        self.buffer = Zeroizing::new(buffer);
    }

    /// Wipes what the last message left.
    pub fn wipe(&mut self) {
        let used = std::mem::take(&mut self.used).min(self.buffer.len());
        self.buffer[..used].fill(0);
        if self.buffer.len() > KEPT_BYTES {
            self.buffer = Zeroizing::default();
        }
    }

    /// Grows by copying and wiping: a vector that grows by itself leaves what it held behind.
    fn grow(&mut self, bytes: usize) {
        let mut grown = vec![0; bytes];
        grown[..self.used].copy_from_slice(&self.buffer[..self.used]);
        self.buffer.fill(0);
        *self.buffer = grown;
    }
}

/// Why there is no message.
#[derive(Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// The other side is gone.
    Ended,
    /// It did not come in time.
    Late,
    /// What came is no message.
    Garbled(Garbled),
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiveError::Ended => f.write_str("the connection ended"),
            ReceiveError::Late => f.write_str("no answer came in time"),
            ReceiveError::Garbled(garbled) => garbled.fmt(f),
        }
    }
}

impl std::error::Error for ReceiveError {}

impl From<Garbled> for ReceiveError {
    fn from(garbled: Garbled) -> Self {
        ReceiveError::Garbled(garbled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Kind, begin, finish};

    /// Gives its bytes a few at a time.
    struct Dripping<'a>(&'a [u8], usize);

    impl Read for Dripping<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let drop = self.1.min(out.len());
            self.0.read(&mut out[..drop])
        }
    }

    fn message(body: usize) -> Vec<u8> {
        let mut message = Vec::new();
        begin(&mut message);
        message.extend((0..body).map(|i| i as u8 | 1));
        finish(&mut message, Kind::Bytes, 7, 0);
        message
    }

    #[test]
    fn a_message_arrives_whole_however_it_is_cut() {
        let mut incoming = Incoming::default();
        for body in [0, 1, FIRST_BYTES - HEADER_BYTES, FIRST_BYTES, 100_000] {
            for drop in [1, 15, 17, 1000, usize::MAX] {
                let message = message(body);
                let header = incoming.receive(&mut Dripping(&message, drop), None).unwrap();
                assert_eq!((header.kind, header.tag, header.body_bytes), (Kind::Bytes, 7, body));
                assert_eq!(incoming.body(), &message[HEADER_BYTES..]);
            }
        }
    }

    #[test]
    fn an_end_a_surplus_and_an_announced_length_are_told_apart() {
        let mut incoming = Incoming::default();
        let whole = message(50);
        assert_eq!(incoming.receive(&mut &whole[..60], None), Err(ReceiveError::Ended));
        let two = [&whole[..], &[0]].concat();
        assert!(matches!(incoming.receive(&mut &two[..], None), Err(ReceiveError::Garbled(_))));
        let huge = Header { kind: Kind::Bytes, body_bytes: super::super::MAX_BODY_BYTES, tag: 0 }.to_bytes();
        let mut fresh = Incoming::default();
        assert_eq!(fresh.receive(&mut &huge[..], None), Err(ReceiveError::Ended));
        assert_eq!(fresh.buffer.len(), FIRST_BYTES, "nothing is allocated by an announcement");
    }

    #[test]
    fn nothing_of_a_message_is_left_behind_the_next() {
        let mut incoming = Incoming::default();
        incoming.receive(&mut &message(3000)[..], None).unwrap();
        incoming.wipe();
        assert!(incoming.body().is_empty());
        assert!(incoming.buffer.iter().all(|byte| *byte == 0));
    }
}
