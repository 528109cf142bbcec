//! What a frame that came from outside may look like. What is refused here ends the connection; what is only noted (a flaw
//! inside the parameters) is an error of that request alone.

use std::fmt;

use keymill_core::error::Limit;
use keymill_core::{Error, ErrorKind};

use crate::scan::{Head, Scan};

/// Bytes of the length before each frame.
pub const LENGTH_BYTES: usize = 4;
/// Arrays and maps inside each other, at most.
pub const MAX_DEPTH: usize = 16;
/// The largest id of a request; every number up to it is exact in a double.
pub const MAX_ID: u64 = 1 << 53;
/// Bytes of a frame before the welcome.
pub const MAX_HELLO_BYTES: usize = 16 * 1024;

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A length of zero.
    EmptyFrame,
    /// A length past the limit.
    FrameTooLong {
        /// The length announced.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The value ends after the frame does.
    Truncated,
    /// The frame ends after the value does.
    TrailingBytes,
    /// A value nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// The one byte that MessagePack never uses.
    Reserved,
    /// MessagePack, but not `[id, operation, {parameters}]`.
    NotARequest,
    /// An id that is not an integer from 1 to 2^53.
    BadId,
    /// An id that another request in flight has.
    IdInFlight(u64),
    /// MessagePack, but not `[id, status, {…}]`; seen by clients.
    NotAnAnswer,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::EmptyFrame => f.write_str("a frame has at least one byte"),
            Fault::FrameTooLong { length, limit } => {
                write!(f, "frame of {length} bytes exceeds the limit of {limit}")
            }
            Fault::Truncated => f.write_str("the value is longer than its frame"),
            Fault::TrailingBytes => f.write_str("bytes follow the value of the frame"),
            Fault::TooDeep => write!(f, "the value is nested deeper than {MAX_DEPTH}"),
            Fault::Reserved => f.write_str("byte c1 is not MessagePack"),
            Fault::NotARequest => f.write_str("the frame is not [id, operation, {parameters}]"),
            Fault::BadId => f.write_str("the id is not an integer from 1 to 2^53"),
            Fault::IdInFlight(id) => write!(f, "id {id} is in flight already"),
            Fault::NotAnAnswer => f.write_str("the frame is not [id, status, {…}]"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::FrameTooLong { .. } => ErrorKind::LimitExceeded(Limit::FrameBytes),
            _ => ErrorKind::MalformedRequest,
        };
        Error::new(kind, fault.to_string())
    }
}

/// Why parameters cannot be right, although their structure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlawKind {
    /// A floating-point number.
    Float,
    /// An extension type.
    Extension,
    /// A `str` that is not UTF-8.
    InvalidUtf8,
    /// The key of a map is not `str`.
    KeyNotText,
}

/// The first flaw of some parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw<'a> {
    /// The parameter that holds it; `None` where its name is what is wrong.
    pub field: Option<&'a str>,
    /// What is wrong.
    pub kind: FlawKind,
}

impl From<Flaw<'_>> for Error {
    fn from(flaw: Flaw<'_>) -> Self {
        let what = match flaw.kind {
            FlawKind::Float => "floating-point numbers are not taken",
            FlawKind::Extension => "extension types are not taken",
            FlawKind::InvalidUtf8 => "the text is not UTF-8",
            FlawKind::KeyNotText => "the key of a map is not text",
        };
        let message = match flaw.field {
            Some(field) => format!("{}: {what}", clip(field)),
            None => format!("a parameter name is wrong: {what}"),
        };
        Error::new(ErrorKind::InvalidParameter, message)
    }
}

/// Makes a name that a caller chose fit for an error message: short, and without control characters.
pub(crate) fn clip(name: &str) -> String {
    const CHARACTERS: usize = 64;
    let mut shown: String = name.chars().take(CHARACTERS).flat_map(char::escape_debug).collect();
    if name.chars().nth(CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

/// A request, as far as its structure tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape<'a> {
    /// From 1 to 2^53.
    pub id: u64,
    /// The name of the operation, known or not.
    pub operation: &'a str,
    /// One MessagePack map.
    pub parameters: &'a [u8],
    /// Why the parameters cannot be right; an error of this request alone.
    pub flaw: Option<Flaw<'a>>,
}

/// Reads the length before a frame.
///
/// # Errors
/// [`Fault::EmptyFrame`] for zero, [`Fault::FrameTooLong`] past `max`.
pub fn length(prefix: [u8; LENGTH_BYTES], max: usize) -> Result<usize, Fault> {
    match u32::from_be_bytes(prefix) as usize {
        0 => Err(Fault::EmptyFrame),
        length if length > max => Err(Fault::FrameTooLong { length, limit: max }),
        length => Ok(length),
    }
}

/// Checks that `frame`, without its length, is one request.
///
/// # Errors
/// What ends the connection.
pub fn check(frame: &[u8]) -> Result<Shape<'_>, Fault> {
    let mut scan = Scan::new(frame);
    let Head::Array(3) = scan.head()? else { return Err(Fault::NotARequest) };
    let id = scan.id()?.filter(|id| (1..=MAX_ID).contains(id)).ok_or(Fault::BadId)?;
    let (operation, parameters) = scan.named_map(Fault::NotARequest)?;
    Ok(Shape { id, operation, parameters, flaw: scan.flaw })
}

