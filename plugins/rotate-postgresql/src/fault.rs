//! What is to be made of a server's refusal: by its SQLSTATE alone, since its text could hold anything.

use keymill_core::seam::rotator::{RotationFault, RotationFaultKind};

/// Says what a refusal of a login means.
pub(crate) fn of_login(state: Option<&str>) -> RotationFault {
    let kind = match state {
        // The same for a role that is not there, or may not log in by a password any more.
        Some("28P01") => RotationFaultKind::NotValid,
        Some("3D000") => RotationFaultKind::Misconfigured,
        other => kind(other),
    };
    RotationFault::new(
        kind,
        format!("the server refused the login (SQLSTATE {})", state.unwrap_or("not told")),
    )
}

/// Says what a refusal of a statement means.
pub(crate) fn of_statement(state: Option<&str>) -> RotationFault {
    RotationFault::new(
        kind(state),
        format!("the server refused the statement (SQLSTATE {})", state.unwrap_or("not told")),
    )
}

/// Classes 08 connection, 40 rolled back, 53 resources, 57 intervention (shutting down, starting, time is over), 58 system, XX: it may pass later.
fn kind(state: Option<&str>) -> RotationFaultKind {
    match state.and_then(|state| state.get(..2)) {
        Some("08" | "40" | "53" | "57" | "58" | "XX") => RotationFaultKind::Unreachable,
        _ => RotationFaultKind::Refused,
    }
}

/// Says that the server speaks another language.
pub(crate) fn strange() -> RotationFault {
    RotationFault::new(
        RotationFaultKind::Unreachable,
        "what answers does not speak the protocol of PostgreSQL",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_password_is_told_from_a_server_that_is_busy_or_misnamed() {
        use RotationFaultKind::{Misconfigured, NotValid, Refused, Unreachable};
        for (state, kind) in [
            (Some("28P01"), NotValid),
            (Some("28000"), Refused),
            (Some("3D000"), Misconfigured),
            (Some("53300"), Unreachable),
            (Some("57P03"), Unreachable),
            (None, Refused),
        ] {
            assert_eq!(of_login(state).kind, kind, "{state:?}");
        }
        for (state, kind) in
            [(Some("42501"), Refused), (Some("57014"), Unreachable), (Some("XX000"), Unreachable)]
        {
            assert_eq!(of_statement(state).kind, kind, "{state:?}");
        }
    }
}
