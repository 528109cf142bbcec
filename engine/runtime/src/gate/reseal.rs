//! Secrets sealed anew at the gate: their values are opened and sealed for nobody to see, all of a secret or none.

use std::time::Instant;

use keymill_core::access::Principal;
use keymill_core::blob::Blob;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CmkId, SecretName, SecretRef};
use keymill_core::operation::*;
use keymill_core::secret::context_of_secret;

use super::manage::{Done, done};
use super::plan::Plan;
use super::{Call, Gate};
use crate::actor::Owners;
use crate::actor::keyring::{ResealSecret, SealedAnew};
use crate::secrets::SecretEntry;
use crate::work::{Contexts, Job};

/// Whom the audit names where the values of a secret are opened and sealed.
const RESEAL: &str = "keymill.reseal";

impl Gate {
    pub(super) fn plan_reseal(&self, job: &mut Job, r: ResealSecretRequest) -> Result<Plan> {
        let SecretRef(name) = r.secret_name;
        let entry = self.find_secret(job, &name, Operation::ResealSecret)?;
        entry.secret.check_alive()?;
        let cmk = match r.encryption_key_id {
            None => entry.secret.cmk,
            Some(key) => {
                let right = job.rule.take();
                // As for a new secret: under the context of each version that is to be sealed.
                let instance = &self.0.shared.config.instance;
                let versions = entry.secret.versions.iter();
                let contexts = versions.map(|version| Some(context_of_secret(instance, &name, &version.id)));
                let contexts = Contexts::Each(contexts.collect());
                let found = self.find_key_under(job, &key, Operation::Encrypt, &contexts)?;
                job.rule = right;
                found.cmk.id
            }
        };
        let gone = || Error::new(ErrorKind::KeyNotFound, "the CMK of the secret is gone");
        self.sealing_under(self.0.shared.keyring.cmk(&cmk).ok_or_else(gone)?)?;
        Ok(Plan::ResealSecret { name, cmk })
    }

    /// Seals the values of a secret anew, and keeps them where it was not changed meanwhile.
    pub(super) async fn reseal_secret(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        (name, cmk): (SecretName, CmkId),
        deadline: Instant,
    ) -> Result<Done> {
        let entry = self.0.shared.keyring.secrets.find(&name)?;
        let request_id = call.request_id;
        let reply = |is_changed| {
            let secret_name = name.clone();
            Reply::ResealSecret(ResealSecretReply {
                secret_name,
                encryption_key_id: cmk,
                is_changed,
                request_id,
            })
        };
        let gate = self.clone();
        // A desk waits for its token on the thread that it is on.
        let sealed = tokio::task::spawn_blocking(move || gate.sealed_anew(&entry, cmk, deadline)).await;
        let sealed = sealed.map_err(|_| Error::internal("the sealing of values was cut off"))?;
        let sealed = sealed.map_err(|error| match error.kind() {
            // A version of it was pruned since it was looked up.
            ErrorKind::ResourceNotFound => {
                Error::new(ErrorKind::Conflict, "the secret was changed meanwhile")
            }
            _ => error,
        })?;
        match sealed {
            None => Ok((reply(false), Vec::new(), Vec::new())),
            Some(reseal) => Ok(done(reply(true), actors.keyring(reseal).await?)),
        }
    }

    /// Seals all values of a secret anew; `None` where they are sealed so already. Blocks.
    fn sealed_anew(
        &self,
        entry: &SecretEntry,
        cmk: CmkId,
        deadline: Instant,
    ) -> Result<Option<ResealSecret>> {
        let secret = &entry.secret;
        let gone = || Error::new(ErrorKind::KeyNotFound, "the CMK is gone");
        let newest = self.sealing_under(self.0.shared.keyring.cmk(&cmk).ok_or_else(gone)?)?.version.number;
        let is_so = |blob: &[u8]| {
            Blob::parse(blob).is_some_and(|blob| blob.header.cmk == cmk && blob.header.version == newest)
        };
        let mut are_so = secret.cmk == cmk;
        for version in &secret.versions {
            are_so = are_so && is_so(&self.blob_of(entry, version)?);
        }
        if are_so {
            return Ok(None);
        }
        let mut blobs = Vec::with_capacity(secret.versions.len());
        for version in &secret.versions {
            let call = self.reseal_call()?;
            let value = self.open_now(call.clone(), entry, version, deadline)?;
            let blob = self.seal_now(&call, cmk, (&secret.name, &version.id), value, deadline)?;
            blobs.push(SealedAnew { id: version.id.clone(), from: version.tag, blob });
        }
        Ok(Some(ResealSecret { name: secret.name.clone(), cmk, blobs }))
    }

    fn reseal_call(&self) -> Result<Call> {
        Ok(Call {
            request_id: self.request_id(),
            principal: Principal::of_access_key(RESEAL.parse()?),
            source: None,
            frontend: "reseal",
            received: Instant::now(),
            nonce: None,
        })
    }
}
