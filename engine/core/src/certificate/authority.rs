//! Authorities of this server's: each signs with the key of a certificate of its own, by profiles, for those who may ask.

use serde::{Deserialize, Serialize};

use super::profile::PATTERNS;
use super::{AltName, AttributeKind, CertificateProfile, DistinguishedName, NameConstraints, NamePattern};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{AapName, AccessKeyId, AuthorityName, CertificateId, ProfileName};
use crate::time::Timestamp;

/// What an authority does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuthorityState {
    /// It waits for its certificate, which another authority signs.
    Pending,
    /// It issues.
    Enabled,
    /// It issues nothing, and goes on to say what was revoked.
    Disabled,
    /// Its own certificate was revoked: it never issues again.
    Revoked,
}

impl AuthorityState {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            AuthorityState::Pending => "Pending",
            AuthorityState::Enabled => "Enabled",
            AuthorityState::Disabled => "Disabled",
            AuthorityState::Revoked => "Revoked",
        }
    }
}

/// What one access point may ask an authority for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AccessPointNames {
    /// The access point.
    pub access_point: AapName,
    /// By which profiles.
    pub profiles: Vec<ProfileName>,
    /// For which names.
    pub allowed_names: Vec<NamePattern>,
}

/// An authority, without its certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authority {
    /// Its name.
    pub name: AuthorityName,
    /// The certificate that it signs by, and so the CMK that it signs with.
    pub certificate: CertificateId,
    /// The authority here that signed its certificate; none where it did so itself, or one elsewhere did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<AuthorityName>,
    /// What it does.
    pub state: AuthorityState,
    /// How many authorities may stand below it; any number where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_length: Option<u8>,
    /// What names its certificates may be for.
    #[serde(default, skip_serializing_if = "NameConstraints::is_empty")]
    pub constraints: NameConstraints,
    /// How many hours its list of what was revoked is good for.
    pub crl_hours: u32,
    /// The profiles of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<CertificateProfile>,
    /// What access points may ask it for; another may not ask for anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_points: Vec<AccessPointNames>,
    /// The access key that made it.
    pub creator: AccessKeyId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// Hours that a list of what was revoked is good for, at least and at most.
const CRL_HOURS: std::ops::RangeInclusive<u32> = 1..=8_784;
/// The most profiles of an authority's own.
const PROFILES: usize = 64;
/// The most access points that are named.
const ACCESS_POINTS: usize = 1_024;

impl Authority {
    /// Returns the profile of a name, among those that it offers.
    ///
    /// # Errors
    /// `InvalidParameter` where there is none.
    pub fn profile(&self, name: &ProfileName) -> Result<CertificateProfile> {
        let mut all = self.all_profiles();
        all.find(|profile| profile.name == *name).ok_or_else(|| {
            let beside = match self.profiles.is_empty() {
                true => "",
                false => ": it has profiles of its own, and offers those alone",
            };
            Error::new(
                ErrorKind::InvalidParameter,
                format!("the authority {} has no profile {name}{beside}", self.name),
            )
        })
    }

