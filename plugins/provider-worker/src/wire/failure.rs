//! Errors on their way to the parent: their kind, their text, the code that the device returned, and whether an operator must act.

use keymill_core::seam::provider::{Cause, FailureCode, ProviderError, SessionLost};

use super::Garbled;
use super::reader::{Reader, put_bytes};

/// Bytes of a text, at most; a longer one is cut.
const TEXT_BYTES: usize = 1024;

/// Why something was not done.
#[derive(Debug)]
pub struct Failed {
    /// The error.
    pub error: ProviderError,
    /// Whether no other try may be made before an operator has acted: a PIN was refused.
    pub needs_operator: bool,
}

impl Failed {
    /// Writes the body of a `Failed`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, code, text) = match &self.error {
            ProviderError::Rejected(text) => (1, None, text),
            ProviderError::Unavailable(cause) => (2, cause.code, &cause.reason),
            ProviderError::Corrupt(text) => (3, None, text),
        };
        out.extend([kind, u8::from(self.needs_operator), code_byte(code)]);
        put_bytes(out, cut(text).as_bytes());
    }

    /// Reads the body of a `Failed`.
    ///
    /// # Errors
    /// [`Garbled`] where it is none.
    pub fn decode(body: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(body);
        let [kind, needs_operator, code] = reader.array()?;
        let code = read_code(code)?;
        let text = shown(reader.text()?);
        reader.finish()?;
        let error = match kind {
            1 if code.is_none() => ProviderError::Rejected(text),
            2 => ProviderError::Unavailable(Cause { reason: text, code }),
            3 if code.is_none() => ProviderError::Corrupt(text),
            _ => return Err(Garbled("an error of no kind")),
        };
        match needs_operator {
            0 | 1 => Ok(Self { error, needs_operator: needs_operator == 1 }),
            _ => Err(Garbled("a flag that is neither set nor not")),
        }
    }
}

/// Writes whether a session lives, and why not.
pub(crate) fn put_lost(out: &mut Vec<u8>, lost: Option<&SessionLost>) {
    out.extend([u8::from(lost.is_some()), code_byte(lost.and_then(|lost| lost.code))]);
    put_bytes(out, lost.map_or("", |lost| cut(&lost.reason)).as_bytes());
}

/// Reads whether a session lives, and why not.
pub(crate) fn lost(reader: &mut Reader<'_>) -> Result<Option<SessionLost>, Garbled> {
    let [lost, code] = reader.array()?;
    let code = read_code(code)?;
    let reason = reader.text()?;
    match lost {
        0 if reason.is_empty() && code.is_none() => Ok(None),
        1 => Ok(Some(SessionLost { reason: shown(reason), code })),
        _ => Err(Garbled("a session neither lost nor alive")),
    }
}

/// Returns the byte of a code: 0 where there is none, otherwise one more than its number. Both sides are one build of the program.
fn code_byte(code: Option<FailureCode>) -> u8 {
    code.map_or(0, |code| code.index() as u8 + 1)
}

fn read_code(byte: u8) -> Result<Option<FailureCode>, Garbled> {
    let Some(index) = byte.checked_sub(1) else { return Ok(None) };
    FailureCode::from_index(usize::from(index)).map(Some).ok_or(Garbled("a code that is none"))
}

/// Returns text that may stand in a log line, however it came.
fn shown(text: &str) -> String {
    cut(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_kind_and_its_text() {
        let text = String::from("token t: said no");
        for (error, needs_operator) in [
            (ProviderError::Rejected(text.clone()), false),
            (ProviderError::unavailable(text.clone()), true),
            (
                ProviderError::Unavailable(Cause {
                    reason: text.clone(),
                    code: Some(FailureCode::named("CKR_DEVICE_ERROR")),
                }),
                false,
            ),
            (ProviderError::Corrupt(text), false),
        ] {
            let mut body = Vec::new();
            let failed = Failed { error, needs_operator };
            failed.encode(&mut body);
            assert_eq!(format!("{:?}", Failed::decode(&body).unwrap()), format!("{failed:?}"));
            assert!(Failed::decode(&body[..body.len() - 1]).is_err());
        }
    }

    #[test]
    fn a_lost_session_keeps_its_code_and_one_that_is_none_is_garbled() {
        for code in (0..FailureCode::COUNT).map(FailureCode::from_index).chain([None]) {
            let mut body = Vec::new();
            put_lost(&mut body, Some(&SessionLost { reason: "gone".into(), code }));
            assert_eq!(lost(&mut Reader::new(&body)).unwrap().map(|lost| lost.code), Some(code));
        }
        let mut body = Vec::new();
        put_lost(&mut body, Some(&"gone".into()));
        body[1] = FailureCode::COUNT as u8 + 1;
        assert!(lost(&mut Reader::new(&body)).is_err());
        body[..2].copy_from_slice(&[0, 1]);
        assert!(lost(&mut Reader::new(&body)).is_err());
        let mut body = Vec::new();
        Failed { error: ProviderError::Corrupt("damaged".into()), needs_operator: false }.encode(&mut body);
        body[2] = 1;
        assert!(Failed::decode(&body).is_err());
    }

    #[test]
    fn a_text_is_cut_at_a_character_and_stays_on_its_line() {
        let mut body = Vec::new();
        let text = format!("{}é\nmore", "x".repeat(TEXT_BYTES - 1));
        Failed { error: ProviderError::Corrupt(text), needs_operator: false }.encode(&mut body);
        let ProviderError::Corrupt(text) = Failed::decode(&body).unwrap().error else {
            panic!("another kind")
        };
        assert_eq!(text, "x".repeat(TEXT_BYTES - 1));
        assert_eq!(shown("a\nb\u{1b}[0m"), "a b [0m");
    }
}
