//! Dual control at the gate: what the installation lists is authorised as ever, and then waits until another caller, who may do it as well, has
//! approved it. Whoever asked asks again, and it is carried out; an approval is used once where it changes something, and stands until its time
//! is over where it gives out what it gave out before.

use std::sync::Arc;

use keymill_core::access::{APPROVAL_MS, AccessChange, Approval, Asker, Resource};
use keymill_core::blob::Blob;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{ApprovalId, KeyRef};
use keymill_core::operation::*;
use keymill_crypto::digest;
use serde_json::Value;

use super::Gate;
use super::access::{Answer, ROWS};
use super::plan::Plan;
use super::read::cut;
use crate::work::{Contexts, Job, Task, rights_of};

/// Bytes of the parameters of a request that waits, at most: whoever approves reads them.
const PARAMETERS_BYTES: usize = 64 * 1024;

/// A request that the installation has wait, as it is written.
pub(super) struct Held {
    operation: Operation,
    /// Aliases of keys resolved: who moves one meanwhile has nothing else approved.
    parameters: Value,
    /// The parameters as JSON.
    text: String,
}

impl Held {
    /// Reads the request anew from what is approved of it, so that nothing else is carried out.
    pub(super) fn request(&self) -> Result<Request<'_>> {
        Request::deserialize(self.operation, &self.parameters).map_err(Error::internal)
    }
}

impl Gate {
    /// Takes down a request that is to wait for a second caller; `None` where it is none.
    pub(super) fn held(&self, job: &Job, request: &Request<'_>) -> Result<Option<Held>> {
        let operation = request.operation();
        if job.is_dry_run || !self.0.shared.config.dual_control.contains(&operation) {
            return Ok(None);
        }
        let mut parameters = serde_json::to_value(request).map_err(Error::internal)?;
        if let Some(fields) = parameters.as_object_mut() {
            fields.remove("TimeoutMs");
            // What only who may see the key is told, where an alias stands for it: for others it stays, and is not found.
            for (name, value) in fields.iter_mut() {
                match value {
                    Value::Array(resources) if name == "Resources" => resources
                        .iter_mut()
                        .for_each(|resource| self.resolve(job, resource, Operation::DescribeKey, "key/")),
                    // The one of them that takes an alias for a key.
                    _ if name == "KeyId" && operation == Operation::GenerateAndExportDataKey => {
                        self.resolve(job, value, operation, "");
                    }
                    _ => {}
                }
            }
        }
        let text = parameters.to_string();
        match text.len() <= PARAMETERS_BYTES {
            true => Ok(Some(Held { operation, parameters, text })),
            false => Err(Error::new(
                ErrorKind::InvalidParameter,
                format!(
                    "the parameters have {} bytes as JSON: a second caller is shown {PARAMETERS_BYTES} at most",
                    text.len()
                ),
            )),
        }
    }

    /// Puts a key in the place of an alias of it, where the caller may do `right` with it.
    fn resolve(&self, job: &Job, named: &mut Value, right: Operation, prefix: &str) {
        let Some(KeyRef::Alias(name)) = named.as_str().map(KeyRef::parse) else { return };
        if let Some(entry) = self.0.shared.keyring.alias(&name)
            && self.decide(job, right, Resource::Key(entry.cmk)).allowed
        {
            *named = format!("{prefix}{}", entry.cmk).into();
        }
    }

    /// Authorises what is asked for else as an item is opened: the use of the key that a blob names. It says as little as that does.
    fn check_opens(&self, job: &mut Job) -> Result<()> {
        let elsewhere = Task::Refused(Error::internal("the task is looked at"));
        let task = std::mem::replace(&mut job.task, elsewhere);
        let checked = match &task {
            // Of many secrets each is decided by itself; what waits is asked for as a whole.
            Task::Open(_) if job.secrets.as_ref().is_some_and(|secrets| !secrets.are_all_found()) => {
                Err(Error::secret_not_found())
            }
            Task::Open(task) => (0..task.items.len()).try_for_each(|i| {
                rights_of(job).iter().try_for_each(|right| {
                    let blob = Blob::parse(task.items.get(i)).ok_or_else(Error::invalid_ciphertext)?;
                    let context = task.keys.contexts.get(i).cloned().map_or(Contexts::None, Contexts::Common);
                    self.find_key_under(job, &KeyRef::Id(blob.header.cmk), *right, &context).map(drop)
                })
            }),
            _ => Ok(()),
        };
        job.task = task;
        checked
    }

    /// Lets a request that was authorised go on where it is approved, and else has it wait. `plan` is what it comes to, where it changes something.
    pub(super) fn pass(&self, job: &mut Job, held: &Held, plan: Option<Plan>) -> Result<Option<Plan>> {
        self.check_opens(job)?;
        let now = self.now();
        let asked_by = Asker::of(&job.call.principal);
        let caller = asked_by.caller().to_string();
        let text = ["keymill approval", &caller, held.operation.name(), &held.text].join("\0");
        let id = format!("APR.{}", digest::hex(&digest::sha256(text.as_bytes())[..16]));
        let id: ApprovalId = id.parse()?;
        let access = self.0.shared.access.read();
        let stands = |known: &&Arc<Approval>| {
            known.stands_at(now) && known.is_of(held.operation, &held.text, &asked_by)
        };
        let approved = access.approval(&id).filter(stands);
        let by = approved.and_then(|known| known.approved_by.as_ref());
        // Whoever was taken away since approves nothing any more.
        if let Some(by) = by.filter(|by| access.admits(&by.principal(), now)) {
            job.approved_by = Some(by.key.as_str().into());
            return Ok(plan.map(|plan| Plan::Approved { id, plan: Box::new(plan) }));
        }
        let approval = Approval {
            id,
            operation: held.operation.name().to_owned(),
            parameters: held.text.clone(),
            asked_by,
            source: job.call.source,
            asked_at: now,
            approved_by: None,
            expires_at: keymill_core::Timestamp::from_ms(now.as_ms() + APPROVAL_MS),
        };
        Ok(Some(Plan::AskApproval(Box::new(approval))))
    }

