#![doc = include_str!("../README.md")]

/// Takes what is wanted out of the reply of an operation; any other reply ends the test.
macro_rules! take {
    ($name:ident, $reply:ident => $value:expr) => {
        |reply: Reply<'_>| match reply {
            Reply::$name($reply) => $value,
            other => panic!("answered as {:?}", other.operation()),
        }
    };
}

mod authorities;
mod authority;
mod bank;
mod caller;
mod captured;
mod certificates;
mod data_key_pairs;
mod export;
mod from;
mod history;
mod imports;
mod loads;
mod logs;
mod look;
mod managed;
mod openssl;
mod pairs;
mod policies;
mod proxy;
mod raw;
mod rotated;
mod rows;
mod secrets;
mod soft_hsm;
mod twin;

pub use authorities::{Scene, code, get, message, post, put_chain, text};
pub use authority::{Authority, Issued, Place};
pub use bank::{Bank, Instead, MARK};
pub use caller::{Answered, Caller, Items, Named, Opened, batch_encrypt, context};
pub use captured::{Captured, Web};
pub use certificates::Elsewhere;
pub use data_key_pairs::Halves;
pub use export::{Owner, Recipient};
pub use from::From;
pub use history::{Disabled, History, Used};
pub use imports::{Parameters, external, key_wrap};
pub use loads::{Ends, Load, let_in};
pub use logs::Logs;
pub use look::{audit_lines, eventually, files, find_in_files, metric, metrics, requests_of, verified};
pub use managed::Given;
pub use openssl::OpenSsl;
pub use pairs::Pair;
pub use policies::{GRANTED, named, policy, statement};
pub use proxy::Proxy;
pub use raw::{Raw, Told, sign};
pub use rotated::{Rotated, Strategy, ask_to_rotate, rotate, settled, stages};
pub use rows::Rows;
pub use secrets::{Value, create_secret, put_value};
pub use soft_hsm::{SoftHsm, workers_of};
