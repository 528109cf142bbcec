//! What other nodes wrote of keys and of what is kept under them: published here as it was there.

use std::collections::HashMap;
use std::sync::Arc;

use keymill_core::audit::RecordStamp;
use keymill_core::error::Result;
use keymill_core::id::{AliasName, AuthorityName, CertificateId, CmkId, DataKeyName, SecretName};
use keymill_core::key::{Cmk, KeyState, KeyVersion};
use keymill_core::seam::store::Revision;
use keymill_crypto::record::tag_of;

use super::{KeyringActor, Parameters};
use crate::actor::follow::{self, Follows, News, catches_up};
use crate::assembly::Tag;
use crate::authorities::{AuthorityEntry, CrlEntry};
use crate::certificates::CertificateEntry;
use crate::cluster::{Owner, Written};
use crate::keyring::{AliasEntry, CmkEntry, DataKeyEntry, Ended, Stamp, VersionEntry};
use crate::load;
use crate::records::{self, EndedRecord, InvocationsRecord};
use crate::scan::What;
use crate::secrets::SecretEntry;

catches_up!(KeyringActor);

/// What a commit says of material: the tag of the new one, or that there is none any more.
type Materials = HashMap<(CmkId, u32), Option<Tag>>;

/// What ended.
#[derive(Debug, PartialEq, Eq)]
enum Gone {
    Cmk(CmkId),
    Invocations(CmkId),
    Import(CmkId),
    Alias(AliasName),
    DataKey(DataKeyName),
    Secret(SecretName),
    Certificate(CertificateId),
    Authority(AuthorityName),
    Crl(AuthorityName),
    Material(CmkId, u32),
    /// What goes with another record, which says so: values, and bytes.
    Companion,
}

impl Gone {
    /// Returns what stood at a path, `name` being what the mark of its end says.
    fn of(path: &str, name: Option<&str>) -> Option<Self> {
        let (kind, rest) = path.split_once('/')?;
        let by_name = || rest.strip_prefix('n')?.parse().ok();
        Some(match kind {
            "cmk" => Self::Cmk(CmkId::parse(rest)?),
            "invocations" => Self::Invocations(CmkId::parse(rest)?),
            "import" => Self::Import(CmkId::parse(rest)?),
            "alias" => Self::Alias(name?.parse().ok()?),
            "data-key" => Self::DataKey(name?.parse().ok()?),
            "secret" => Self::Secret(name?.parse().ok()?),
            "certificate" => Self::Certificate(CertificateId::parse(rest)?),
            "authority" => Self::Authority(by_name()?),
            "crl" => Self::Crl(by_name()?),
            "material" => {
                let (id, number) = rest.split_once('/')?;
                Self::Material(CmkId::parse(id)?, number.parse().ok()?)
            }
            "secret-value" | "certificate-body" => Self::Companion,
            _ => return None,
        })
    }
}

impl Follows for KeyringActor {
    const OWNER: Owner = Owner::Keyring;

    fn caught_up(&mut self) {
        self.read_unread();
    }

    fn follow(&mut self, commit: Vec<Written>) -> Vec<RecordStamp> {
        let (companions, others): (Vec<_>, Vec<_>) = commit.into_iter().partition(is_companion);
        // What a key has of material was written with the key.
        let mut materials = Materials::new();
        for written in &companions {
            match (&written.what, written.mark) {
                (Some(What::Material(Some(of))), Some((_, tag))) => drop(materials.insert(*of, Some(tag))),
                (Some(What::Ended(_)), _) => {
                    if let Some(Gone::Material(id, number)) = Gone::of(&written.path, None) {
                        materials.insert((id, number), None);
                    }
                }
                _ => {}
            }
        }
        let mut taken = Vec::new();
        for written in others {
            self.follow_one(written, &materials, &mut taken);
        }
        if !taken.is_empty() {
            companions.into_iter().for_each(|written| self.note_companion(written, &mut taken));
        }
        taken
    }
}

/// Tells whether a record is one that stands under another one's word.
fn is_companion(written: &Written) -> bool {
    let kind = written.path.split('/').next().unwrap_or_default();
    written.what.is_some() && ["material", "secret-value", "certificate-body"].contains(&kind)
}

impl KeyringActor {
    /// Takes over what stands at a path now, before it comes by itself.
    pub(super) fn refresh(&mut self, path: &str) -> Result<()> {
        let shared = self.shared.clone();
        follow::refresh(self, &shared, path)
    }

    fn note_companion(&mut self, written: Written, taken: &mut Vec<RecordStamp>) {
        let Written { path, mark, revision, what } = written;
        let Some((sequence, tag)) = mark else { return };
        let stamp = Stamp { revision, sequence };
        let tag = match what {
            Some(What::Ended(Ok((record, _)))) => {
                self.ended.insert(path.clone().into(), Ended::marked(stamp, record.at));
                None
            }
            Some(What::Ended(Err(_))) => return,
            _ => Some(tag),
        };
        taken.push(follow::seen(&path, stamp, tag));
    }