/// Checks that `body` is one map of parameters, as a frame would hold it: for bodies that come without a frame.
///
/// # Errors
/// As for a frame.
pub fn check_body(body: &[u8]) -> Result<Option<Flaw<'_>>, Fault> {
    let mut scan = Scan::new(body);
    scan.parameters(1, Fault::NotARequest)?;
    scan.end()?;
    Ok(scan.flaw)
}

/// Splits `[0, name, {…}]`, the form of the frames before the welcome.
pub(crate) fn greeting(frame: &[u8]) -> Result<(&str, &[u8], Option<Flaw<'_>>), Fault> {
    let mut scan = Scan::new(frame);
    let Head::Array(3) = scan.head()? else { return Err(Fault::NotARequest) };
    let Some(0) = scan.id()? else { return Err(Fault::BadId) };
    let (name, body) = scan.named_map(Fault::NotARequest)?;
    Ok((name, body, scan.flaw))
}

/// Splits `[id, status, {…}]`.
pub(crate) fn numbered(frame: &[u8]) -> Result<(u64, u64, &[u8]), Fault> {
    let mut scan = Scan::new(frame);
    let Head::Array(3) = scan.head()? else { return Err(Fault::NotAnAnswer) };
    let id = scan.id()?.ok_or(Fault::NotAnAnswer)?;
    let status = scan.id()?.ok_or(Fault::NotAnAnswer)?;
    let body = scan.parameters(2, Fault::NotAnAnswer)?;
    scan.end()?;
    Ok((id, status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parameters: &[u8]) -> Vec<u8> {
        [b"\x93\x07\xa3Foo", parameters].concat()
    }

    fn flaw(parameters: &[u8]) -> Option<(Option<String>, FlawKind)> {
        let frame = request(parameters);
        let flaw = check(&frame).unwrap().flaw;
        flaw.map(|flaw| (flaw.field.map(str::to_owned), flaw.kind))
    }

    #[test]
    fn a_request_shows_its_parts() {
        let frame = request(b"\x81\xa1a\x92\xc4\x01x\xc5\x00\x02yz");
        let shape = check(&frame).unwrap();
        assert_eq!((shape.id, shape.operation, shape.flaw), (7, "Foo", None));
        assert_eq!(shape.parameters, &frame[6..]);
    }

    #[test]
    fn headers_may_be_longer_than_needed() {
        for frame in [
            &b"\xdc\0\x03\x07\xd9\x03Foo\xde\0\0"[..],
            b"\xdd\0\0\0\x03\xd3\0\0\0\0\0\0\0\x07\xdb\0\0\0\x03Foo\xdf\0\0\0\0",
            b"\x93\xd0\x07\xda\0\x03Foo\x80",
        ] {
            assert_eq!(check(frame).unwrap().id, 7, "{frame:x?}");
        }
    }

    #[test]
    fn ids_run_from_1_to_2_53() {
        let with = |id: &[u8]| check(&[b"\x93", id, b"\xa3Foo\x80"].concat()).map(|shape| shape.id);
        assert_eq!(with(b"\x01"), Ok(1));
        assert_eq!(with(b"\xcf\0\x20\0\0\0\0\0\0"), Ok(MAX_ID));
        for bad in [
            &b"\x00"[..],
            b"\xcf\0\x20\0\0\0\0\0\x01",
            b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xff",
            b"\xd0\xff",
            b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xc0",
            b"\xc3",
            b"\xca\x3f\x80\0\0",
            b"\xa11",
            b"\xc4\x01\x01",
            b"\xd4\x05\0",
        ] {
            assert_eq!(with(bad), Err(Fault::BadId), "{bad:x?}");
        }
    }

    #[test]
    fn what_is_not_a_request_ends_the_connection() {
        for (frame, fault) in [
            (&b"\xc1"[..], Fault::Reserved),
            (b"\xc0", Fault::NotARequest),
            (b"\x80", Fault::NotARequest),
            (b"\x90", Fault::NotARequest),
            (b"\x92\x01\xa3Foo", Fault::NotARequest),
            (b"\x94\x01\xa3Foo\x80\xc0", Fault::NotARequest),
            (b"\x93\x01\xc4\x03Foo\x80", Fault::NotARequest),
            (b"\x93\x01\xa1\xff\x80", Fault::NotARequest),
            (b"\x93\x01\xa3Foo\x90", Fault::NotARequest),
            (b"\x93\x01\xa3Foo\xc0", Fault::NotARequest),
            (b"\x93\x01\x00\x80", Fault::NotARequest),
            (b"\x93\x01\xa3Foo\x80\xc0", Fault::TrailingBytes),
            (b"\x93\x01\xa3Foo\x81\xa1a\xc1", Fault::Reserved),
            (b"\x93\x01\xa3Foo", Fault::Truncated),
            (b"\xdd\xff\xff\xff\xff", Fault::NotARequest),
            (b"\x93\x01\xa3Foo\xdf\xff\xff\xff\xff", Fault::Truncated),
            (b"\x93\x01\xa3Foo\x81\xa1a\xdd\xff\xff\xff\xff", Fault::Truncated),
            (b"\x93\x01\xa3Foo\x81\xa1a\x91\xc6\xff\xff\xff\xff", Fault::Truncated),
            (b"\x93\x01\xa3Foo\x81\xa1a\xdb\xff\xff\xff\xff", Fault::Truncated),
            (b"\x93\x01\xa3Foo\x81\xa1a\xc9\xff\xff\xff\xff", Fault::Truncated),
            (b"\x93\x01\xa3Foo\x81\xa1a\x92\xc4\x01x\xc4", Fault::Truncated),
        ] {
            assert_eq!(check(frame), Err(fault), "{frame:x?}");
        }
    }

    #[test]
    fn every_cut_of_a_request_is_truncated() {
        let frame = request(b"\x82\xa1a\x93\xc4\x01x\xc5\0\x02yz\xcd\x01\x02\xa1b\x81\xa1c\xd9\x01d");
        assert!(check(&frame).is_ok());
        for cut in 0..frame.len() {
            assert_eq!(check(&frame[..cut]), Err(Fault::Truncated), "cut at {cut}");
        }
    }

    #[test]
    fn sixteen_levels_pass_and_seventeen_do_not() {
        let nested = |levels: usize| request(&[b"\x81\xa1a", &vec![0x91; levels - 1][..], b"\x90"].concat());
        // The request and its parameters are two levels.
        assert!(check(&nested(14)).is_ok());
        assert_eq!(check(&nested(15)), Err(Fault::TooDeep));
        assert_eq!(check(&nested(100_000)), Err(Fault::TooDeep));
        let maps = request(&[b"\x81\xa1a".repeat(100_000), b"\x80".to_vec()].concat());
        assert_eq!(check(&maps), Err(Fault::TooDeep));
    }

    #[test]
    fn flaws_inside_the_parameters_name_the_parameter_and_spare_the_connection() {
        let at = |field: &str, kind| Some((Some(field.to_owned()), kind));
        assert_eq!(flaw(b"\x82\xa1a\x01\xa1b\xca\0\0\0\0"), at("b", FlawKind::Float));
        assert_eq!(flaw(b"\x81\xa1a\x91\xcb\0\0\0\0\0\0\0\0"), at("a", FlawKind::Float));
        assert_eq!(flaw(b"\x81\xa1a\x92\xc4\0\xd6\xff\0\0\0\x01"), at("a", FlawKind::Extension));
        assert_eq!(flaw(b"\x81\xa1a\xc7\x02\x05xy"), at("a", FlawKind::Extension));
        assert_eq!(flaw(b"\x81\xa1a\xa2\xc3\x28"), at("a", FlawKind::InvalidUtf8));
        assert_eq!(flaw(b"\x81\xa1a\x81\xa3\xed\xa0\x80\x01"), at("a", FlawKind::InvalidUtf8));
        assert_eq!(flaw(b"\x82\xa1a\x82\x01\x01\xa1b\x02\xa1b\x01"), at("a", FlawKind::KeyNotText));
        for key in [&b"\x01"[..], b"\xc4\x01a", b"\xc0", b"\x90", b"\x80"] {
            assert_eq!(
                flaw(&[b"\x81", key, b"\x01"].concat()),
                Some((None, FlawKind::KeyNotText)),
                "{key:x?}"
            );
        }
        assert_eq!(flaw(b"\x81\xa1\xff\x01"), Some((None, FlawKind::InvalidUtf8)));
        assert_eq!(flaw(b"\x82\xa1a\x81\xa1b\x93\x01\xc4\x01\xff\xa1\x78\xa1c\xc4\x01\xff"), None);
    }

    #[test]
    fn a_name_in_an_error_is_short_and_printable() {
        let name = format!("a\n\0{}", "x".repeat(10_000));
        let error = Error::from(Flaw { field: Some(&name), kind: FlawKind::Float });
        assert!(error.message().len() < 200 && !error.message().contains('\n'), "{error}");
    }

    #[test]
    fn a_length_is_from_1_to_the_limit() {
        assert_eq!(length([0, 0, 1, 0], 256), Ok(256));
        assert_eq!(length([0; 4], 256), Err(Fault::EmptyFrame));
        assert_eq!(length([0, 0, 1, 1], 256), Err(Fault::FrameTooLong { length: 257, limit: 256 }));
        let error = Error::from(length([0xff; 4], 256).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::LimitExceeded(Limit::FrameBytes));
        assert_eq!(error.message(), "frame of 4294967295 bytes exceeds the limit of 256");
    }
}
