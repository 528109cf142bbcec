//! Which requests of the audit are wanted, as flags say it.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use keymill_core::Timestamp;
use keymill_core::id::{CertificateId, CmkId, RequestId, SecretName};

use super::entry::Row;

/// What a request must be like; all that is given must hold.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filter {
    /// From this time on: 2026-11-24, 2026-11-24T05:30:00Z (both UTC), or so long ago: 90s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Before this time, in the same forms
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Of this access key
    #[arg(long, value_name = "ID")]
    principal: Option<String>,
    /// Of these operations
    #[arg(long, value_name = "NAME")]
    operation: Vec<String>,
    /// That touched this CMK
    #[arg(long, value_name = "ID", value_parser = cmk)]
    key: Option<CmkId>,
    /// That was about this secret
    #[arg(long, value_name = "NAME")]
    secret: Option<SecretName>,
    /// That was about this certificate
    #[arg(long, value_name = "ID", value_parser = certificate)]
    certificate: Option<CertificateId>,
    /// From this address, or this range: 10.0.0.0/8
    #[arg(long, value_name = "ADDR[/BITS]")]
    source: Option<Range>,
    /// Ended so: ok, failed (any error), or the name of an error, such as Denied
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// Of this id
    #[arg(long, value_name = "ID", value_parser = request)]
    request: Option<RequestId>,
    /// Taken by this frontend: http, msgpack, in-process; timer for what keymill did by itself
    #[arg(long, value_name = "NAME")]
    frontend: Option<String>,
}

impl Filter {
    /// Tells whether a line of that time may hold something that is wanted.
    pub(super) fn wants_time(&self, time: &str) -> bool {
        self.since.as_ref().is_none_or(|since| time >= &*since.0)
            && self.until.as_ref().is_none_or(|until| time < &*until.0)
    }

    /// Tells whether it speaks of nothing but time, so that notes pass as well.
    pub(super) fn is_of_time_alone(&self) -> bool {
        self.principal.is_none()
            && self.operation.is_empty()
            && self.key.is_none()
            && self.secret.is_none()
            && self.certificate.is_none()
            && self.source.is_none()
            && self.outcome.is_none()
            && self.request.is_none()
            && self.frontend.is_none()
    }

    /// Tells whether a request is wanted.
    pub(super) fn wants(&self, row: &Row<'_>) -> bool {
        let same = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|text| text == found);
        self.wants_time(row.time)
            && (self.principal.is_none() || self.principal.as_deref() == row.principal)
            && (self.operation.is_empty() || self.operation.iter().any(|name| name == row.operation))
            && self.key.is_none_or(|key| {
                let text = key.to_string();
                row.keys.iter().any(|touch| touch.cmk == text)
            })
            && self
                .secret
                .as_ref()
                .is_none_or(|name| row.secrets.iter().any(|touch| touch.name == name.as_str()))
            && self.certificate.is_none_or(|id| {
                let text = id.to_string();
                row.certificates.iter().any(|named| *named == text)
            })
            && self.source.is_none_or(|range| row.source.is_some_and(|source| range.holds(source)))
            && match self.outcome.as_deref() {
                None => true,
                Some("failed") => row.outcome != "ok",
                Some(outcome) => row.outcome == outcome,
            }
            && self.request.is_none_or(|id| row.request == id.to_string())
            && same(&self.frontend, row.frontend)
    }
}

fn certificate(text: &str) -> Result<CertificateId, String> {
    CertificateId::parse(text)
        .ok_or_else(|| "the id of a certificate is like 0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9".to_owned())
}

fn cmk(text: &str) -> Result<CmkId, String> {
    CmkId::parse(text)
        .ok_or_else(|| "the id of a CMK is like 0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9".to_owned())
}

fn request(text: &str) -> Result<RequestId, String> {
    RequestId::parse(text)
        .ok_or_else(|| "the id of a request is like 0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9".to_owned())
}

/// A time in the form of audit lines, so that texts are in the order of times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment(String);

impl FromStr for Moment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_ms(now.as_millis().try_into().unwrap_or(u64::MAX));
        let moment = Timestamp::parse(text)
            .or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")))
            .or_else(|| ago(text).map(|ago| now.minus(ago)));
        moment.map(|time| Self(time.to_ms_text())).ok_or_else(|| {
            "a time is like 2026-11-24, 2026-11-24T05:30:00Z, or so long ago: 90s, 15m, 2h, 7d".to_owned()
        })
    }
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count = text.strip_suffix(unit)?;
    if count.is_empty() || !count.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    count.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// Addresses whose first bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    address: IpAddr,
    bits: u32,
}

impl Range {
    fn holds(&self, source: &str) -> bool {
        let Ok(source) = source.parse::<IpAddr>().map(|source| source.to_canonical()) else { return false };
        let (ours, theirs, width) = match (self.address, source) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let rest = width - self.bits;
        ours.checked_shr(rest).unwrap_or(0) == theirs.checked_shr(rest).unwrap_or(0)
    }
}

impl FromStr for Range {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a source is an address, or a range such as 10.0.0.0/8".to_owned();
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) if bits.bytes().all(|digit| digit.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= width).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        Ok(Self { address, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_moments_or_so_long_ago() {
        let text = |text: &str| text.parse::<Moment>().map(|moment| moment.0);
        assert_eq!(text("2026-11-24").unwrap(), "2026-11-24T00:00:00.000Z");
        assert_eq!(text("2026-11-24T05:30:00Z").unwrap(), "2026-11-24T05:30:00.000Z");
        let (day, hour) = (text("1d").unwrap(), text("1h").unwrap());
        assert!(day < hour && hour < text("0s").unwrap());
        for wrong in ["", "s", "1", "1w", "-1h", "+1h", "2026-02-30", "yesterday", "99999999999999999999d"] {
            assert!(text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_hold_what_shares_their_first_bits_and_nothing_of_the_other_family() {
        let holds = |range: &str, source: &str| range.parse::<Range>().unwrap().holds(source);
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.0.0.7", "10.0.0.7") && !holds("10.0.0.7", "10.0.0.8"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("2001:db8::/32", "2001:db8::7") && !holds("2001:db8::/32", "2001:db9::7"));
        assert!(holds("::/0", "::1") && holds("10.0.0.0/8", "::ffff:10.0.0.1") && !holds("::/0", "odd"));
        for wrong in ["", "10", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "10.0.0.0/8/8"] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
    }
}
