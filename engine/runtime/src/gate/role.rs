//! Roles of an installation's own at the gate: read from what is published, and changed by the policy actor. They are decided as access keys
//! are, since they say what those may do.

use keymill_core::access::{AccessChange, AccessKey, CustomRole, Resource, Role, RoleRef};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::RoleName;
use keymill_core::operation::*;

use super::Gate;
use super::access::{Answer, ROWS, by_name};
use super::parameters::describe;
use super::plan::Plan;
use crate::work::Job;

impl Gate {
    /// Authorises a change of roles, and checks its parameters.
    pub(super) fn plan_role(&self, job: &mut Job, request: Request<'_>) -> Result<Plan> {
        self.require(job, request.operation(), Resource::AccessKeys)?;
        let created_at = self.now();
        let (change, answer): (AccessChange, Answer) = match request {
            Request::CreateRole(r) => {
                let description = describe(r.description.unwrap_or_default())?;
                let role = CustomRole { name: r.name, description, actions: r.actions, created_at };
                self.check_role(job, &role)?;
                let (name, arn) = (role.name.clone(), self.name_arn("role", role.name.as_str()));
                let answer = move |request_id| Reply::CreateRole(CreateRoleReply { name, arn, request_id });
                (AccessChange::CreateRole(role), Box::new(answer))
            }
            Request::UpdateRole(r) => {
                let description = r.description.map(describe).transpose()?;
                self.check_holders(job, &r.name)?;
                if let Some(actions) = &r.actions {
                    let (name, actions) = (r.name.clone(), actions.clone());
                    self.check_role(
                        job,
                        &CustomRole { name, description: String::new(), actions, created_at },
                    )?;
                }
                let change = AccessChange::UpdateRole { name: r.name, actions: r.actions, description };
                (change, Box::new(|request_id| Reply::UpdateRole(UpdateRoleReply { request_id })))
            }
            Request::DeleteRole(r) => {
                let answer = |request_id| Reply::DeleteRole(DeleteRoleReply { request_id });
                (AccessChange::DeleteRole(r.name), Box::new(answer))
            }
            other => return Err(Error::internal(format!("{} is of no role", other.operation().name()))),
        };
        Ok(Plan::ChangeAccess(change, answer))
    }

    /// Checks that nobody changes by a role what an access key may do that it could not change itself: one that has `Root` is changed by `Root` alone,
    /// also in what it is denied.
    fn check_holders(&self, job: &Job, name: &RoleName) -> Result<()> {
        let access = self.0.shared.access.read();
        let holds = |key: &AccessKey| key.grants.iter().any(|grant| grant.role.custom() == Some(name));
        let is_of_root = access.access_keys.values().any(|key| key.has_root() && holds(key));
        match is_of_root && !self.is_root(&job.call.principal.access_key) {
            true => Err(Error::new(
                ErrorKind::Denied,
                "only Root can change a role that an access key with Root has",
            )),
            false => Ok(()),
        }
    }

    /// Checks what a role covers: what only `Root` may do is given by `Root` alone.
    fn check_role(&self, job: &Job, role: &CustomRole) -> Result<()> {
        match role.exceeds_administrators()? && !self.is_root(&job.call.principal.access_key) {
            true => Err(Error::new(ErrorKind::Denied, "only Root can make a role of what Root alone may do")),
            false => Ok(()),
        }
    }

    /// Tells whether only `Root` can grant the role.
    pub(super) fn is_given_by_root_alone(&self, role: &RoleRef) -> bool {
        match role {
            RoleRef::BuiltIn(role) => *role == Role::Root,
            RoleRef::Custom(name) => {
                let access = self.0.shared.access.read();
                // One that cannot be judged gives nothing, and may be another to a later version.
                access.role(name).is_some_and(|role| role.exceeds_administrators().unwrap_or(true))
            }
        }
    }

    /// Answers what is asked of roles.
    pub(super) fn read_role(&self, job: &mut Job, request: Request<'_>) -> Result<Reply<'static>> {
        self.require(job, request.operation(), Resource::AccessKeys)?;
        let request_id = job.call.request_id;
        let access = self.0.shared.access.read();
        Ok(match request {
            Request::DescribeRole(r) => {
                let not_found = || Error::new(ErrorKind::ResourceNotFound, "the specified role is not found");
                let role = CustomRole::clone(access.role(&r.name).ok_or_else(not_found)?);
                Reply::DescribeRole(DescribeRoleReply {
                    arn: self.name_arn("role", role.name.as_str()),
                    name: role.name,
                    actions: role.actions,
                    description: role.description,
                    request_id,
                })
            }
            Request::ListRoles(r) => {
                let page = PageRequest::with_default(r.page_number, r.page_size, ROWS)?;
                let (rows, total_count) = by_name(access.roles().map(|role| (&role.name, role)), page);
                let row = |(name, role): (&RoleName, &std::sync::Arc<CustomRole>)| RoleRow {
                    name: name.clone(),
                    description: role.description.clone(),
                };
                Reply::ListRoles(ListRolesReply {
                    roles: rows.into_iter().map(row).collect(),
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                })
            }
            other => {
                return Err(Error::internal(format!("{} is no read of roles", other.operation().name())));
            }
        })
    }
}
