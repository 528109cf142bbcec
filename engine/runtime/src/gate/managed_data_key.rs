//! Managed data keys at the gate: found by name and by the rights to their CMK, made like any data key, and opened like one.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::access::{Decision, Resource};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CmkId, DataKeyName, DataKeyVersionId, KeyRef};
use keymill_core::key::{context_of_data_key, data_key_version_name};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_crypto::random;

use super::data::common;
use super::manage::{Done, done};
use super::read::cut;
use super::{Call, Gate};
use crate::actor::Owners;
use crate::actor::keyring::{PutDataKey, data_key_not_found};
use crate::keyring::DataKeyEntry;
use crate::work::{Contexts, Job, NamedDataKey, Sealing, Sheet, Task};

/// A version of a managed data key that is to be made.
pub(super) struct WantedDataKey {
    pub(super) name: DataKeyName,
    pub(super) cmk: CmkId,
    pub(super) bytes: usize,
    /// Whether it is the first one.
    pub(super) create: bool,
}

impl Gate {
    /// Finds a managed data key of whose CMK the caller has all these rights; one that it may not have looks like one that is not there.
    pub(super) fn find_data_key(
        &self,
        job: &mut Job,
        name: &DataKeyName,
        rights: &[Operation],
    ) -> Result<Arc<DataKeyEntry>> {
        let entry = self.0.shared.keyring.data_key(name).ok_or_else(data_key_not_found)?;
        for right in rights {
            let Decision { allowed, rule } = self.decide(job, *right, Resource::Key(entry.key.cmk));
            job.rule = Some(rule);
            if !allowed {
                return Err(data_key_not_found());
            }
        }
        Ok(entry)
    }

    /// Admits `GetManagedDataKey`: the opening of the version that is asked for.
    pub(super) fn admit_data_key(&self, job: &mut Job, r: GetManagedDataKeyRequest) -> Result<()> {
        let latest = r.use_latest.unwrap_or(false);
        if latest && r.data_key_version_id.is_some() {
            let why = "DataKeyVersionId and UseLatest exclude each other";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        let name = r.data_key_name;
        let right = Operation::GetManagedDataKey;
        let entry = self.find_data_key(job, &name, &[Operation::Decrypt, right])?;
        let key = &entry.key;
        let version = key.version(r.data_key_version_id.as_ref(), latest).ok_or_else(data_key_not_found)?;
        let contexts = common(job, Some(context_of_data_key(&name, &version.id)));
        let (blob, under) = (std::slice::from_ref(&version.blob), KeyRef::Id(key.cmk));
        let open = self.source(job, blob, None, contexts, Some(&under), limit::BATCH_ITEM_BYTES, right)?;
        job.data_key = Some(Box::new(NamedDataKey { name, version: version.id }));
        job.task = Task::Open(open);
        Ok(())
    }

    /// Makes a version of a managed data key, and keeps it.
    pub(super) async fn make_data_key(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        WantedDataKey { name, cmk, bytes, create }: WantedDataKey,
        deadline: Instant,
    ) -> Result<Done> {
        let version = DataKeyVersionId::from_random(random::array()?);
        let blob = self.seal_data_key(call, cmk, bytes, (&name, &version), deadline).await?;
        let put = PutDataKey { name: name.clone(), cmk, bytes, version, blob, create };
        let changed = actors.keyring(put).await?;
        let (request_id, whole) = (call.request_id, data_key_version_name(&name, &version));
        let reply = match create {
            true => Reply::CreateManagedDataKey(CreateManagedDataKeyReply {
                data_key_name: name,
                data_key_version_id: version,
                data_key_version_name: whole,
                key_id: cmk,
                request_id,
            }),
            false => Reply::CreateManagedDataKeyVersion(CreateManagedDataKeyVersionReply {
                data_key_name: name,
                data_key_version_id: version,
                data_key_version_name: whole,
                request_id,
            }),
        };
        Ok(done(reply, changed))
    }

    /// Has a data key made and sealed where data keys of that CMK are; the use of the CMK has its own record.
    async fn seal_data_key(
        &self,
        call: &Call,
        cmk: CmkId,
        bytes: usize,
        (name, version): (&DataKeyName, &DataKeyVersionId),
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let entry = self.0.shared.keyring.cmk(&cmk).ok_or_else(Error::key_not_found)?;
        let to = self.sealing_under(entry)?;
        let contexts = Contexts::Common(context_of_data_key(name, version));
        let what = Sealing::DataKeys { count: 1, bytes, with_plaintext: false };
        let task = Task::Seal { to, contexts, what, done: 0 };
        let operation = Operation::GenerateDataKeyWithoutPlaintext;
        let job =
            Job { deadline, sheet: Sheet::plain(None), ..Job::new(call.clone(), Some(operation), task) };
        let gate = self.clone();
        // A desk waits for its token on the thread that it is on.
        let performed = tokio::task::spawn_blocking(move || gate.perform(Box::new(job))).await;
        let finished = performed.map_err(|_| Error::internal("the making of a data key was cut off"))??;
        finished.result?;
        let sealed = finished.sheet.item(0).ok_or_else(|| Error::internal("a data key was not made"))?;
        Ok(sealed.to_vec())
    }

    pub(super) fn list_data_keys(
        &self,
        job: &mut Job,
        r: &ListManagedDataKeysRequest,
    ) -> Result<Reply<'static>> {
        let page = PageRequest::new(r.page_number, r.page_size)?;
        let right = Operation::ListManagedDataKeys;
        let rows =
            self.0.shared.keyring.data_keys(|cmk| self.decide(job, right, Resource::Key(*cmk)).allowed);
        job.rule = Some(self.decide(job, right, Resource::Keys).rule);
        let (rows, total_count) = cut(rows, page);
        let row = |entry: Arc<DataKeyEntry>| ManagedDataKeyRow {
            data_key_name: entry.key.name.clone(),
            key_id: entry.key.cmk,
            number_of_bytes: entry.key.bytes,
            creation_date: entry.key.created_at,
            versions: entry.key.versions.len() as u64,
        };
        Ok(Reply::ListManagedDataKeys(ListManagedDataKeysReply {
            managed_data_keys: ManagedDataKeyList { managed_data_key: rows.into_iter().map(row).collect() },
            page_number: page.number,
            page_size: page.size,
            total_count,
            request_id: job.call.request_id,
        }))
    }

    pub(super) fn list_data_key_versions(
        &self,
        job: &mut Job,
        r: ListManagedDataKeyVersionsRequest,
    ) -> Result<Reply<'static>> {
        let page = PageRequest::new(r.page_number, r.page_size)?;
        let name = r.data_key_name;
        let entry = self.find_data_key(job, &name, &[Operation::ListManagedDataKeyVersions])?;
        let (rows, total_count) = cut(entry.key.versions.iter().collect(), page);
        let managed_data_key_version = rows
            .into_iter()
            .map(|version| ManagedDataKeyVersionRow {
                data_key_version_id: version.id,
                data_key_version_name: data_key_version_name(&name, &version.id),
                creation_date: version.created_at,
            })
            .collect();
        Ok(Reply::ListManagedDataKeyVersions(ListManagedDataKeyVersionsReply {
            data_key_name: name,
            managed_data_key_versions: ManagedDataKeyVersionList { managed_data_key_version },
            page_number: page.number,
            page_size: page.size,
            total_count,
            request_id: job.call.request_id,
        }))
    }
}
