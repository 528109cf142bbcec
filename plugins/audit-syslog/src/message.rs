//! RFC 5424 messages: one audit line each, with what a receiver filters by as structured data.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::Config;

/// The facility of messages, 0 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// Returns the facility of that number, where there is one.
    pub fn new(number: u8) -> Option<Self> {
        (number <= 23).then_some(Self(number))
    }

    /// Returns its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Log audit.
impl Default for Facility {
    fn default() -> Self {
        Self(13)
    }
}

const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFORMATIONAL: u8 = 6;

/// What all messages begin with, and how long they may be.
pub(crate) struct Header {
    facility: Facility,
    host: String,
    process: u32,
    enterprise: u32,
    max_bytes: usize,
}

/// What a receiver may want to filter by.
#[derive(Deserialize)]
struct Fields<'a> {
    seq: u64,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    request: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    principal: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    frontend: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    operation: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    outcome: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    note: Option<Cow<'a, str>>,
}

impl Header {
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let host = config.host.clone();
        // RFC 5424 §6.2.4: up to 255 printable characters without a blank.
        if !(1..=255).contains(&host.len()) || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the name of this node is not 1 to 255 printable ASCII characters".into());
        }
        let Config { facility, enterprise, max_message_bytes: max_bytes, .. } = *config;
        Ok(Self { facility, host, process: std::process::id(), enterprise, max_bytes })
    }

    /// Appends the message of a line to `out`, its length in octets before it (RFC 6587 §3.4.1).
    pub(crate) fn frame(&self, chain: &str, line: &[u8], out: &mut Vec<u8>) {
        let message = self.message(chain, line);
        out.extend_from_slice(message.len().to_string().as_bytes());
        out.push(b' ');
        out.extend_from_slice(message.as_bytes());
    }

    fn message(&self, chain: &str, line: &[u8]) -> String {
        let fields = serde_json::from_slice::<Fields<'_>>(line).ok();
        let severity = fields.as_ref().map_or(WARNING, severity);
        let (time, kind) = match &fields {
            Some(fields) => (word(&fields.time, 32), word(&fields.kind, 32)),
            None => ("-".into(), "-".into()),
        };
        let text = &line[..line.len().min(self.max_bytes)];
        let mut message = String::with_capacity(text.len() + 512);
        let priority = self.facility.0 * 8 + severity;
        let Self { host, process, enterprise, .. } = self;
        let _infallible =
            write!(message, "<{priority}>1 {time} {host} keymill {process} {kind} [keymill@{enterprise}");
        parameter(&mut message, "chain", chain);
        if let Some(fields) = &fields {
            parameter(&mut message, "seq", &fields.seq.to_string());
            for (name, value) in [
                ("request", &fields.request),
                ("principal", &fields.principal),
                ("source", &fields.source),
                ("frontend", &fields.frontend),
                ("operation", &fields.operation),
                ("outcome", &fields.outcome),
                ("note", &fields.note),
            ] {
                if let Some(value) = value {
                    parameter(&mut message, name, value);
                }
            }
        }
        if text.len() < line.len() {
            parameter(&mut message, "cut", "true");
        }
        message.push_str("] ");
        // Lines are printable ASCII; whatever else lies in one does not pass.
        message.extend(
            text.iter().map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' }),
        );
        message
    }
}

fn severity(fields: &Fields<'_>) -> u8 {
    match (&*fields.kind, fields.outcome.as_deref(), fields.note.as_deref()) {
        ("request", Some("ok"), _) => INFORMATIONAL,
        ("request", ..) => NOTICE,
        ("note", _, Some("gap" | "shed" | "clock-jump")) => WARNING,
        ("note", ..) => NOTICE,
        _ => INFORMATIONAL,
    }
}

/// Returns a text as a word of the header.
fn word(text: &str, max: usize) -> String {
    let word: String = text.chars().filter(char::is_ascii_graphic).take(max).collect();
    if word.is_empty() { "-".into() } else { word }
}