    fn follow_one(&mut self, written: Written, materials: &Materials, taken: &mut Vec<RecordStamp>) {
        let Written { path, mark, revision, what } = written;
        let shared = self.shared.clone();
        let Some(cluster) = &shared.cluster else { return };
        let Some(what) = what else {
            if follow::vanished(self.ended.get_mut(&*path)) {
                cluster.reject(&path, "it was removed, and no node says that it ended");
                self.withdraw(&path, None, None);
            }
            return;
        };
        let name = what.name();
        let is_witnessed = !matches!(what, What::Installation(_));
        let is_end = matches!(what, What::Ended(_));
        match self.take_over(&path, revision, what, materials) {
            Ok(Some(stamp)) if is_witnessed => {
                let tag = mark.map(|(_, tag)| tag).filter(|_| !is_end);
                taken.push(follow::seen(&path, stamp, tag));
            }
            Ok(_) => {}
            Err(why) => {
                cluster.reject(&path, &why);
                self.withdraw(&path, Some(revision), name);
            }
        }
    }

    /// Takes away what was known of a path at which something stands that may not be there: something newer may be hidden by it. What comes next and
    /// is newer is published again.
    fn withdraw(&mut self, path: &str, revision: Option<Revision>, name: Option<Box<str>>) {
        const WHY: &str = "another record was put in the place of the stored one";
        let name = name.or_else(|| self.name_at(path));
        let Some(gone) = Gone::of(path, name.as_deref()) else { return };
        let (before, ended) = (self.stamp_of(&gone), self.ended.get(path).copied());
        let shared = self.shared.clone();
        let keyring = &shared.keyring;
        match &gone {
            Gone::Cmk(id) => keyring.quarantine(*id, WHY),
            Gone::Certificate(id) => keyring.certificates.quarantine(*id),
            Gone::Secret(_) => keyring.secrets.quarantine(path),
            Gone::Authority(_) => keyring.certificates.authorities.quarantine(path),
            // Nothing is sealed under nonces that cannot be counted.
            Gone::Invocations(id) => load::forget_invocations(keyring, id),
            _ => {}
        }
        self.end_followed(&gone);
        self.ended.insert(path.to_owned(), follow::refused(before, ended, revision));
    }

    /// Returns the name of what is known to stand at a path that has only a hash of it: what was put there need not say it.
    fn name_at(&self, path: &str) -> Option<Box<str>> {
        let keyring = &self.shared.keyring;
        let name: String = match path.split_once('/')?.0 {
            "alias" => {
                let aliases = keyring.aliases(|_| true).into_iter().map(|(name, _)| name);
                aliases.into_iter().find(|name| records::alias_path(name).as_str() == path)?.as_str().into()
            }
            "data-key" => {
                let all = keyring.data_keys(|_| true);
                let its =
                    all.iter().find(|entry| records::data_key_path(&entry.key.name).as_str() == path)?;
                its.key.name.as_str().into()
            }
            "secret" => {
                let all = keyring.secrets.matching("", |_| true);
                let its =
                    all.iter().find(|entry| records::secret_path(&entry.secret.name).as_str() == path)?;
                its.secret.name.as_str().into()
            }
            _ => return None,
        };
        Some(name.into())
    }

    /// Reads once more what material keys have of which that could not be read when they were taken over.
    pub(super) fn read_unread(&mut self) {
        for id in std::mem::take(&mut self.unread) {
            let Some(entry) = self.shared.keyring.cmk(&id) else { continue };
            if self.publish_followed(Some(&entry), &entry.cmk, entry.stamp, &Materials::new()) {
                self.unread.insert(id);
            }
        }
    }