    /// Returns every profile that it offers: its own alone where it has any, so that what those do not allow is not had by another; the built-in
    /// ones else.
    pub fn all_profiles(&self) -> impl Iterator<Item = CertificateProfile> + '_ {
        let built_in = match self.profiles.is_empty() {
            true => CertificateProfile::built_in(),
            false => Vec::new(),
        };
        self.profiles.iter().cloned().chain(built_in)
    }

    /// Checks what is set of it.
    ///
    /// # Errors
    /// `InvalidParameter`, naming what is out of range, doubled or not there.
    pub fn check(&self) -> Result<()> {
        let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
        if !CRL_HOURS.contains(&self.crl_hours) {
            let (least, most) = CRL_HOURS.into_inner();
            return invalid(format!("CrlHours of {} is not in {least} to {most}", self.crl_hours));
        }
        if self.profiles.len() > PROFILES {
            return invalid(format!(
                "Profiles of {} entries exceeds the limit of {PROFILES}",
                self.profiles.len()
            ));
        }
        for (at, profile) in self.profiles.iter().enumerate() {
            profile.check()?;
            if self.profiles[..at].iter().any(|other| other.name == profile.name) {
                return invalid(format!("profile {}: it is there twice", profile.name));
            }
        }
        if self.access_points.len() > ACCESS_POINTS {
            let why = format!(
                "AccessPoints of {} entries exceeds the limit of {ACCESS_POINTS}",
                self.access_points.len()
            );
            return invalid(why);
        }
        for (at, own) in self.access_points.iter().enumerate() {
            let name = &own.access_point;
            if self.access_points[..at].iter().any(|other| other.access_point == *name) {
                return invalid(format!("access point {name}: it is there twice"));
            }
            if own.profiles.is_empty() {
                return invalid(format!("access point {name}: Profiles is empty"));
            }
            if !(1..=PATTERNS).contains(&own.allowed_names.len()) {
                return invalid(format!("access point {name}: AllowedNames has 1 to {PATTERNS} entries"));
            }
            own.profiles.iter().try_for_each(|profile| self.profile(profile).map(|_| ()))?;
        }
        Ok(())
    }

    /// Returns the state that a caller asks for.
    ///
    /// # Errors
    /// `StateConflict` where it cannot be had in this state, `InvalidParameter` for one that nobody asks for.
    pub fn state_after(&self, asked: AuthorityState) -> Result<AuthorityState> {
        use AuthorityState::*;
        match (self.state, asked) {
            (_, Pending | Revoked) => {
                Err(Error::new(ErrorKind::InvalidParameter, "Status is Enabled or Disabled"))
            }
            (Enabled | Disabled, _) => Ok(asked),
            (Pending | Revoked, _) => {
                let why = format!("the authority {} is {}", self.name, self.state.name());
                Err(Error::new(ErrorKind::StateConflict, why))
            }
        }
    }

    /// Checks that it issues.
    ///
    /// # Errors
    /// `StateConflict` where it does not.
    pub fn check_issuing(&self) -> Result<()> {
        match self.state {
            AuthorityState::Enabled => Ok(()),
            other => {
                let why = format!("the authority {} is {}", self.name, other.name());
                Err(Error::new(ErrorKind::StateConflict, why))
            }
        }
    }

    /// Checks that an access point may ask for a certificate by a profile, of a subject and names. What stands in the subject beside a common
    /// name is what stands in the authority's own: no application can name a company that it is not of.
    ///
    /// # Errors
    /// `Denied`, naming what it may not ask for.
    pub(super) fn check_access_point(
        &self,
        own_subject: &DistinguishedName,
        access_point: &AapName,
        profile: &CertificateProfile,
        (subject, names): (&DistinguishedName, &[AltName]),
    ) -> Result<()> {
        let denied = |what: String| {
            let why =
                format!("the access point {access_point} may not ask the authority {} for {what}", self.name);
            Error::new(ErrorKind::Denied, why)
        };
        let own = self.access_points.iter().find(|own| own.access_point == *access_point);
        let own = own.ok_or_else(|| denied("certificates".into()))?;
        if !own.profiles.contains(&profile.name) {
            return Err(denied(format!("certificates of the profile {}", profile.name)));
        }
        let covers = |name: &AltName| own.allowed_names.iter().any(|pattern| pattern.covers(name));
        if let Some(name) = names.iter().find(|name| !covers(name)) {
            return Err(denied(name.to_string()));
        }
        for (kind, value) in subject.attributes() {
            let is_allowed = match kind {
                AttributeKind::CommonName => NamePattern::cover_common_name(&own.allowed_names, value, names),
                _ => own_subject.attributes().contains(&(*kind, value.clone())),
            };
            if !is_allowed {
                return Err(denied(format!("{}={value} in a subject", kind.name())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::ProfileUsage;
    use super::*;

    pub(in super::super) fn authority() -> Authority {
        Authority {
            name: "issuing".parse().unwrap(),
            certificate: CertificateId::from_bytes([1; 16]),
            parent: None,
            state: AuthorityState::Enabled,
            path_length: Some(0),
            constraints: NameConstraints::default(),
            crl_hours: 24,
            profiles: Vec::new(),
            access_points: vec![AccessPointNames {
                access_point: "shop".parse().unwrap(),
                profiles: vec!["server".parse().unwrap(), "client".parse().unwrap()],
                allowed_names: vec!["*.shop.example".parse().unwrap(), "CN:shop-*".parse().unwrap()],
            }],
            creator: "KMAK00000001".parse().unwrap(),
            created_at: Timestamp::from_ms(0),
            updated_at: Timestamp::from_ms(0),
        }
    }

    #[test]
    fn profiles_of_its_own_stand_in_the_place_of_all_built_in_ones() {
        let mut authority = authority();
        let name: ProfileName = "server".parse().unwrap();
        assert_eq!(authority.profile(&name).unwrap().max_validity_days, 200);
        let own = CertificateProfile { max_validity_days: 397, ..authority.profile(&name).unwrap() };
        assert_eq!(authority.all_profiles().count(), 5);
        let error = authority.profile(&"none".parse().unwrap()).unwrap_err();
        assert_eq!(error.message(), "the authority issuing has no profile none");
        authority.profiles.push(own);
        assert_eq!(authority.profile(&name).unwrap().max_validity_days, 397);
        assert_eq!(authority.all_profiles().count(), 1);
        for gone in ["client", "ca"] {
            let error = authority.profile(&gone.parse().unwrap()).unwrap_err();
            assert!(
                error.message().ends_with("it has profiles of its own, and offers those alone"),
                "{error}"
            );
        }
        // What is offered no longer is named where an access point may ask for it.
        assert!(authority.check().unwrap_err().message().contains("has no profile client"));
        authority.access_points[0].profiles.pop();
        authority.check().unwrap();
    }

    #[test]
    fn odd_settings_are_named() {
        let told = |change: &dyn Fn(&mut Authority)| {
            let mut odd = authority();
            change(&mut odd);
            odd.check().unwrap_err().message().to_owned()
        };
        authority().check().unwrap();
        assert!(told(&|a| a.crl_hours = 0).contains("CrlHours of 0"));
        assert!(told(&|a| a.crl_hours = 8_785).contains("CrlHours of 8785"));
        assert!(
            told(&|a| a.access_points.push(a.access_points[0].clone())).contains("shop: it is there twice")
        );
        assert!(told(&|a| a.access_points[0].profiles.clear()).contains("Profiles is empty"));
        assert!(told(&|a| a.access_points[0].allowed_names.clear()).contains("AllowedNames"));
        assert!(
            told(&|a| a.access_points[0].profiles.push("none".parse().unwrap())).contains("no profile none")
        );
        let twice = |a: &mut Authority| {
            let server = CertificateProfile::built_in().remove(0);
            assert_eq!(server.usage, ProfileUsage::Server);
            a.profiles = vec![server.clone(), server];
        };
        assert!(told(&twice).contains("server: it is there twice"));
    }

    #[test]
    fn an_authority_is_switched_off_and_on_and_nothing_else() {
        use AuthorityState::*;
        let after = |state, asked| {
            Authority { state, ..authority() }.state_after(asked).map_err(|error| error.kind())
        };
        for state in [Enabled, Disabled] {
            assert_eq!((after(state, Enabled), after(state, Disabled)), (Ok(Enabled), Ok(Disabled)));
            assert_eq!(after(state, Revoked), Err(ErrorKind::InvalidParameter));
        }
        for state in [Pending, Revoked] {
            assert_eq!(after(state, Enabled), Err(ErrorKind::StateConflict));
            assert_eq!(after(state, Pending), Err(ErrorKind::InvalidParameter));
        }
    }

    #[test]
    fn one_that_is_not_enabled_issues_nothing_and_says_what_it_is() {
        authority().check_issuing().unwrap();
        for state in [AuthorityState::Pending, AuthorityState::Disabled, AuthorityState::Revoked] {
            let error = Authority { state, ..authority() }.check_issuing().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StateConflict);
            assert!(error.message().ends_with(state.name()));
        }
    }
}
