//! What is to be made of a server's refusal: by its number alone, since its text could hold anything.

use keymill_core::seam::rotator::{RotationFault, RotationFaultKind};

/// Says what a refusal of a login means.
pub(crate) fn of_login(number: u16) -> RotationFault {
    let kind = match number {
        // Access denied: the password, or no such account; or the password has run out.
        1045 | 1862 => RotationFaultKind::NotValid,
        // No such database, or none for this account.
        1044 | 1049 => RotationFaultKind::Misconfigured,
        other => kind(other),
    };
    RotationFault::new(kind, format!("the server refused the login (error {number})"))
}

/// Says what a refusal of a statement means.
pub(crate) fn of_statement(number: u16) -> RotationFault {
    RotationFault::new(kind(number), format!("the server refused the statement (error {number})"))
}

fn kind(number: u16) -> RotationFaultKind {
    match number {
        // Too many connections, shutting down, out of resources, a lock that was waited for, a deadlock, interrupted, too many of a user, time is
        // over (MySQL, MariaDB): it may pass later.
        1040 | 1041 | 1053 | 1129 | 1158..=1161 | 1203 | 1205 | 1213 | 1226 | 1317 | 1927 | 1969 | 3024 => {
            RotationFaultKind::Unreachable
        }
        _ => RotationFaultKind::Refused,
    }
}

/// Says that the server speaks another language.
pub(crate) fn strange() -> RotationFault {
    RotationFault::new(RotationFaultKind::Unreachable, "what answers does not speak the protocol of MySQL")
}

/// Says that the rotator cannot work like this.
pub(crate) fn misconfigured(why: impl Into<String>) -> RotationFault {
    RotationFault::new(RotationFaultKind::Misconfigured, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_password_is_told_from_a_server_that_is_busy_or_misnamed() {
        use RotationFaultKind::{Misconfigured, NotValid, Refused, Unreachable};
        for (number, kind) in [(1045, NotValid), (1049, Misconfigured), (1040, Unreachable), (4151, Refused)]
        {
            assert_eq!(of_login(number).kind, kind, "{number}");
        }
        for (number, kind) in [(1227, Refused), (1133, Refused), (1045, Refused), (1205, Unreachable)] {
            assert_eq!(of_statement(number).kind, kind, "{number}");
        }
    }
}
