//! `keymill login`: checks an access key with its server and keeps both in the file of the CLI, so that later commands need no
//! flags and no environment.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use clap::Args;
use keymill_core::operation::DescribeLimitsRequest;

use super::{Api, ask};
use crate::credentials::{CredentialsFile, Login, ServerArgs, Target, default_file, resolve};
use crate::failure::{Failure, Result};
use crate::{output, private};

/// Check an access key and keep it, with the server's addresses, for later commands
///
/// Server and access key are found as every command finds them: by --tcp, --url and --credentials, then by KEYMILL_TCP,
/// KEYMILL_URL, KEYMILL_SERVER_NAME, KEYMILL_CA, KEYMILL_CLIENT_CERTIFICATE, KEYMILL_CLIENT_KEY, KEYMILL_ACCESS_KEY_ID and KEYMILL_ACCESS_KEY_SECRET, then in $XDG_CONFIG_HOME/keymill/credentials.json (else
/// ~/.config/keymill/credentials.json), which is the file that this command writes. A secret is never taken from the command line,
/// where other users could see it.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Checks and keeps.
pub(crate) fn run(args: &LoginArgs) -> Result<()> {
    let path = default_file().ok_or_else(|| Failure::new("neither XDG_CONFIG_HOME nor HOME is set"))?;
    let mut file = resolve(&args.server)?;
    if !matches!(file.login, Login::AccessKey) {
        return Err(Failure::wrong_use("only an access key is kept, and this is another way to log in")
            .next("give it to each command: --credentials FILE, or --by-certificate; or by its variables"));
    }
    // Later commands may be given in other directories.
    for kept in [&mut file.ca, &mut file.client_certificate, &mut file.client_key].into_iter().flatten() {
        *kept = private::absolute(kept)?;
    }
    let api = Api::to(Target::of_file(&file)?, false)?;
    let _limits = ask!(api, DescribeLimits, DescribeLimitsRequest::default());
    keep(&path, &file)?;
    output::line(format_args!("access key {} is kept in {}", file.access_key_id, path.display()))
}

fn keep(path: &Path, file: &CredentialsFile) -> Result<()> {
    if let Some(parent) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(Failure::because(parent.display()))?;
    }
    private::replace(path, file.encode().expose())
}
