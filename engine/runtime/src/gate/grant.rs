//! Who may give out which rights of access keys: nobody more than it has.

use keymill_core::access::Grant;
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::AccessKeyId;
use keymill_core::limit;

use super::Gate;
use crate::work::Job;

impl Gate {
    /// Checks that nobody gives out more than it has: only who is `Root` makes or changes what is `Root`.
    pub(super) fn check_grants(&self, job: &Job, grants: &[Grant]) -> Result<()> {
        let most = grants.iter().map(|grant| grant.resources.len()).max().unwrap_or(0);
        if grants.len() > limit::GRANTS || most > limit::GRANT_RESOURCES {
            return Err(Error::new(
                ErrorKind::LimitExceeded(Limit::Grants),
                format!(
                    "{} grants of up to {most} resources exceed the limit of {} of {}",
                    grants.len(),
                    limit::GRANTS,
                    limit::GRANT_RESOURCES
                ),
            ));
        }
        if grants.iter().any(|grant| self.is_given_by_root_alone(&grant.role))
            && !self.is_root(&job.call.principal.access_key)
        {
            return Err(Error::new(
                ErrorKind::Denied,
                "only Root can grant Root, and what Root alone may do",
            ));
        }
        Ok(())
    }

    pub(super) fn check_target(&self, job: &Job, target: &AccessKeyId) -> Result<()> {
        let has_root = self.0.shared.access.read().access_keys.get(target).is_some_and(|key| key.has_root());
        if has_root && !self.is_root(&job.call.principal.access_key) {
            return Err(Error::new(ErrorKind::Denied, "only Root can change an access key that has Root"));
        }
        Ok(())
    }

    /// Tells whether an access key may do everything, so that it may give out everything.
    pub(super) fn is_root(&self, id: &AccessKeyId) -> bool {
        let access = self.0.shared.access.read();
        access.access_keys.get(id).is_some_and(|key| key.is_root())
    }
}
