//! New CMKs: of material that was made for them, that stays in a token, or that is yet to be imported.

use std::sync::Arc;

use actix::{Handler, Message};
use keymill_core::access::KeyPolicy;
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{AccessKeyId, CertificateId, CmkId, KeyVersionId};
use keymill_core::key::{
    BulkMode, Cmk, Fallback, KeySpec, KeyState, KeyUsage, KeyVersion, KeyVersions, Origin, ProtectionLevel,
    RotationInterval, Tags,
};
use keymill_core::seam::provider::TokenObject;
use keymill_crypto::random;

use super::{KeyringActor, keeping, touched};
use crate::actor::{Changed, Made};
use crate::keyring::{CmkEntry, Stamp, VersionEntry};
use crate::pool::Closed;
use crate::records::{self, InstallationRecord, Kind};

/// What a new CMK is made of.
pub(crate) enum Material {
    /// Material that was made for it.
    Made(Box<Made>),
    /// Material that is yet to be imported.
    Awaited { spec: KeySpec, usage: KeyUsage, bulk_mode: Option<BulkMode> },
}

/// Makes a CMK.
pub(crate) struct CreateCmk {
    pub(crate) material: Material,
    pub(crate) protection: ProtectionLevel,
    pub(crate) fallback: Fallback,
    pub(crate) description: String,
    pub(crate) creator: AccessKeyId,
    pub(crate) rotation: Option<RotationInterval>,
    pub(crate) tags: Tags,
    pub(crate) policy: Option<KeyPolicy>,
}

impl Message for CreateCmk {
    type Result = Result<Changed<Arc<CmkEntry>>>;
}

impl Handler<CreateCmk> for KeyringActor {
    type Result = Result<Changed<Arc<CmkEntry>>>;

    fn handle(&mut self, message: CreateCmk, _: &mut Self::Context) -> Self::Result {
        self.create(message, Owner::None)
    }
}

/// Counts the keys that would be left behind by tokens that are closed to keys. None is made behind its back that would be, too.
pub(crate) struct CountLeftBehind(pub(crate) Arc<Closed>);

impl Message for CountLeftBehind {
    type Result = Result<usize>;
}

impl Handler<CountLeftBehind> for KeyringActor {
    type Result = Result<usize>;

    fn handle(&mut self, CountLeftBehind(closed): CountLeftBehind, _: &mut Self::Context) -> Self::Result {
        let keyring = &self.shared.keyring;
        let stays = |entry: &Arc<CmkEntry>| {
            entry.cmk.token_serial.as_deref().is_some_and(|serial| closed.leaves_behind(serial))
        };
        Ok(keyring.ids().iter().filter_map(|id| keyring.cmk(id)).filter(stays).count())
    }
}

/// What a CMK is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// For whoever asks for it.
    None,
    /// For the secrets that name none.
    Secrets,
    /// To be the key of a certificate.
    Certificate(CertificateId),
}

impl KeyringActor {
    /// Creates a CMK.
    pub(super) fn create(&mut self, message: CreateCmk, owner: Owner) -> Result<Changed<Arc<CmkEntry>>> {
        let of_secrets = owner == Owner::Secrets;
        let certificate = match owner {
            Owner::Certificate(id) => Some(Box::new(id)),
            Owner::None | Owner::Secrets => None,
        };
        let CreateCmk { material, protection, fallback, description, creator, rotation, tags, policy } =
            message;
        let (spec, usage, bulk_mode, stays) = match &material {
            Material::Made(made) => {
                let key = &made.key;
                (key.spec, key.usage, key.bulk_mode, key.token_object().cloned())
            }
            Material::Awaited { spec, usage, bulk_mode } => (*spec, *usage, *bulk_mode, None),
        };
        // Once more: others may have been made since it was planned.
        self.shared.check_room(Limit::Keys).inspect_err(|_| Made::log_left_behind(stays.as_ref()))?;
        if let Some(object) = &stays {
            let open = self.shared.pool.check_open_to_keys(&object.serial);
            open.inspect_err(|_| Made::log_left_behind(stays.as_ref()))?;
        }
        let is_awaited = matches!(material, Material::Awaited { .. });
        if let Some(object) = stays.as_ref().filter(|object| object.adopted) {
            self.refuse_doubled(object)?;
        }
        let now = self.shared.clock.now();
        let id = CmkId::from_random(random::array()?);
        let version =
            KeyVersion { number: 1, id: KeyVersionId::from_random(random::array()?), created_at: now };
        let mut cmk = Cmk {
            id,
            spec,
            usage,
            origin: match &stays {
                Some(object) if object.adopted => Origin::Adopted,
                _ if is_awaited => Origin::External,
                _ => Origin::AliyunKms,
            },
            protection,
            bulk_mode,
            fallback,
            token_serial: stays.as_ref().map(|object| object.serial.as_str().into()),
            state: if is_awaited { KeyState::PendingImport } else { KeyState::Enabled },
            description: description.into(),
            creator,
            created_at: now,
            delete_at: None,
            rotation: None,
            deletion_protection: None,
            policy,
            tags,
            certificate,
            external: is_awaited.then(Box::default),
            versions: KeyVersions::from([version.clone()]),
        };
        if let Some(interval) = rotation {
            cmk.rotation = Some(keeping::policy(&cmk, interval, now)?);
        }
        let mut drafts = vec![self.draft(records::cmk_path(&id), Kind::Cmk, None, &cmk)?];
        let version = match material {
            Material::Made(made) => {
                let (draft, version) = self.material(&id, &version, *made)?;
                drafts.push(draft);
                version
            }
            Material::Awaited { .. } => Arc::new(VersionEntry::new(version.number, version.id, None)),
        };
        let installation = InstallationRecord { secret_cmk: Some(id), ..self.installation.clone() };
        if of_secrets {
            let (path, kind) = (records::installation_path(), Kind::Installation);
            drafts.push(self.draft(path, kind, self.installation_stamp, &installation)?);
        }
        let committed = self.commit(drafts).inspect_err(|_| Made::log_left_behind(stays.as_ref()));
        let (revision, mut writes) = committed?;
        // The audit remembers no writes of the installation's own record.
        if let Some(write) = of_secrets.then(|| writes.pop()).flatten() {
            self.installation = installation;
            self.installation_stamp = Some(Stamp { revision, sequence: write.sequence });
            self.shared.keyring.secrets.set_cmk(Some(id));
        }
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        let entry = Arc::new(CmkEntry::first(cmk, [version].into_iter().collect(), stamp));
        self.shared.keyring.publish(entry.clone());
        Ok(Changed { keys: touched(&entry), value: entry, writes })
    }

    /// Refuses a key of a token that is the material of a CMK already: each would count its messages for itself.
    fn refuse_doubled(&self, object: &TokenObject) -> Result<()> {
        let stay = |entry: &Arc<CmkEntry>| entry.cmk.token_serial.as_deref() == Some(&*object.serial);
        let ids = self.shared.keyring.ids();
        for entry in ids.iter().filter_map(|id| self.shared.keyring.cmk(id)).filter(stay) {
            for version in &entry.versions {
                // One that is damaged cannot be compared, and serves nobody.
                let Ok(key) = self.shared.stored_key(&entry, version) else { continue };
                if key.token_object().is_some_and(|other| other.id == object.id) {
                    let message =
                        format!("the key is version {} of CMK {} already", version.number, entry.cmk.id);
                    return Err(Error::new(ErrorKind::StateConflict, message));
                }
            }
        }
        Ok(())
    }
}
