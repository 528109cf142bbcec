//! One check: what came of it, what that means, and what to do about it.

use serde::Serialize;

use crate::plugins::pkcs11::module::Failure;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// The module does what it should.
    Ok,
    /// The module says that it does not do this, or keymill refuses the token.
    Refused,
    /// The module does something else than it should.
    Wrong,
    /// There was no way to try.
    NotTried,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::Wrong => "WRONG",
            Outcome::NotTried => "not tried",
        }
    }
}

/// A check that was made, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// What was checked.
    pub(super) check: &'static str,
    pub(super) result: Outcome,
    /// Whether keymill cannot do without it.
    pub(super) needed: bool,
    /// What was seen, and what it means.
    pub(super) means: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<&'static str>,
}

/// What a check saw, before it has its name.
pub(super) struct Seen {
    result: Outcome,
    needed: bool,
    means: String,
    next: Option<&'static str>,
}

/// What a check saw; `Err` where that was the end of it.
pub(super) type Looked = Result<Seen, Seen>;

/// What to tell the vendor where an answer is wrong.
const REPORT: &str = "do not use this module; send this report to its vendor";

impl Seen {
    pub(super) fn ok(means: impl Into<String>) -> Self {
        Self { result: Outcome::Ok, needed: true, means: means.into(), next: None }
    }

    pub(super) fn wrong(means: impl Into<String>) -> Self {
        Self { result: Outcome::Wrong, needed: true, means: means.into(), next: Some(REPORT) }
    }

    pub(super) fn refused(means: impl Into<String>, next: &'static str) -> Self {
        Self { result: Outcome::Refused, needed: true, means: means.into(), next: Some(next) }
    }

    pub(super) fn not_tried(means: impl Into<String>) -> Self {
        Self { result: Outcome::NotTried, needed: false, means: means.into(), next: None }
    }

    /// Says that keymill can do without it.
    pub(super) fn optional(mut self) -> Self {
        self.needed = false;
        self
    }

    /// Says what to do about it.
    pub(super) fn next(mut self, next: &'static str) -> Self {
        self.next = Some(next);
        self
    }

    pub(super) fn named(self, check: &'static str) -> Check {
        let Self { result, needed, means, next } = self;
        Check { check, result, needed, means, next }
    }
}

/// A call that should have worked and did not: the check ends there.
impl From<Failure> for Seen {
    fn from(failure: Failure) -> Self {
        Seen::refused(
            failure.to_string(),
            "ask the vendor whether a setting of the HSM or a policy of the token forbids it",
        )
    }
}

impl Check {
    /// Tells whether keymill cannot use the token for it.
    pub(super) fn blocks(&self) -> bool {
        self.needed && matches!(self.result, Outcome::Refused | Outcome::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_and_not_there_blocks_and_nothing_else() {
        let blocks = |seen: Seen| seen.named("c").blocks();
        assert!(blocks(Seen::wrong("w")) && blocks(Seen::refused("r", "n")));
        assert!(blocks(Seen::from(Failure::Missing { call: "C_WrapKey" })));
        assert!(
            !blocks(Seen::ok("o"))
                && !blocks(Seen::not_tried("t"))
                && !blocks(Seen::refused("r", "n").optional())
        );
    }
}