/// Appends a parameter. RFC 5424 §6.3.3: `"`, `\` and `]` are escaped; a control character would be let through by that, and is not here.
fn parameter(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '"' | '\\' | ']' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            // As JSON has it, with the backslash escaped as any other.
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _infallible = write!(out, "\\\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transport;

    fn header(max_message_bytes: usize) -> Header {
        let config =
            Config { host: "node-1".into(), max_message_bytes, ..Config::new("h:1", Transport::Tcp) };
        Header { process: 7, ..Header::new(&config).unwrap() }
    }

    #[test]
    fn a_line_is_a_message_with_its_length_before_it() {
        let line = br#"{"seq":2,"time":"2026-11-24T05:30:17.012Z","type":"request","request":"r","principal":null,"operation":"Encrypt","outcome":"ok","mac":"00"}"#;
        let mut out = Vec::new();
        header(1024).frame("chain-1", line, &mut out);
        let text = String::from_utf8(out).unwrap();
        let message = format!(
            "<110>1 2026-11-24T05:30:17.012Z node-1 keymill 7 request [keymill@32473 chain=\"chain-1\" seq=\"2\" request=\"r\" operation=\"Encrypt\" outcome=\"ok\"] {}",
            std::str::from_utf8(line).unwrap()
        );
        assert_eq!(text, format!("{} {message}", message.len()));
    }

    #[test]
    fn refusals_and_gaps_are_louder_than_what_went_well() {
        let priority = |rest: &str| {
            let line = format!("{{\"seq\":1,\"time\":\"t\",{rest}}}");
            header(1024).message("c", line.as_bytes()).split_once('>').unwrap().0.to_owned()
        };
        assert_eq!(priority("\"type\":\"request\",\"outcome\":\"Denied\""), "<109");
        assert_eq!(priority("\"type\":\"note\",\"note\":\"shed\""), "<108");
        assert_eq!(priority("\"type\":\"note\",\"note\":\"strangers\""), "<109");
        assert_eq!(priority("\"type\":\"checkpoint\""), "<110");
    }

    #[test]
    fn texts_of_callers_end_no_parameter_and_no_message() {
        let odd = "a\\\"]\\n\\u001b[2J\\u202e\\u009b\\ud83d\\ude00 b";
        let line = format!(
            "{{\"seq\":1,\"time\":\"t\\n x\",\"type\":\"request\",\"operation\":\"{}\",\"outcome\":\"ok\"}}",
            odd
        );
        let message = header(4096).message("c", line.as_bytes());
        assert!(message.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{message}");
        assert!(
            message.contains(r#"operation="a\"\]\\u000a\\u001b[2J\\u202e\\u009b\\ud83d\\ude00 b" outcome="#),
            "{message}"
        );
        assert!(message.starts_with("<110>1 tx node-1"), "{message}");
    }

    #[test]
    fn a_long_line_is_cut_and_says_so_and_no_line_at_all_is_sent_all_the_same() {
        let line = format!("{{\"seq\":1,\"time\":\"t\",\"type\":\"note\",\"note\":\"{}\"}}", "x".repeat(10));
        let message = header(20).message("c", line.as_bytes());
        assert!(message.contains(" cut=\"true\"] ") && message.ends_with(&line[..20]), "{message}");
        let message = header(20).message("c", b"\x00\xff\n");
        assert!(
            message.starts_with("<108>1 - node-1 keymill 7 - [keymill@32473 chain=\"c\"] ???"),
            "{message}"
        );
    }

    #[test]
    fn a_name_that_is_no_word_is_refused() {
        for host in ["", "two words", "é", &"x".repeat(256)] {
            let config = Config { host: host.into(), ..Config::new("h:1", Transport::Tcp) };
            assert!(Header::new(&config).is_err(), "{host}");
        }
        assert_eq!((Facility::new(24), Facility::new(23).map(Facility::number)), (None, Some(23)));
    }
}
