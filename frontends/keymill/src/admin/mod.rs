//! The commands that manage keys, aliases, data keys, secrets, access keys and applications: each is one or a few requests to a server, by MessagePack TCP where its
//! address is known and by HTTP otherwise, and prints the reply as a person reads it or as the API sent it.

pub(crate) mod aap;
pub(crate) mod access_key;
pub(crate) mod alias;
pub(crate) mod approval;
pub(crate) mod ca;
pub(crate) mod cert;
pub(crate) mod data_key;
pub(crate) mod import;
pub(crate) mod instance;
pub(crate) mod keeping;
pub(crate) mod key;
pub(crate) mod login;
pub(crate) mod policy;
pub(crate) mod role;
pub(crate) mod secret;

use std::fmt;
use std::time::Duration;

use clap::Args;
use keymill_client::{Client, Credentials, HttpClient, HttpReply, OwnedReply};
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::limit;
use keymill_core::operation::{DescribeKeyRequest, Operation, Reply, Request};
use serde::Serialize;

use crate::credentials::{ServerArgs, Target};
use crate::failure::{Failure, Result};
use crate::output;

/// The flags of every command that prints what the server answers.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClientArgs {
    /// Print the API's reply as JSON
    #[arg(long, global = true)]
    json: bool,
    // Last, since its heading holds for all that follows.
    #[command(flatten)]
    server: ServerArgs,
}

/// A server to ask, and how to print what it says.
pub(crate) struct Api {
    way: Way,
    /// Whether replies are printed as JSON.
    pub(crate) json: bool,
}

enum Way {
    Tcp(Client),
    Http(HttpClient, Credentials),
}

/// A reply in the bytes that it came in.
pub(crate) enum Answered {
    Tcp(OwnedReply),
    Http(HttpReply),
}

impl Answered {
    /// Reads the reply.
    pub(crate) fn reply(&self) -> Result<Reply<'_>> {
        Ok(match self {
            Answered::Tcp(reply) => reply.reply()?,
            Answered::Http(reply) => reply.reply()?,
        })
    }
}

/// Sends a request and takes its reply, which is of the same name.
macro_rules! ask {
    ($api:expr, $name:ident, $request:expr) => {{
        let answered = $api.call($request)?;
        match answered.reply()? {
            keymill_core::operation::Reply::$name(reply) => reply,
            other => return Err($crate::admin::of_another(other.operation())),
        }
    }};
}
pub(crate) use ask;

/// Sends a request for each page of a list, and takes the rows of all of them in the reply of the first.
macro_rules! ask_all {
    ($api:expr, $name:ident, $rows:ident $(. $inner:ident)?, |$number:ident, $size:ident| $request:expr) => {{
        let (mut $number, $size) = (Some(1), Some(keymill_core::limit::PAGE_SIZE));
        let mut all = $crate::admin::ask!($api, $name, $request);
        while (all.$rows$(.$inner)?.len() as u64) < all.total_count {
            $number = $number.map(|number| number + 1);
            let mut next = $crate::admin::ask!($api, $name, $request);
            // The list may grow shorter as we read it.
            if next.$rows$(.$inner)?.is_empty() {
                break;
            }
            all.$rows$(.$inner)?.append(&mut next.$rows$(.$inner)?);
        }
        all.page_size = all.$rows$(.$inner)?.len() as u32;
        all
    }};
}
pub(crate) use ask_all;

pub(crate) fn of_another(operation: Operation) -> Failure {
    Failure::new(format!("the server answered with the reply of {}", operation.name()))
}

impl Api {
    /// Finds the server and connects to it.
    pub(crate) fn connect(args: &ClientArgs) -> Result<Self> {
        Self::to(Target::find(&args.server)?, args.json)
    }

    /// Connects to a server.
    pub(crate) fn to(target: Target, json: bool) -> Result<Self> {
        let Target { tcp, url, tls, credentials } = target;
        let way = match (tcp, url) {
            (Some(tcp), _) => Way::Tcp(Client::connect(tcp.config(credentials, 1))?),
            (None, Some(urls)) => {
                let timeout = Duration::from_millis(limit::DEFAULT_TIMEOUT_MS) + Duration::from_secs(2);
                Way::Http(HttpClient::of_cluster(&urls, timeout, tls.as_ref())?, credentials)
            }
            (None, None) => return Err(Failure::wrong_use("no address of a server")),
        };
        Ok(Self { way, json })
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn call<'a>(&self, request: impl Into<Request<'a>>) -> Result<Answered> {
        Ok(match &self.way {
            Way::Tcp(client) => Answered::Tcp(client.call(request)?),
            Way::Http(client, credentials) => Answered::Http(client.call(request, credentials)?),
        })
    }

    /// Prints the reply of an operation that only does something: as it is, or as a sentence.
    pub(crate) fn done(&self, reply: &impl Serialize, sentence: impl fmt::Display) -> Result<()> {
        match self.json {
            true => output::json(reply),
            false => output::line(sentence),
        }
    }

    /// Returns the id of a key: most operations take no alias, as in the cloud's API.
    pub(crate) fn key_id(&self, key: KeyRef) -> Result<CmkId> {
        match key {
            KeyRef::Id(id) => Ok(id),
            key_id => Ok(ask!(self, DescribeKey, DescribeKeyRequest { key_id, timeout_ms: None })
                .key_metadata
                .key_id),
        }
    }
}

/// Reads the name of a key from a command line: an id, an ARN or an alias.
pub(crate) fn parse_key(text: &str) -> Result<KeyRef, String> {
    match KeyRef::parse(text) {
        KeyRef::Unknown => Err("a key is named by its id, its ARN, or alias/NAME".to_owned()),
        key => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_name_no_key_is_refused_before_it_is_sent() {
        assert!(parse_key("alias/people").is_ok());
        assert!(parse_key("0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9").is_ok());
        assert!(parse_key("people").is_err());
    }
}
