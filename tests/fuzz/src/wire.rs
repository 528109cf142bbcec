//! The decoders of `keymill-wire`, and the one way by which a target picks an operation.

pub(crate) mod answer;
pub(crate) mod hello;
pub(crate) mod request;

use keymill_core::operation::Operation;
use keymill_wire::frame::LENGTH_BYTES;

/// Splits off the byte that picks the operation, and a bit for a second choice.
fn operation(bytes: &[u8]) -> Option<(Operation, bool, &[u8])> {
    let (choice, rest) = bytes.split_first()?;
    let operation = *Operation::ALL.get(usize::from(choice & 0x7f))?;
    Some((operation, choice & 0x80 != 0, rest))
}

/// Returns the byte that picks `operation`.
fn choice(operation: Operation, second: bool) -> u8 {
    let place = Operation::ALL.iter().position(|known| *known == operation).expect("it is one of all");
    u8::try_from(place).expect("there are few operations") | if second { 0x80 } else { 0 }
}

/// Takes the length off a frame that was written here.
fn without_length(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u32::from_be_bytes(*frame.first_chunk().expect("a frame begins with its length"));
    frame.drain(..LENGTH_BYTES);
    assert_eq!(frame.len(), length as usize);
    frame
}
