//! Why something is allowed or not, asked of anybody by those who administer it.

use std::net::IpAddr;

use keymill_core::access::{KeyPolicy, PolicyTarget, Principal, Question, Resource, decide, explain};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AccessKeyId, CertificateRef, SecretRef};
use keymill_core::operation::*;

use super::Gate;
use crate::work::Job;

impl Gate {
    /// Tells whether somebody may do something, by which rule, and what would change that. Of a key it is told to who may see its policy.
    pub(super) fn explain(&self, job: &mut Job, r: ExplainAccessRequest) -> Result<Reply<'static>> {
        self.require(job, Operation::ExplainAccess, Resource::AccessKeys)?;
        let invalid = |why: &'static str| Error::new(ErrorKind::InvalidParameter, why);
        let not_found = |why: &'static str| Error::new(ErrorKind::ResourceNotFound, why);
        let operation = Operation::by_name(&r.operation)
            .ok_or_else(|| invalid("Operation is the name of an operation; case matters"))?;
        let shared = &self.0.shared;
        let access = shared.access.read();
        let principal = match (r.access_key_id, r.client_key_id) {
            (Some(id), None) => match access.access_keys.contains_key(&id) {
                true => Principal::of_access_key(id),
                false => return Err(not_found("the specified access key is not found")),
            },
            (None, Some(id)) => {
                let id = AccessKeyId::from(&id);
                let key = access.client_key(&id);
                let key = key.ok_or_else(|| not_found("the specified client key is not found"))?;
                Principal::of_client_key(id, key.aap.clone())
            }
            _ => return Err(invalid("one of AccessKeyId and ClientKeyId says who would ask")),
        };
        if r.certificate_id.is_some() && (r.key_id.is_some() || r.secret_name.is_some()) {
            return Err(invalid("KeyId, SecretName and CertificateId exclude each other"));
        }
        let resource = match (&r.key_id, &r.secret_name) {
            (None, None) if r.certificate_id.is_some() => {
                if !operation.is_right_to_a_certificate() {
                    let why = format!(
                        "{} is not decided on a certificate: leave CertificateId out",
                        operation.name()
                    );
                    return Err(Error::new(ErrorKind::InvalidParameter, why));
                }
                let named = r.certificate_id.unwrap_or(CertificateRef::Unknown);
                let entry = self.find_certificate(job, named, Operation::DescribeCertificate)?;
                Resource::Certificate(entry.certificate.id)
            }
            (Some(_), Some(_)) => return Err(invalid("KeyId and SecretName exclude each other")),
            (None, Some(SecretRef(name)))
                if operation.is_right_to_a_secret() || operation == Operation::CreateSecret =>
            {
                if operation != Operation::CreateSecret {
                    // As of a key: it is told to who may see its policy.
                    self.find_secret(job, name, Operation::GetSecretPolicy)?;
                }
                Resource::Secret(name)
            }
            (None, Some(_)) => {
                let why = format!("{} is not decided on a secret: leave SecretName out", operation.name());
                return Err(Error::new(ErrorKind::InvalidParameter, why));
            }
            (Some(_), None) if !operation.is_right_to_a_key() => {
                let why = format!(
                    "{} is not decided on a key: leave KeyId out, or ask for the rights that it takes, such as Encrypt and Decrypt",
                    operation.name()
                );
                return Err(Error::new(ErrorKind::InvalidParameter, why));
            }
            (Some(key), None) => Resource::Key(self.find_key(job, key, Operation::GetKeyPolicy)?.cmk.id),
            (None, None) => operation.about(),
        };
        let policy = match (&r.policy, resource) {
            (Some(document), Resource::Key(id)) => {
                let arn = self.arn("key", &id);
                let target = PolicyTarget { account: &shared.config.account, arn: Some(&arn) };
                Some(KeyPolicy::of(target, document)?)
            }
            (Some(_), _) => return Err(invalid("Policy is tried on a key, and KeyId names none")),
            (None, Resource::Key(id)) => shared.keyring.policy(&id),
            (None, Resource::Secret(name)) if operation != Operation::CreateSecret => {
                shared.keyring.secrets.policy(name)
            }
            (None, _) => None,
        };
        let source = r.source.map(|text| text.parse::<IpAddr>().map_err(|_| invalid("Source is no address")));
        let source = source.transpose()?.map(|address| address.to_canonical());
        let spec = match &r.key_id {
            Some(_) => policy.as_ref().and_then(|policy| shared.spec_for(policy, resource)),
            None => None,
        };
        let (now, context) = (self.now(), r.encryption_context.as_ref());
        let asked = Question { principal: &principal, operation, resource, source, now, spec, context };
        let decision = decide(&access, &asked, policy.as_ref());
        Ok(Reply::ExplainAccess(ExplainAccessReply {
            allowed: decision.allowed,
            rule: decision.rule.to_text().into_owned(),
            explanation: explain(&asked, &decision, policy.as_ref()),
            request_id: job.call.request_id,
        }))
    }
}
