//! The instance gateway: Protocol Buffers over HTTP, signed by a client key, as the SDKs of dedicated instances speak. Its requests become
//! those of the catalogue, and replies and errors become its messages.
//!
//! In what this server differs: plain and advanced operations alike use the primary version of a symmetric key and make the one self-contained
//! ciphertext, which needs neither `Iv` nor `Algorithm` to be opened; key pairs, whose version a request cannot name, use their first one. `Iv`
//! is never the caller's, and what `AES_CBC`, `AES_ECB` and ECIES would do is not offered. A signature holds for as long as its date does, since
//! these requests carry no nonce: nothing here changes anything.

mod answer;
mod api;
mod ask;
pub mod error;
pub mod headers;
pub mod messages;

pub use answer::Form;
pub use api::{Api, Said};
pub use ask::Asked;
