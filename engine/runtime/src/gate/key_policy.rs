//! Policies of keys and secrets as requests bring them: read, and held against what is here.

use keymill_core::access::{KeyPolicy, PolicyTarget, Question, Resource, decide};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CmkId, SecretName};
use keymill_core::key::KeySpec;
use keymill_core::operation::Operation;

use super::Gate;
use crate::work::Job;

impl Gate {
    /// Reads the policy that a key is to be given.
    ///
    /// # Errors
    /// `InvalidParameter` for one that speaks of something else, of access keys that are not here, or that locks the caller out.
    pub(super) fn policy_of_key(&self, job: &Job, id: CmkId, document: &str) -> Result<KeyPolicy> {
        let arn = self.arn("key", &id);
        let spec = self.0.shared.keyring.cmk(&id).map(|entry| entry.cmk.spec);
        self.policy(job, Some(&arn), (Operation::SetKeyPolicy, Resource::Key(id)), spec, document)
    }

    /// Reads the policy of a key that is yet to be made; it takes the right to set policies of keys whatever they are.
    ///
    /// # Errors
    /// As [`policy_of_key`](Self::policy_of_key), and `Denied` without that right.
    pub(super) fn policy_of_new_key(
        &self,
        job: &mut Job,
        spec: KeySpec,
        document: &str,
    ) -> Result<KeyPolicy> {
        let right = job.rule.take();
        self.require(job, Operation::SetKeyPolicy, Resource::Keys)?;
        job.rule = right;
        // Its id is drawn later; a policy that names nobody's key speaks of that one as of any.
        let key = Resource::Key(CmkId::from_bytes([0; 16]));
        self.policy(job, None, (Operation::SetKeyPolicy, key), Some(spec), document)
    }

    /// Reads the policy that a secret is to be given, or made with.
    ///
    /// # Errors
    /// As [`policy_of_key`](Self::policy_of_key).
    pub(super) fn policy_of_secret(&self, job: &Job, name: &SecretName, document: &str) -> Result<KeyPolicy> {
        let arn = self.secret_arn(name);
        self.policy(job, Some(&arn), (Operation::SetSecretPolicy, Resource::Secret(name)), None, document)
    }

    fn policy(
        &self,
        job: &Job,
        arn: Option<&str>,
        (setting, resource): (Operation, Resource<'_>),
        spec: Option<KeySpec>,
        document: &str,
    ) -> Result<KeyPolicy> {
        let shared = &self.0.shared;
        let invalid = |why| Error::new(ErrorKind::InvalidParameter, why);
        let target = PolicyTarget { account: &shared.config.account, arn };
        let policy = KeyPolicy::of(target, document)?;
        let access = shared.access.read();
        if let Some(unknown) = policy.named().find(|id| !access.access_keys.contains_key(*id)) {
            return Err(invalid(format!("Policy: there is no access key {unknown}")));
        }
        if let Some(unknown) = policy.named_aaps().find(|name| access.aap(name).is_none()) {
            return Err(invalid(format!("Policy: there is no access point {unknown}")));
        }
        let asked = Question {
            principal: &job.call.principal,
            operation: setting,
            resource,
            source: job.call.source,
            now: self.now(),
            spec,
            context: None,
        };
        match decide(&access, &asked, Some(&policy)).allowed {
            true => Ok(policy),
            false => Err(invalid("Policy: the caller that sets it could not set it again".into())),
        }
    }
}
