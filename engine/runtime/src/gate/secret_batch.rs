//! Many secrets at the gate: each is decided on and looked up by itself, and what is wrong with one of them is told of that one.

use keymill_core::access::{Decision, Resource, Rule};
use keymill_core::audit::SecretTouch;
use keymill_core::blob::Blob;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::limit;
use keymill_core::operation::{Bin, FetchExtendedConfig, Operation, SecretAsked, check_asked};
use keymill_core::secret::context_of_secret;

use super::Gate;
use super::data::check_answer;
use crate::work::{AskedSecret, Contexts, Items, Job, NamedSecrets, OpenTask, OpenedSecret, Task};

/// Bytes that an answer holds of a secret beside its names and its value, at most.
const FRAMING_BYTES: usize = 512;

/// The rules that decided, as the audit wants them: the first that refused one of the secrets, else the first that allowed one.
#[derive(Default)]
struct Decided {
    allowed_by: Option<Rule>,
    denied_by: Option<Rule>,
}

impl Gate {
    /// Admits `BatchGetSecretValue` and `ExportSecrets`: the opening of what is asked for and can be opened.
    pub(super) fn admit_secrets(&self, job: &mut Job, list: Vec<SecretAsked>) -> Result<()> {
        check_asked(&list)?;
        let mut decided = Decided::default();
        let mut named = NamedSecrets::default();
        // What is refused stays an item that is none, so that it is counted with the others.
        let mut blobs = Vec::with_capacity(list.len());
        let mut contexts = Vec::with_capacity(list.len());
        for asked in list {
            let found = self.find_asked(job, &asked, &mut decided, &mut named.touches);
            let name = asked.secret_name.0;
            let (state, blob, context) = match found {
                Ok((opened, blob)) => {
                    let version = &opened.version.id;
                    let context = context_of_secret(&self.0.shared.config.instance, &name, version);
                    (Ok(opened), blob, Some(context))
                }
                Err(error) => (Err(error.into()), Bin::from(&b""[..]), None),
            };
            named.asked.push(AskedSecret::new(name, state));
            blobs.push(blob);
            contexts.push(context);
        }
        job.rule = decided.denied_by.or(decided.allowed_by);
        let bytes = named.asked.iter().zip(&blobs).map(|(asked, blob)| asked.name_bytes() + blob.len());
        check_answer(job, bytes.map(|bytes| bytes + FRAMING_BYTES))?;
        // At once: a buffer that grows leaves copies of opened texts behind.
        job.sheet.reserve(blobs.len(), blobs.iter().map(|blob| blob.len()).sum());
        let items = Items::gather(blobs.iter().map(|blob| &**blob));
        job.task = Task::Open(OpenTask::new(items, Contexts::Each(contexts), None, limit::SECRET_BYTES));
        job.secrets = Some(Box::new(named));
        Ok(())
    }

    /// Finds one secret of many with its sealed value, if the caller may read it; one that it may not looks like one that is not there.
    fn find_asked(
        &self,
        job: &Job,
        asked: &SecretAsked,
        decided: &mut Decided,
        touches: &mut Vec<SecretTouch>,
    ) -> Result<(OpenedSecret, Bin<'static>)> {
        let rights: &[Operation] = match job.operation {
            Some(Operation::ExportSecrets) => &[Operation::GetSecretValue, Operation::ExportSecrets],
            _ => &[Operation::GetSecretValue],
        };
        let name = &asked.secret_name.0;
        for right in rights {
            let Decision { allowed, rule } = self.decide(job, *right, Resource::Secret(name));
            if !allowed {
                decided.denied_by.get_or_insert(rule);
                return Err(Error::secret_not_found());
            }
            decided.allowed_by.get_or_insert(rule);
        }
        touches.push(SecretTouch { name: name.clone(), version: None });
        let entry = self.0.shared.keyring.secrets.find(name)?;
        let secret = &entry.secret;
        if secret.delete_at.is_some() {
            return Err(Error::secret_not_found());
        }
        let version = secret.asked(asked.version_id.as_ref(), asked.version_stage.as_ref())?.clone();
        if let Some(touch) = touches.last_mut() {
            touch.version = Some(version.id.clone());
        }
        let blob = self.blob_of(&entry, &version)?;
        // Each is under the key of its own secret, or it is no value of that.
        match Blob::parse(&blob).is_some_and(|parsed| parsed.header.cmk == secret.cmk) {
            true => {
                let fetch_extended = asked.fetch_extended_config == Some(FetchExtendedConfig::True);
                Ok((self.opened(secret, version, fetch_extended), blob))
            }
            false => {
                let why = "the stored value of the secret failed its check";
                Err(Error::new(ErrorKind::Quarantined, why))
            }
        }
    }
}
