//! `keymill approval`: dual control, as the second caller has it: what waits, and what is said of it.

use clap::{Args, Subcommand};
use keymill_core::id::ApprovalId;
use keymill_core::operation::{ApproveRequestRequest, ListApprovalsRequest, RejectRequestRequest};

use super::{Api, ClientArgs, ask, ask_all};
use crate::failure::Result;
use crate::output;

/// See and approve what waits for a second caller: the operations that dual_control.operations of the server's configuration lists
#[derive(Args, Clone, Debug)]
pub(crate) struct ApprovalArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: ApprovalCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum ApprovalCommand {
    /// List what waits, and what was approved and not carried out yet, with its parameters
    List,
    /// Approve a request, so that whoever asked can have it carried out by asking again; it takes another caller, with the same right
    Approve(Waiting),
    /// Take a request away that waits or was approved; whoever asked may do so as well
    Reject(Waiting),
}

#[derive(Args, Clone, Debug)]
struct Waiting {
    /// Its id, as `approval list` and the answer to whoever asked tell it
    #[arg(value_name = "ID")]
    id: ApprovalId,
}

/// Does what the command says.
pub(crate) fn run(args: ApprovalArgs) -> Result<()> {
    let api = Api::connect(&args.client)?;
    let timeout_ms = None;
    match args.command {
        ApprovalCommand::List => list(&api),
        ApprovalCommand::Approve(Waiting { id }) => {
            let reply = ask!(api, ApproveRequest, ApproveRequestRequest { approval_id: id, timeout_ms });
            let (operation, until) = (&reply.operation, reply.expire_time);
            api.done(&reply, format_args!("{operation} is approved until {until}: whoever asked asks again"))
        }
        ApprovalCommand::Reject(Waiting { id }) => {
            let request = RejectRequestRequest { approval_id: id.clone(), timeout_ms };
            let reply = ask!(api, RejectRequest, request);
            api.done(&reply, format_args!("{id} is rejected"))
        }
    }
}

fn list(api: &Api) -> Result<()> {
    let timeout_ms = None;
    let reply = ask_all!(api, ListApprovals, approvals, |page_number, page_size| {
        ListApprovalsRequest { page_number, page_size, timeout_ms }
    });
    if api.json {
        return output::json(&reply);
    }
    if reply.approvals.is_empty() {
        return output::line("nothing waits for a second caller");
    }
    // A card each: whoever approves reads all that is asked for, and a column would cut it.
    for row in &reply.approvals {
        output::card(&[
            ("id", &row.approval_id),
            ("operation", &output::harmless(&row.operation)),
            ("parameters", &output::harmless(&row.parameters)),
            ("asked by", &row.asked_by),
            ("from", &output::or_dash(row.source)),
            ("at", &row.ask_time),
            ("approved by", &output::or_dash(row.approved_by.as_ref())),
            ("until", &row.expire_time),
        ])?;
        output::line("")?;
    }
    Ok(())
}
