//! `keymill hsm status`, `drain` and `enable`: the tokens of a running server, how they are, and which of them serve.

use clap::Args;
use keymill_core::operation::{DrainTokenRequest, EnableTokenRequest, ListTokensRequest};

use crate::admin::{Api, ClientArgs, ask};
use crate::failure::Result;
use crate::output::{self, Rows, grouped, or_dash};

/// Show the tokens of a running server: which serve, with how many sessions, and what went wrong last
///
/// Under `in_flight = "feedback"`, which is the default, only so many of a token's sessions are at work as are seen to do most; the others
/// rest, and stand in for those that are lost. The generation is how often the token was connected.
#[derive(Args, Clone, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// Take a token of a running server out of service: it finishes what it has, and is given nothing more
#[derive(Args, Clone, Debug)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    named: Named,
}

/// Take a token of a running server into service again
///
/// A token that refused to be connected, as one does whose PIN is wrong, is tried once more.
#[derive(Args, Clone, Debug)]
pub(super) struct EnableArgs {
    #[command(flatten)]
    named: Named,
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// The name that the server's configuration gives it
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn status(args: &StatusArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    let reply = ask!(api, ListTokens, ListTokensRequest::default());
    if api.json {
        return output::json(&reply);
    }
    let head = [
        "token",
        "state",
        "sessions",
        "at work",
        "oldest",
        "generation",
        "hung",
        "lost",
        "items",
        "µs an item",
        "keys loaded",
        "last trouble",
    ];
    let mut rows = Rows::new(&head).numbers(&[3, 4, 5, 6, 7, 8, 9, 10]);
    for token in &reply.tokens {
        rows.add(&[
            &token.token_name,
            &token.state,
            &format!("{} of {}", token.sessions, token.sessions_wanted),
            &grouped(token.sessions_at_work),
            &or_dash(token.oldest_session_seconds.map(age).as_deref()),
            &grouped(token.generation),
            &grouped(token.hung_calls),
            &grouped(token.sessions_lost),
            &grouped(token.items),
            &format!("{:.1}", token.nanoseconds_per_item as f64 / 1e3),
            &grouped(token.keys_loaded),
            &or_dash(token.reason.as_deref()),
        ]);
    }
    rows.print("the pool of this server has no token")
}

/// Returns an age in the unit in which it is a small number.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

pub(super) fn drain(args: DrainArgs) -> Result<()> {
    let Named { name, client } = args.named;
    let api = Api::connect(&client)?;
    let request = DrainTokenRequest { token_name: name.clone(), timeout_ms: None };
    let reply = ask!(api, DrainToken, request);
    api.done(
        &reply,
        format_args!(
            "token {name} finishes what it has, and is given nothing more\n`keymill hsm enable {name}` takes it into service again"
        ),
    )
}

pub(super) fn enable(args: EnableArgs) -> Result<()> {
    let Named { name, client } = args.named;
    let api = Api::connect(&client)?;
    let reply = ask!(api, EnableToken, EnableTokenRequest { token_name: name.clone(), timeout_ms: None });
    api.done(&reply, format_args!("token {name} is in service; `keymill hsm status` shows when it is up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_the_unit_that_suits_it() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(age);
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
