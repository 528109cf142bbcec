//! The command line: the commands, in the order in which a newcomer meets them, and where each is carried out.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

use crate::admin::{
    aap, access_key, alias, approval, ca, cert, data_key, instance, key, login, policy, role, secret,
};
use crate::batch::{self, BatchArgs, Direction};
use crate::credentials::{ServerArgs, Target};
use crate::failure::{Failure, Result};
use crate::{audit, demo, envelope, hsm, migrate, output, serve, tokens};

/// A self-hosted key management service and crypto engine
///
/// `keymill demo` shows what it does, `keymill serve` starts a server without any configuration, and the other commands talk to
/// one. Exit codes: 0 done, 1 refused or failed, 2 wrong use.
#[derive(Parser, Clone, Debug)]
#[command(name = "keymill", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show the main job end to end on an ephemeral server: a million records encrypted, decrypted and compared
    Demo(demo::DemoArgs),
    /// Start the server
    Serve(serve::ServeArgs),
    Login(login::LoginArgs),
    Key(key::KeyArgs),
    Alias(alias::AliasArgs),
    DataKey(data_key::DataKeyArgs),
    Secret(secret::SecretArgs),
    Cert(cert::CertArgs),
    Ca(ca::CaArgs),
    AccessKey(access_key::AccessKeyArgs),
    Aap(aap::AapArgs),
    Policy(policy::PolicyArgs),
    Role(role::RoleArgs),
    Approval(approval::ApprovalArgs),
    Instance(instance::InstanceArgs),
    Batch(BatchCommand),
    Envelope(envelope::EnvelopeArgs),
    /// Work with the audit log
    Audit(AuditCommand),
    Migrate(migrate::MigrateArgs),
    Hsm(hsm::HsmArgs),
    /// Measure every path beside its ceiling in one run, and print the ratios
    ///
    /// Exits 1 where a target is missed. What each row means: bench/README.md.
    Bench(keymill_bench::BenchArgs),
    /// Serve a PKCS#11 module to the server that started this
    #[command(hide = true)]
    HsmWorker,
    /// Become a program that `secret run` or `secret edit` started, with no signals blocked
    #[command(hide = true)]
    Exec {
        /// The program and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Print the version
    Version,
}

/// Encrypt, decrypt or re-encrypt columns of CSV and fields of NDJSON
#[derive(Args, Clone, Debug)]
struct BatchCommand {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    direction: BatchDirection,
}

#[derive(Subcommand, Clone, Debug)]
enum BatchDirection {
    /// Encrypt columns of CSV or fields of NDJSON
    Encrypt(BatchArgs),
    /// Decrypt what `batch encrypt` has encrypted, byte for byte
    Decrypt(BatchArgs),
    /// Encrypt anew, in the server, what `batch encrypt` has encrypted: under another key, or the newest version of the same
    Reencrypt(BatchArgs),
}

#[derive(Args, Clone, Debug)]
struct AuditCommand {
    #[command(subcommand)]
    command: AuditAction,
}

#[derive(Subcommand, Clone, Debug)]
enum AuditAction {
    Verify(audit::VerifyArgs),
    Search(audit::SearchArgs),
    Export(audit::ExportArgs),
}

/// Carries out what the command line says.
pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Login(args) => login::run(&args),
        Command::Key(args) => key::run(args),
        Command::Alias(args) => alias::run(args),
        Command::DataKey(args) => data_key::run(args),
        Command::Secret(args) => secret::run(args),
        Command::Cert(args) => cert::run(args),
        Command::Ca(args) => ca::run(args),
        Command::AccessKey(args) => access_key::run(args),
        Command::Aap(args) => aap::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Role(args) => role::run(args),
        Command::Approval(args) => approval::run(args),
        Command::Instance(args) => instance::run(args),
        Command::Batch(BatchCommand { server, direction }) => match direction {
            BatchDirection::Encrypt(args) => run_batch(Direction::Encrypt, &server, &args),
            BatchDirection::Decrypt(args) => run_batch(Direction::Decrypt, &server, &args),
            BatchDirection::Reencrypt(args) => run_batch(Direction::ReEncrypt, &server, &args),
        },
        Command::Envelope(args) => envelope::run(&args),
        Command::Audit(AuditCommand { command }) => match command {
            AuditAction::Verify(args) => audit::run(&args),
            AuditAction::Search(args) => audit::search(&args),
            AuditAction::Export(args) => audit::export(&args),
        },
        Command::Migrate(args) => migrate::run(&args),
        Command::HsmWorker => tokens::run_worker(),
        Command::Exec { command } => secret::child::become_program(&command),
        Command::Hsm(args) => hsm::run(args),
        Command::Bench(args) => run_bench(&args),
        Command::Version => output::line(format_args!("keymill {}", env!("CARGO_PKG_VERSION"))),
    }
}

fn run_bench(args: &keymill_bench::BenchArgs) -> Result<()> {
    let failed = |error: keymill_bench::BenchError| Failure::new(error.to_string());
    if let Some(ended) = keymill_bench::run_beside_tokens(args).map_err(failed)? {
        return match ended.success() {
            true => Ok(()),
            false => Err(Failure::told(ended)),
        };
    }
    let report = keymill_bench::run(args).map_err(failed)?;
    report.print(args.json).map_err(|error| Failure::new(error.to_string()))?;
    match report.all_met() {
        true => Ok(()),
        false => Err(Failure::new("a target is missed: the rows above say which")),
    }
}

fn run_batch(direction: Direction, server: &ServerArgs, args: &BatchArgs) -> Result<()> {
    let target = Target::find(server)?;
    let tcp = target.tcp_only()?.clone();
    let summary = batch::run(direction, args, batch::Target { tcp, credentials: target.credentials })
        .map_err(Failure::of_batch)?;
    match (args.output == batch::Place::Standard, args.json) {
        // Standard output has the rows.
        (true, _) => output::note(summary),
        (false, true) => output::json(&summary),
        (false, false) => output::line(summary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_says_what_it_is() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {} has no help", argument.get_id());
            }
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn server_flags_may_stand_before_and_behind_the_subcommand() {
        for line in [
            "keymill key --tcp h:1 list --json",
            "keymill key list --json --tcp h:1",
            "keymill key list --tcp h:1,i:1 --tcp j:1",
            "keymill batch --url http://h:1,http://i:1 encrypt --in a --out b",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        assert!(Cli::try_parse_from(["keymill", "serve", "--tcp", "h:1"]).is_err());
    }

    #[test]
    fn wrong_use_is_told_by_exit_code_2() {
        for line in [
            "keymill",
            "keymill key describe people",
            "keymill key schedule-deletion alias/a --days 6",
            "keymill bogus",
            "keymill envelope seal --in a --out b --key people",
            "keymill envelope seal --in a --out b --key alias/a --context k",
            "keymill envelope open --in a",
            "keymill audit search --since yesterday",
            "keymill audit search --source 10.0.0.0/33",
            "keymill audit search --key people",
            "keymill audit search --json --limit 3",
            "keymill secret put db --version v1 s3cret",
            "keymill secret put db --from -",
            "keymill secret stage db test",
            "keymill secret run --env A=db",
            "keymill secret run --env A -- true",
            "keymill secret template a",
            "keymill secret import a --format toml",
            "keymill secret export a",
            "keymill secret export --stdout",
            "keymill secret delete db --now --days 7",
            "keymill audit export",
            "keymill migrate --from old.toml",
            "keymill audit export --format xml --out -",
            "keymill envelope open --in a --out b --stdout",
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
