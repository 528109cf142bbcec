//! Records that name others by their tags, so that none is taken for another: a secret its values, a certificate its bytes. What is written anew has
//! another tag, and who names it is told.

use keymill_core::certificate::ManagedCertificate;
use keymill_core::seam::store::{Entry, Path};
use keymill_core::secret::Secret;
use keymill_core::time::Timestamp;
use keymill_crypto::record::RecordSealer;

use super::safe::{self, Anew};
use crate::records::{self, Kind};

/// A record that names others.
pub(super) enum Parent {
    Secret(Box<Secret>),
    Certificate(Box<ManagedCertificate>),
}

/// Returns where the record stands that names the one at a path by its tag, if it is one that is named so.
pub(super) fn head_of(path: &Path) -> Option<Path> {
    let (kind, rest) = path.as_str().split_once('/')?;
    let head = match kind {
        "secret-value" => format!("secret/{}", rest.rsplit_once('/')?.0),
        "certificate-body" => format!("certificate/{rest}"),
        _ => return None,
    };
    Path::new(head).ok()
}

impl Parent {
    /// Opens one; `None` for a record that names no other.
    ///
    /// # Errors
    /// Why it does not open.
    pub(super) fn open(
        sealer: &RecordSealer,
        Entry { path, value, .. }: &Entry,
    ) -> Result<Option<Self>, String> {
        let kind = path.as_str().split('/').next().unwrap_or_default();
        let opened = match kind {
            _ if records::says_ended(value) => return Ok(None),
            "secret" => records::open(sealer, path, Kind::Secret, value)
                .map(|(secret, ..)| Self::Secret(Box::new(secret))),
            "certificate" => records::open(sealer, path, Kind::Certificate, value)
                .map(|(certificate, ..)| Self::Certificate(Box::new(certificate))),
            _ => return Ok(None),
        };
        opened.map(Some).map_err(|error| error.to_string())
    }

    /// Returns where it keeps the tag of the record at a path, if it names that.
    pub(super) fn tag_of(&mut self, path: &Path) -> Option<&mut [u8; 16]> {
        match self {
            Self::Secret(secret) => {
                let Secret { name, versions, .. } = &mut **secret;
                let version = versions
                    .iter_mut()
                    .find(|version| records::secret_value_path(name, version.number) == *path);
                version.map(|version| &mut version.tag)
            }
            Self::Certificate(certificate) => {
                let is_its = records::certificate_body_path(&certificate.id) == *path;
                is_its.then_some(&mut certificate.body_tag)
            }
        }
    }

    /// Returns what it comes to.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub(super) fn anew(self, now: Timestamp) -> Result<Anew, String> {
        match self {
            Self::Secret(secret) => Anew::of(Kind::Secret, &safe::secret(*secret, now)),
            Self::Certificate(certificate) => Anew::of(Kind::Certificate, &safe::certificate(*certificate)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_bytes_stand_with_who_names_them() {
        let head = |path| head_of(&Path::new(path).unwrap()).map(|head| head.to_string());
        assert_eq!(head("secret-value/ab/12").as_deref(), Some("secret/ab"));
        assert_eq!(head("certificate-body/ab").as_deref(), Some("certificate/ab"));
        for path in ["secret/ab", "certificate/ab", "cmk/ab", "material/ab/1"] {
            assert_eq!(head(path), None, "{path}");
        }
    }
}