    /// Authorises what is said of a request that waits.
    pub(super) fn plan_approval(&self, job: &mut Job, request: Request<'_>) -> Result<Plan> {
        let now = self.now();
        let by = Asker::of(&job.call.principal);
        let (change, answer): (AccessChange, Answer) = match request {
            Request::ApproveRequest(r) => {
                self.require(job, Operation::ApproveRequest, Resource::Nothing)?;
                let waiting = Approval::clone(self.0.shared.access.read().waiting(&r.approval_id, now)?);
                self.check_approver(job, &waiting)?;
                let (operation, expire_time) = (waiting.operation, waiting.expires_at);
                let answer = move |request_id| {
                    Reply::ApproveRequest(ApproveRequestReply { operation, expire_time, request_id })
                };
                (AccessChange::Approve { id: r.approval_id, by, now }, Box::new(answer))
            }
            Request::RejectRequest(r) => {
                let id = r.approval_id;
                let access = self.0.shared.access.read();
                let own = access.approval(&id).is_some_and(|known| known.asked_by.caller() == by.caller());
                let may = self.decide(job, Operation::RejectRequest, Resource::Nothing);
                job.rule = Some(may.rule);
                if !may.allowed && !own {
                    return Err(Error::new(ErrorKind::Denied, "the caller may not do this"));
                }
                let answer = |request_id| Reply::RejectRequest(RejectRequestReply { request_id });
                (AccessChange::EndApproval { id, used: false, now }, Box::new(answer))
            }
            other => return Err(Error::internal(format!("{} approves nothing", other.operation().name()))),
        };
        Ok(Plan::ChangeAccess(change, answer))
    }

    /// Checks that the approver may do what it approves.
    fn check_approver(&self, job: &Job, waiting: &Approval) -> Result<()> {
        let operation = Operation::by_name(&waiting.operation)
            .ok_or_else(|| Error::internal("what waits is an operation of another version"))?;
        let parameters: Value = serde_json::from_str(&waiting.parameters).map_err(Error::internal)?;
        let request = Request::deserialize(operation, &parameters).map_err(Error::internal)?;
        let refused = Task::Refused(Error::internal("it is only asked for"));
        let mut asked = Job::new(job.call.clone(), Some(operation), refused);
        let may = match operation.class() {
            Class::Management => self.plan(&mut asked, request).map(drop),
            Class::Data => {
                self.admit_data(&mut asked, request, None, false).and_then(|()| self.check_opens(&mut asked))
            }
            Class::Read => Ok(()),
        };
        may.map_err(|error| match error.kind() {
            ErrorKind::Denied | ErrorKind::KeyNotFound | ErrorKind::ResourceNotFound => Error::new(
                ErrorKind::Denied,
                "whoever approves a request must have the right to what it asks for",
            ),
            _ => error,
        })
    }

    /// Returns how many requests wait that nobody has approved.
    pub(super) fn waiting(&self) -> usize {
        let now = self.now();
        let waits = |known: &&Arc<Approval>| known.is_at(now) && known.approved_by.is_none();
        self.0.shared.access.read().approvals().filter(waits).count()
    }

    /// Lists what waits, and what was approved and not carried out yet.
    pub(super) fn list_approvals(&self, job: &mut Job, r: ListApprovalsRequest) -> Result<Reply<'static>> {
        self.require(job, Operation::ListApprovals, Resource::Nothing)?;
        let page = PageRequest::with_default(r.page_number, r.page_size, ROWS)?;
        let (access, now) = (self.0.shared.access.read(), self.now());
        let mut known: Vec<&Arc<Approval>> = access.approvals().filter(|known| known.is_at(now)).collect();
        known.sort_unstable_by(|a, b| (a.asked_at, &a.id).cmp(&(b.asked_at, &b.id)));
        let (rows, total_count) = cut(known, page);
        let row = |known: &Arc<Approval>| ApprovalRow {
            approval_id: known.id.clone(),
            operation: known.operation.clone(),
            parameters: known.parameters.clone(),
            asked_by: known.asked_by.caller().to_string(),
            source: known.source,
            ask_time: known.asked_at,
            approved_by: known.approved_by.as_ref().map(|by| by.caller().to_string()),
            expire_time: known.expires_at,
        };
        Ok(Reply::ListApprovals(ListApprovalsReply {
            approvals: rows.into_iter().map(row).collect(),
            page_number: page.number,
            page_size: page.size,
            total_count,
            request_id: job.call.request_id,
        }))
    }
}

/// Returns what whoever asks is told.
pub(super) fn approval_needed(id: &ApprovalId) -> Error {
    Error::new(
        ErrorKind::ApprovalNeeded,
        format!("it waits for a second caller to approve {id} within 24 hours; ask again then"),
    )
}