    /// Publishes a record where it is newer than what is known; returns where it stands then.
    fn take_over(
        &mut self,
        path: &str,
        revision: Revision,
        what: What,
        materials: &Materials,
    ) -> std::result::Result<Option<Stamp>, String> {
        let shared = self.shared.clone();
        let keyring = &shared.keyring;
        let ended = self.ended.get(path).copied();
        macro_rules! newer {
            ($before:expr, $sequence:expr) => {
                match follow::judge($before, ended, revision, $sequence) {
                    // One that was written once more is published once more, at its place.
                    News::Newer(stamp) | News::Touched(stamp) => stamp,
                    News::Known => return Ok(None),
                    News::Refused(why) => return Err(why.to_owned()),
                }
            };
        }
        Ok(Some(match what {
            What::Cmk(id, opened) => {
                let (fresh, sequence) = opened?;
                if fresh.cmk.id != id {
                    return Err("it is the record of another key".to_owned());
                }
                let before = keyring.cmk(&id);
                let stamp = newer!(before.as_ref().map(|before| before.stamp), sequence);
                if self.publish_followed(before.as_deref(), &fresh.cmk, stamp, materials) {
                    self.unread.insert(id);
                }
                keyring.release(&id);
                stamp
            }
            // Each node counts for itself, and nobody remembers what was there before.
            What::Usage(id, node, opened) => {
                let node = node.filter(|node| shared.node().is_none_or(|own| own.as_str() != &**node));
                if let Some(node) = node {
                    keyring.elsewhere.put(id, &node, opened?.0);
                    keyring.cmk(&id).iter().for_each(|entry| self.note_worn(entry));
                }
                return Ok(None);
            }
            What::Ended(_) if path.starts_with("usage/") => return Ok(None),
            What::Invocations(id, opened) => {
                let (InvocationsRecord(rows), sequence) = opened?;
                let stamp = newer!(self.invocation_stamps.get(&id).copied(), sequence);
                self.invocation_stamps.insert(id, stamp);
                if let Some(entry) = keyring.cmk(&id) {
                    for version in &entry.versions {
                        let row = rows.iter().find(|row| row.0 == version.number);
                        row.into_iter().for_each(|row| version.in_use().invocations.raise(row.1));
                    }
                    self.note_worn(&entry);
                }
                stamp
            }
            What::Import(id, opened) => {
                let (record, sequence) = opened?;
                let stamp = newer!(self.imports.get(&id).map(|known| known.stamp), sequence);
                self.imports.insert(id, Parameters::of(&record, stamp));
                stamp
            }
            What::Alias(opened) => {
                let (record, sequence) = opened?;
                let stamp = newer!(keyring.alias(&record.name).map(|alias| alias.stamp), sequence);
                keyring.put_alias(record.name, AliasEntry { cmk: record.cmk, stamp });
                stamp
            }
            What::DataKey(opened) => {
                let (key, sequence) = opened?;
                let stamp = newer!(keyring.data_key(&key.name).map(|entry| entry.stamp), sequence);
                keyring.put_data_key(DataKeyEntry { key, stamp });
                stamp
            }
            What::Secret(opened) => {
                let (secret, sequence) = opened?;
                let stamp = newer!(keyring.secrets.secret(&secret.name).map(|entry| entry.stamp), sequence);
                keyring.secrets.put(SecretEntry { secret, stamp });
                stamp
            }
            What::Certificate(id, opened) => {
                let (certificate, sequence) = opened?;
                if certificate.id != id {
                    return Err("it is the record of another certificate".to_owned());
                }
                let stamp = newer!(keyring.certificates.certificate(&id).map(|entry| entry.stamp), sequence);
                keyring.certificates.put(CertificateEntry { certificate, stamp });
                stamp
            }
            What::Authority(opened) => {
                let (authority, sequence) = opened?;
                let authorities = &keyring.certificates.authorities;
                let before = authorities.authority(&authority.name).map(|entry| entry.stamp);
                let stamp = newer!(before, sequence);
                authorities.put(AuthorityEntry { authority, stamp });
                stamp
            }
            What::Crl(opened) => {
                let (record, sequence) = opened?;
                let authorities = &keyring.certificates.authorities;
                let stamp = newer!(authorities.crl(&record.authority).map(|crl| crl.stamp), sequence);
                let (name, crl) = CrlEntry::of(record, stamp);
                authorities.put_crl(name, crl);
                stamp
            }
            What::Installation(opened) => {
                let (record, sequence) = opened?;
                let stamp = newer!(self.installation_stamp, sequence);
                // What the clock of this node has done rests here, too.
                let rest_until_ms = record.rest_until_ms.max(self.installation.rest_until_ms);
                self.installation = records::InstallationRecord { rest_until_ms, ..record };
                self.installation_stamp = Some(stamp);
                keyring.secrets.set_cmk(self.installation.secret_cmk);
                stamp
            }
            What::Ended(opened) => {
                let (EndedRecord { at, name }, sequence) = opened?;
                let gone = Gone::of(path, name.as_deref()).ok_or("nobody's record")?;
                let stamp = newer!(self.stamp_of(&gone), sequence);
                self.end_followed(&gone);
                self.ended.insert(path.to_owned(), Ended::marked(stamp, at));
                stamp
            }
            _ => return Err("it is of no kind that stands there".to_owned()),
        }))
    }

