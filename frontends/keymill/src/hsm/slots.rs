//! `keymill hsm slots`: the slots of a module that hold a token, and what each is good for.

use std::fmt;

use clap::Args;
use serde::Serialize;

use super::{ModuleArgs, load, tokens};
use crate::failure::Result;
use crate::output::{self, Rows, or_dash};
use crate::plugins::pkcs11::module::{TokenInfo, number::CK_SLOT_ID};

/// List the slots of a module, with their tokens
#[derive(Args, Clone, Debug)]
pub(super) struct SlotsArgs {
    #[command(flatten)]
    module: ModuleArgs,
    /// Print the slots as JSON
    #[arg(long)]
    json: bool,
}

/// A slot as `--json` prints it.
#[derive(Serialize)]
struct Slot {
    slot: CK_SLOT_ID,
    #[serde(flatten)]
    token: Option<Token>,
    /// Why the token says nothing of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Token {
    label: String,
    manufacturer: String,
    model: String,
    serial: String,
    firmware: String,
    initialized: bool,
    login_required: bool,
    pin_set: bool,
    pin_final_try: bool,
    pin_locked: bool,
    open_sessions: Option<usize>,
    max_sessions: Option<usize>,
}

impl Token {
    pub(super) fn new(info: TokenInfo) -> Self {
        Self {
            label: info.label,
            manufacturer: info.manufacturer,
            model: info.model,
            serial: info.serial,
            firmware: info.firmware,
            initialized: info.initialized,
            login_required: info.login_required,
            pin_set: info.pin_set,
            pin_final_try: info.pin_final_try,
            pin_locked: info.pin_locked,
            open_sessions: info.open_sessions,
            max_sessions: info.max_sessions,
        }
    }

    /// Says in a word or two what the flags come to.
    fn state(&self) -> &'static str {
        match self {
            Self { initialized: false, .. } => "empty",
            Self { pin_locked: true, .. } => "PIN locked",
            Self { pin_final_try: true, .. } => "last PIN try",
            Self { pin_set: false, .. } => "no PIN set",
            Self { login_required: false, .. } => "no login needed",
            _ => "initialised",
        }
    }

    fn sessions(&self) -> String {
        match (self.open_sessions, self.max_sessions) {
            (Some(open), Some(limit)) => format!("{open} of {limit}"),
            (open, _) => or_dash(open),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, manufacturer, model, serial, firmware, .. } = self;
        write!(f, "{label}: {manufacturer} {model}, serial number {serial}, firmware {firmware}")
    }
}

/// Lists them.
pub(super) fn run(args: &SlotsArgs) -> Result<()> {
    let path = &args.module.module;
    let found = tokens(&load(path)?)?;
    let slots: Vec<Slot> = found
        .into_iter()
        .map(|(slot, info)| {
            let (token, failure) = match info {
                Ok(info) => (Some(Token::new(info)), None),
                Err(failure) => (None, Some(failure.to_string())),
            };
            Slot { slot, token, failure }
        })
        .collect();
    if args.json {
        return output::json(&slots);
    }
    let mut rows =
        Rows::new(&["slot", "token", "model", "serial", "firmware", "state", "sessions"]).numbers(&[0]);
    for Slot { slot, token, failure } in &slots {
        match token {
            Some(token) => {
                let label = if token.initialized { token.label.as_str() } else { "" };
                let (state, sessions) = (token.state(), token.sessions());
                let [label, model, serial, firmware] = [label, &token.model, &token.serial, &token.firmware]
                    .map(|text| if text.is_empty() { "-" } else { text });
                rows.add(&[slot, &label, &model, &serial, &firmware, &state, &sessions]);
            }
            None => rows.add(&[slot, &"-", &"-", &"-", &"-", &or_dash(failure.as_ref()), &"-"]),
        }
    }
    rows.print("no slot of this module holds a token: is the device connected, and the module's configuration found?")?;
    let advice = advice(&slots, &path.display().to_string());
    if !advice.is_empty() {
        output::line(format_args!("\n{}", advice.join("\n")))?;
    }
    Ok(())
}

/// Says what to do next, once for each state that wants something done.
fn advice(slots: &[Slot], module: &str) -> Vec<String> {
    let any = |state: &str| {
        slots.iter().any(|slot| slot.token.as_ref().is_some_and(|token| token.state() == state))
    };
    let mut advice = Vec::new();
    if slots.iter().any(|slot| slot.failure.is_some()) {
        advice.push(
            "a token that does not answer: look at the device, and at the vendor's own tool".to_owned(),
        );
    }
    if any("PIN locked") || any("last PIN try") || any("no PIN set") {
        advice.push(
            "PIN locked, at its last try, or not set: the security officer sets it, with the vendor's tool"
                .to_owned(),
        );
    }
    if any("initialised") {
        advice.push(format!("initialised: keymill hsm doctor --module {module} --token LABEL    examines a token that has keymill's keys"));
    }
    if any("empty") {
        advice.push(format!("empty:       keymill hsm init --module {module} --token LABEL      makes a token of the first empty slot"));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(change: impl FnOnce(&mut Token)) -> Slot {
        let mut token = Token {
            label: "t".into(),
            manufacturer: String::new(),
            model: String::new(),
            serial: String::new(),
            firmware: String::new(),
            initialized: true,
            login_required: true,
            pin_set: true,
            pin_final_try: false,
            pin_locked: false,
            open_sessions: Some(2),
            max_sessions: None,
        };
        change(&mut token);
        Slot { slot: 0, token: Some(token), failure: None }
    }

    #[test]
    fn the_worst_that_the_flags_say_is_shown_and_advised_upon() {
        for (slot, state, advised) in [
            (slot(|token| token.initialized = false), "empty", "hsm init"),
            (
                slot(|token| (token.pin_locked, token.pin_final_try) = (true, true)),
                "PIN locked",
                "security officer",
            ),
            (slot(|token| token.pin_final_try = true), "last PIN try", "security officer"),
            (slot(|token| token.pin_set = false), "no PIN set", "security officer"),
            (slot(|_| ()), "initialised", "hsm doctor"),
        ] {
            assert_eq!(slot.token.as_ref().unwrap().state(), state);
            let advice = advice(&[slot], "m.so");
            assert!(advice.len() == 1 && advice[0].contains(advised), "{advice:?}");
        }
        let silent = Slot { slot: 1, token: None, failure: Some("C_GetTokenInfo returned …".into()) };
        assert!(advice(&[silent], "m.so")[0].contains("does not answer"));
    }

    #[test]
    fn sessions_are_shown_as_far_as_the_token_tells() {
        let shown = |open, limit| {
            let slot = slot(|token| (token.open_sessions, token.max_sessions) = (open, limit));
            slot.token.unwrap().sessions()
        };
        assert_eq!(
            [shown(Some(2), Some(8)), shown(Some(2), None), shown(None, Some(8))],
            ["2 of 8", "2", "-"]
        );
    }
}
