//! What parent and worker say to each other: what is read is written again to the same bytes, or to what reads alike, and no length
//! is believed before it is there.

pub(crate) mod answer;
pub(crate) mod request;

use keymill_provider_worker::wire::{Header, Incoming};

use crate::memory::{room, within};

/// Receives one message at once and in reads of some bytes, and returns its header and body.
fn received(message: &[u8], read: u8) -> Option<(Header, Vec<u8>)> {
    let at_once = receive(&mut &message[..], message.len());
    let in_reads = receive(&mut Reads(message, usize::from(read).max(1)), message.len());
    // A surplus that has not arrived yet is one all the same, at the next message.
    if at_once.is_some() {
        assert_eq!(at_once, in_reads);
    }
    at_once
}

fn receive(from: &mut impl std::io::Read, bytes: usize) -> Option<(Header, Vec<u8>)> {
    within(room(bytes), || {
        let mut incoming = Incoming::default();
        let header = incoming.receive(from, None).ok()?;
        assert_eq!(incoming.body().len(), header.body_bytes);
        Some((header, incoming.body().to_vec()))
    })
}

/// Gives some bytes at a time.
struct Reads<'a>(&'a [u8], usize);

impl std::io::Read for Reads<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.1.min(out.len());
        self.0.read(&mut out[..bytes])
    }
}