    fn stamp_of(&self, gone: &Gone) -> Option<Stamp> {
        let keyring = &self.shared.keyring;
        match gone {
            Gone::Cmk(id) => keyring.cmk(id).map(|entry| entry.stamp),
            Gone::Invocations(id) => self.invocation_stamps.get(id).copied(),
            Gone::Import(id) => self.imports.get(id).map(|known| known.stamp),
            Gone::Alias(name) => keyring.alias(name).map(|alias| alias.stamp),
            Gone::DataKey(name) => keyring.data_key(name).map(|entry| entry.stamp),
            Gone::Secret(name) => keyring.secrets.secret(name).map(|entry| entry.stamp),
            Gone::Certificate(id) => keyring.certificates.certificate(id).map(|entry| entry.stamp),
            Gone::Authority(name) => {
                keyring.certificates.authorities.authority(name).map(|entry| entry.stamp)
            }
            Gone::Crl(name) => keyring.certificates.authorities.crl(name).map(|crl| crl.stamp),
            Gone::Material(..) | Gone::Companion => None,
        }
    }

    fn end_followed(&mut self, gone: &Gone) {
        let keyring = &self.shared.keyring;
        match gone {
            Gone::Cmk(id) => {
                if let Some(entry) = keyring.cmk(id) {
                    self.forget_key(&entry);
                }
            }
            Gone::Invocations(id) => drop(self.invocation_stamps.remove(id)),
            Gone::Import(id) => drop(self.imports.remove(id)),
            Gone::Alias(name) => keyring.remove_alias(name),
            Gone::DataKey(name) => keyring.remove_data_key(name),
            Gone::Secret(name) => keyring.secrets.remove(name),
            Gone::Certificate(id) => keyring.certificates.remove(id),
            Gone::Authority(name) => keyring.certificates.authorities.remove(name),
            // It goes with its authority.
            Gone::Crl(_) | Gone::Material(..) | Gone::Companion => {}
        }
    }

    /// Publishes a key as another node has it. Where it may no longer be used, or its material is another, what was made of it is forgotten. Tells
    /// whether some of its material could not be read: nothing is done with that until it is.
    fn publish_followed(
        &self,
        before: Option<&CmkEntry>,
        cmk: &Cmk,
        stamp: Stamp,
        materials: &Materials,
    ) -> bool {
        let id = cmk.id;
        let (mut is_other, mut is_unread) = (false, false);
        // Where not every commit was told, some of the material may have come with one that was not.
        let is_whole = before.is_some_and(|before| before.stamp.sequence + 1 == stamp.sequence);
        let mut read = |number: u32| match self.shared.stored(&records::material_path(&id, number)) {
            Ok(stored) => stored.and_then(|stored| tag_of(&stored.value)),
            Err(error) => {
                tracing::warn!(key = %id, %error, "the material of a key that another node has changed could not be read yet");
                is_unread = true;
                None
            }
        };
        let mut version = |of: &KeyVersion| {
            let old = before.and_then(|before| before.version(of.number)).filter(|old| old.id == of.id);
            let tag = match (old, materials.get(&(id, of.number))) {
                (_, Some(told)) => *told,
                (Some(old), None) if is_whole => old.material,
                _ => read(of.number),
            };
            match old {
                Some(old) if old.material == tag => old.clone(),
                Some(old) => {
                    is_other = true;
                    Arc::new(old.resealed(tag))
                }
                None => Arc::new(VersionEntry::new(of.number, of.id, tag)),
            }
        };
        let versions = cmk.versions.iter().map(&mut version).collect();
        let is_usable = cmk.state == KeyState::Enabled;
        let entry = match before {
            None => CmkEntry::first(cmk.clone(), versions, stamp),
            Some(before) => {
                let was_usable = before.cmk.state == KeyState::Enabled;
                let generation = before.generation + u64::from(is_usable != was_usable || is_other);
                before.next(cmk.clone(), versions, stamp, generation)
            }
        };
        self.shared.keyring.publish(Arc::new(entry));
        if let Some(before) = before.filter(|_| !is_usable || is_other) {
            self.shared.forget(before);
        }
        is_unread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_known_by_its_path_or_by_the_name_that_its_end_says() {
        let id = CmkId::from_bytes([7; 16]);
        assert_eq!(Gone::of(&format!("cmk/{id}"), None), Some(Gone::Cmk(id)));
        assert_eq!(Gone::of(&format!("material/{id}/3"), None), Some(Gone::Material(id, 3)));
        let alias: AliasName = "alias/a/b".parse().unwrap();
        assert_eq!(Gone::of("alias/na.b", Some("alias/a/b")), Some(Gone::Alias(alias)));
        assert_eq!(Gone::of("authority/nroot", None), Some(Gone::Authority("root".parse().unwrap())));
        assert_eq!(Gone::of("secret-value/00/1", None), Some(Gone::Companion));
        for (path, name) in [("alias/na.b", None), ("secret/00", None), ("cmk/x", None), ("other/x", None)] {
            assert_eq!(Gone::of(path, name), None, "{path}");
        }
    }
}
