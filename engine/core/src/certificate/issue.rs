//! What an authority makes of a request for a certificate: a pure rule, from the profile, the authority's own certificate, and what is asked.

use std::time::Duration;

use super::profile::MAX_DAYS;
use super::{
    AltName, AttributeKind, Authority, CertificateProfile, DistinguishedName, ExtendedUsage, Issuance,
    KeyPurpose, NameConstraints, NamePattern, ProfileUsage, Serial, Template, Validity,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::AapName;
use crate::key::KeySpec;
use crate::time::Timestamp;

/// An authority with what its own certificate says.
#[derive(Clone, Copy, Debug)]
pub struct Issuer<'a> {
    /// The authority.
    pub authority: &'a Authority,
    /// The subject of its certificate.
    pub subject: &'a DistinguishedName,
    /// From when to when its certificate is valid.
    pub validity: Validity,
    /// The name constraints of those above it; its own are the authority's.
    pub above: &'a [&'a NameConstraints],
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whose it is to be; named after its first name where there is none.
    pub subject: Option<&'a DistinguishedName>,
    /// What it is to be for.
    pub alt_names: &'a [AltName],
    /// The kind of its key.
    pub key_spec: KeySpec,
    /// How long; as the profile says if absent.
    pub validity_days: Option<u32>,
    /// The access point that asks, where one does: it is held to the names that are its own.
    pub access_point: Option<&'a AapName>,
}

/// What a certificate will say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Whose it is.
    pub subject: DistinguishedName,
    /// What it is for, in order, none twice.
    pub alt_names: Vec<AltName>,
    /// From when to when.
    pub validity: Validity,
    /// Whether it is of an authority, and then how many may stand below it.
    pub authority: Option<Option<u8>>,
    /// What its key may do.
    pub key_purposes: &'static [KeyPurpose],
    /// What it is for.
    pub extended_usages: &'static [ExtendedUsage],
}

/// Where is to be found what a verifier asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Urls {
    /// The list of what was revoked.
    pub crl: Vec<String>,
    /// Answers about revocation.
    pub ocsp: Vec<String>,
    /// The authority's certificate.
    pub issuer: Vec<String>,
}

impl Urls {
    /// Returns those of an authority below the address under which the server is known; none where it is known under none.
    pub fn of(public: Option<&str>, authority: &Authority) -> Self {
        let Some(public) = public else { return Self::default() };
        let base = format!("{}/pki/{}", public.trim_end_matches('/'), authority.name);
        Self {
            crl: vec![format!("{base}.crl")],
            ocsp: vec![format!("{base}/ocsp")],
            issuer: vec![format!("{base}.crt")],
        }
    }
}

/// The most names of a certificate.
const NAMES: usize = 100;
/// How far back certificates begin, for clocks that are behind.
pub(super) const BACK: Duration = Duration::from_secs(300);
/// What an authority that is about to end issues nothing for any more.
const LEAST: Duration = Duration::from_secs(3_600);
const DAY_S: u64 = 86_400;

impl Issuer<'_> {
    /// Decides what a certificate says that is asked for by a profile.
    ///
    /// # Errors
    /// `StateConflict` where the authority issues nothing, `InvalidParameter` naming the profile and what it does not take, or the name that is
    /// outside its constraints; `Denied` naming what the access point may not ask for.
    pub fn decide(
        &self,
        profile: &CertificateProfile,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Result<Decided> {
        self.authority.check_issuing()?;
        profile.check_key(wanted.key_spec)?;
        let (subject, alt_names) = named(profile, wanted)?;
        if let Some(access_point) = wanted.access_point {
            let asked = (&subject, &*alt_names);
            self.authority.check_access_point(self.subject, access_point, profile, asked)?;
        }
        let is_allowed = |name: &&AltName| {
            profile.allowed_names.is_empty()
                || profile.allowed_names.iter().any(|pattern| pattern.covers(name))
        };
        if let Some(name) = alt_names.iter().find(|name| !is_allowed(name)) {
            return Err(profile.odd(format!("{name} is none of its AllowedNames")));
        }
        let patterns = &profile.allowed_names;
        if let Some((kind, value)) =
            NamePattern::uncovered(patterns, &subject, &alt_names).filter(|_| !patterns.is_empty())
        {
            return Err(profile.odd(format!("{}={value} is none of its AllowedNames", kind.name())));
        }
        self.check_constraints(&subject, &alt_names)?;
        let days = wanted.validity_days.unwrap_or(profile.validity_days);
        if !(1..=profile.max_validity_days).contains(&days) {
            let most = profile.max_validity_days;
            return Err(profile.odd(format!("ValidityDays of {days} is not in 1 to {most}")));
        }
        let authority = match profile.usage {
            ProfileUsage::Ca => Some(Some(self.path_below(profile.path_length.unwrap_or(0))?)),
            _ => None,
        };
        Ok(Decided {
            subject,
            alt_names,
            validity: self.validity(days, now)?,
            authority,
            key_purposes: profile.usage.key_purposes(wanted.key_spec),
            extended_usages: profile.usage.extended_usages(),
        })
    }

    /// Decides what the certificate of another authority of this server's says, that is to stand below this one.
    ///
    /// # Errors
    /// As of [`decide`](Self::decide).
    pub fn decide_authority(
        &self,
        subject: &DistinguishedName,
        days: u32,
        path_length: Option<u8>,
        now: Timestamp,
    ) -> Result<Decided> {
        self.authority.check_issuing()?;
        check_days(days)?;
        self.check_constraints(subject, &[])?;
        let path_length = match (path_length, self.authority.path_length) {
            (None, None) => None,
            (None, Some(own)) => Some(self.path_below(own.saturating_sub(1))?),
            (Some(wanted), _) => Some(self.path_below(wanted)?),
        };
        Ok(Decided {
            validity: self.validity(days, now)?,
            ..of_authority(subject, path_length, self.validity)
        })
    }

    /// Checks that an authority below it may have so many below itself.
    fn path_below(&self, wanted: u8) -> Result<u8> {
        match self.authority.path_length {
            Some(own) if wanted >= own => {
                let name = &self.authority.name;
                let why = match own {
                    0 => format!("the path length of the authority {name} is 0: none may stand below it"),
                    own => format!(
                        "the path length of the authority {name} is {own}: one below it may have less than {own} below itself, not {wanted}"
                    ),
                };
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
            _ => Ok(wanted),
        }
    }

    fn check_constraints(&self, subject: &DistinguishedName, names: &[AltName]) -> Result<()> {
        for constraints in self.above.iter().copied().chain([&self.authority.constraints]) {
            names.iter().try_for_each(|name| constraints.check(name))?;
            constraints.check_subject(subject)?;
        }
        Ok(())
    }

    /// Returns the days from now on, cut to what is left of the authority itself: beyond that nothing verifies.
    fn validity(&self, days: u32, now: Timestamp) -> Result<Validity> {
        let own = self.validity;
        if !own.covers(now) || own.not_after.since(now) < LEAST {
            let why =
                format!("the certificate of the authority {} ends at {}", self.authority.name, own.not_after);
            return Err(Error::new(ErrorKind::StateConflict, why));
        }
        let Validity { not_before, not_after } = from_now(days, now);
        Ok(Validity { not_before: not_before.max(own.not_before), not_after: not_after.min(own.not_after) })
    }
}

impl Decided {
    /// Decides what the certificate of an authority says that signs it itself.
    ///
    /// # Errors
    /// `InvalidParameter` for a lifetime out of range.
    pub fn of_root(
        subject: &DistinguishedName,
        days: u32,
        path_length: Option<u8>,
        now: Timestamp,
    ) -> Result<Self> {
        check_days(days)?;
        Ok(of_authority(subject, path_length, from_now(days, now)))
    }

    /// Returns the certificate that is to be signed. `authority_key_id`: none of one that signs itself.
    pub fn template<'a>(
        &'a self,
        serial: Serial,
        public_key: &'a [u8],
        (issuer_der, authority_key_id): (&'a [u8], Option<&'a [u8]>),
        name_constraints: Option<&'a NameConstraints>,
        urls: &'a Urls,
    ) -> Template<'a> {
        Template {
            serial,
            issuer_der,
            subject: &self.subject,
            alt_names: &self.alt_names,
            validity: self.validity,
            public_key,
            authority: self.authority,
            key_purposes: self.key_purposes,
            extended_usages: self.extended_usages,
            name_constraints: name_constraints.filter(|constraints| !constraints.is_empty()),
            authority_key_id,
            crl_urls: &urls.crl,
            ocsp_urls: &urls.ocsp,
            issuer_urls: &urls.issuer,
        }
    }
}

impl Issuance {
    /// Tells whether the newest ends earlier than was asked for: with the certificate of the authority itself.
    pub fn is_shortened(&self) -> bool {
        let asked = Duration::from_secs(u64::from(self.validity_days) * DAY_S);
        // It may begin later by what certificates begin back, which is no end that comes earlier.
        let least = asked.saturating_sub(BACK + Duration::from_secs(1));
        self.newest().is_some_and(|newest| newest.validity.length() < least)
    }
}

fn of_authority(subject: &DistinguishedName, path_length: Option<u8>, validity: Validity) -> Decided {
    Decided {
        subject: subject.clone(),
        alt_names: Vec::new(),
        validity,
        authority: Some(path_length),
        // No authority's purposes depend on the kind of its key.
        key_purposes: ProfileUsage::Ca.key_purposes(KeySpec::EcP256),
        extended_usages: &[],
    }
}

fn check_days(days: u32) -> Result<()> {
    match (1..=MAX_DAYS).contains(&days) {
        true => Ok(()),
        false => {
            let why = format!("ValidityDays of {days} is not in 1 to {MAX_DAYS}");
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
    }
}

/// Returns so many days, in whole seconds; the last second is within (RFC 5280 §4.1.2.5), and so one less makes the days whole.
fn from_now(days: u32, now: Timestamp) -> Validity {
    let not_before = Timestamp::from_ms(now.minus(BACK).as_s() * 1_000);
    Validity { not_before, not_after: not_before.plus(Duration::from_secs(u64::from(days) * DAY_S - 1)) }
}

/// Returns subject and names as a profile has them.
fn named(profile: &CertificateProfile, wanted: &Wanted<'_>) -> Result<(DistinguishedName, Vec<AltName>)> {
    let mut names = wanted.alt_names.to_vec();
    // However a name came here, it is one that its text form takes.
    if let Some(Err(error)) =
        names.iter().map(|name| name.to_string().parse::<AltName>()).find(Result::is_err)
    {
        return Err(profile.odd(error.message().to_owned()));
    }
    if profile.usage.is_of_servers() {
        let attributes = wanted.subject.map(DistinguishedName::attributes).unwrap_or_default();
        let mut common = attributes.iter().filter(|(kind, _)| *kind == AttributeKind::CommonName);
        if let Some((_, common)) = common.next() {
            // RFC 9525 §2: verifiers go by the alternative names alone.
            let name = AltName::host(common).map_err(|_| {
                profile.odd("the common name of a server is one of its names, DNS name or address".into())
            })?;
            names.push(name);
        }
        if common.next().is_some() {
            return Err(profile.odd("a server has one common name at most".into()));
        }
    }
    names.sort();
    names.dedup();
    if names.len() > NAMES {
        return Err(profile.odd(format!("{} names exceed the limit of {NAMES}", names.len())));
    }
    if profile.usage.is_of_servers()
        && !names.iter().any(|name| matches!(name, AltName::Dns(_) | AltName::Ip(_)))
    {
        return Err(profile.odd("the certificate of a server has a DNS name or an address at least".into()));
    }
    if profile.usage == ProfileUsage::Ca && !names.is_empty() {
        return Err(profile.odd("an authority has no alternative names".into()));
    }
    match wanted.subject {
        Some(subject) => Ok((subject.clone(), names)),
        None => {
            let is_host = |name: &&AltName| matches!(name, AltName::Dns(_) | AltName::Ip(_));
            let fit = wanted.alt_names.iter().filter(|name| is_host(name) || !profile.usage.is_of_servers());
            let first = fit.map(|name| match name {
                AltName::Dns(name) | AltName::Email(name) | AltName::Uri(name) => name.clone(),
                AltName::Ip(address) => address.to_string(),
            });
            let most = AttributeKind::CommonName.max_characters();
            let fitting = { first }.find(|name| name.chars().count() <= most);
            let common = fitting.ok_or_else(|| {
                profile
                    .odd(format!("it has no subject, and no name of up to {most} characters to be called by"))
            })?;
            Ok((DistinguishedName::new(vec![(AttributeKind::CommonName, common)])?, names))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::tests::authority;
    use super::super::{AuthorityState, IssuedSerial};
    use super::*;

    const DAY: Duration = Duration::from_secs(DAY_S);

    fn now() -> Timestamp {
        Timestamp::parse("2026-01-01T12:00:00Z").unwrap()
    }

    struct Case {
        authority: Authority,
        validity: Validity,
        above: NameConstraints,
    }

    impl Case {
        fn new() -> Self {
            let validity = Validity { not_before: now().minus(DAY), not_after: now().plus(DAY * 1_000) };
            Self { authority: authority(), validity, above: NameConstraints::default() }
        }

        fn of(
            &self,
            profile: &str,
            subject: Option<&str>,
            names: &[&str],
            aap: Option<&str>,
        ) -> Result<Decided> {
            self.lasting(profile, subject, names, aap, None)
        }

        fn lasting(
            &self,
            profile: &str,
            subject: Option<&str>,
            names: &[&str],
            aap: Option<&str>,
            validity_days: Option<u32>,
        ) -> Result<Decided> {
            let subject = subject.map(|text| DistinguishedName::parse(text).unwrap());
            let alt_names: Vec<AltName> = names.iter().map(|name| name.parse().unwrap()).collect();
            let access_point = aap.map(|name| name.parse().unwrap());
            let wanted = Wanted {
                subject: subject.as_ref(),
                alt_names: &alt_names,
                key_spec: KeySpec::EcP256,
                validity_days,
                access_point: access_point.as_ref(),
            };
            let own = DistinguishedName::parse("CN=issuing,O=Example").unwrap();
            let above = [&self.above];
            let issuer =
                Issuer { authority: &self.authority, subject: &own, validity: self.validity, above: &above };
            issuer.decide(&self.authority.profile(&profile.parse()?)?, &wanted, now())
        }

        fn told(&self, profile: &str, subject: Option<&str>, names: &[&str], aap: Option<&str>) -> String {
            self.of(profile, subject, names, aap).unwrap_err().message().to_owned()
        }
    }

    #[test]
    fn a_server_has_its_common_name_among_its_names_and_whole_days() {
        let decided =
            Case::new().of("server", Some("CN=b.example"), &["a.example", "a.example"], None).unwrap();
        assert_eq!(decided.alt_names, ["a.example".parse().unwrap(), "b.example".parse().unwrap()]);
        assert_eq!(decided.authority, None);
        assert_eq!(decided.validity.not_before.to_string(), "2026-01-01T11:55:00Z");
        assert_eq!(decided.validity.length() + Duration::from_secs(1), DAY * 90);
        let unnamed = Case::new().of("server", None, &["a.example", "b.example"], None).unwrap();
        assert_eq!(unnamed.subject.to_string(), "CN=a.example");
    }

    #[test]
    fn what_a_profile_does_not_take_is_named() {
        let mut case = Case::new();
        for (profile, subject, names, told) in [
            ("server", None, &[][..], "profile server: the certificate of a server has a DNS name"),
            ("server", Some("CN=orders"), &["email:a@b.example"][..], ""),
            ("server", Some("CN=my server"), &["a.example"], "the common name of a server"),
            ("server", Some("CN=IP:10.0.0.1"), &["a.example"], "the common name of a server"),
            ("server", Some("CN=DNS:a.example"), &["a.example"], "the common name of a server"),
            ("server", Some("CN=::ffff:10.0.0.1"), &["a.example"], "the common name of a server"),
            ("server-client", Some("CN=a.example,CN=b.example"), &[], "one common name at most"),
            ("client", None, &[], "it has no subject"),
            ("ca", Some("CN=sub"), &["a.example"], "an authority has no alternative names"),
        ] {
            match told {
                "" => drop(case.of(profile, subject, names, None).unwrap()),
                told => assert!(case.told(profile, subject, names, None).contains(told), "{told}"),
            }
        }
        for days in [0, 201] {
            let error = case.lasting("server", None, &["a.example"], None, Some(days)).unwrap_err();
            assert_eq!(error.message(), format!("profile server: ValidityDays of {days} is not in 1 to 200"));
        }
        let own = CertificateProfile {
            name: "orders".parse().unwrap(),
            key_specs: vec![KeySpec::EcP256],
            allowed_names: vec!["*.orders.example".parse().unwrap()],
            ..CertificateProfile::built_in().remove(0)
        };
        case.authority.profiles.push(own);
        case.of("orders", None, &["a.orders.example"], None).unwrap();
        assert_eq!(
            case.told("orders", None, &["a.orders.example", "b.example"], None),
            "profile orders: DNS:b.example is none of its AllowedNames"
        );
        case.of("orders", Some("CN=a.orders.example"), &[], None).unwrap();
        assert_eq!(
            case.told("orders", Some("CN=b.example"), &["a.orders.example"], None),
            "profile orders: DNS:b.example is none of its AllowedNames"
        );
        assert!(case.told("none", None, &["a.example"], None).contains("no profile none"));
        let case = Case::new();
        let many: Vec<String> = (0..101).map(|n| format!("n{n}.example")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(case.told("server", None, &many, None).contains("101 names"));
    }

    #[test]
    fn a_profile_with_names_holds_every_common_name_of_whatever_usage() {
        let mut case = Case::new();
        let patterns = ["*.orders.example", "CN:orders-*", "email:*@orders.example"];
        for built_in in CertificateProfile::built_in() {
            let allowed_names = patterns.map(|pattern| pattern.parse().unwrap()).into();
            case.authority.profiles.push(CertificateProfile { allowed_names, ..built_in });
        }
        case.authority.path_length = None;
        for (profile, subject, names) in [
            ("client", Some("CN=orders-7"), &[][..]),
            ("client", Some("CN=a.orders.example"), &[]),
            ("client", None, &["email:ops@orders.example"]),
            ("ca", Some("CN=orders-sub"), &[]),
        ] {
            case.of(profile, subject, names, None).unwrap();
        }
        for (profile, subject, told) in [
            ("client", "CN=admin", "CN=admin"),
            ("client", "CN=www.bank.example", "CN=www.bank.example"),
            ("client", "CN=orders-7.bank.example", "CN=orders-7.bank.example"),
            ("client", "CN=orders-7,CN=admin", "CN=admin"),
            ("client", "CN=orders-7,emailAddress=root@bank.example", "emailAddress=root@bank.example"),
            ("code-signing", "CN=Bank", "CN=Bank"),
            ("ca", "CN=Bank", "CN=Bank"),
        ] {
            let error = case.told(profile, Some(subject), &[], None);
            assert_eq!(error, format!("profile {profile}: {told} is none of its AllowedNames"));
        }
    }

    #[test]
    fn a_server_without_a_subject_is_named_after_a_host_of_its_names() {
        let decided = Case::new().of("server", None, &["email:a@b.example", "a.example"], None).unwrap();
        assert_eq!(decided.subject.to_string(), "CN=a.example");
    }

    #[test]
    fn a_name_that_its_text_form_does_not_take_is_not_certified() {
        let case = Case::new();
        let own = DistinguishedName::parse("CN=issuing,O=Example").unwrap();
        let issuer =
            Issuer { authority: &case.authority, subject: &own, validity: case.validity, above: &[] };
        let names = [AltName::Ip("::ffff:10.0.0.1".parse().unwrap())];
        let (subject, access_point, validity_days) = (None, None, None);
        let wanted =
            Wanted { subject, alt_names: &names, key_spec: KeySpec::EcP256, validity_days, access_point };
        let error = issuer.decide(&CertificateProfile::built_in().remove(0), &wanted, now()).unwrap_err();
        assert!(error.message().contains("write it as 10.0.0.1"), "{error}");
    }

    #[test]
    fn an_access_point_is_held_to_its_names_profiles_and_the_authoritys_company() {
        let case = Case::new();
        case.of("server", None, &["a.shop.example"], Some("shop")).unwrap();
        case.of("client", Some("CN=shop-7,O=Example"), &[], Some("shop")).unwrap();
        for (profile, subject, names, aap, told) in [
            ("server", None, &["a.bank.example"][..], "shop", "DNS:a.bank.example"),
            ("server", None, &["b.a.shop.example"], "shop", "DNS:b.a.shop.example"),
            ("server", None, &["a.shop.example"], "till", "certificates"),
            ("code-signing", Some("CN=shop-7"), &[], "shop", "certificates of the profile code-signing"),
            ("client", Some("CN=admin"), &[], "shop", "CN=admin in a subject"),
            ("client", Some("CN=shop-7.bank.example"), &[], "shop", "CN=shop-7.bank.example in a subject"),
            ("client", Some("CN=shop-7,CN=admin"), &[], "shop", "CN=admin in a subject"),
            ("client", Some("CN=shop-7,O=Bank"), &[], "shop", "O=Bank in a subject"),
            ("ca", Some("CN=shop-7"), &[], "shop", "certificates of the profile ca"),
        ] {
            let error = case.of(profile, subject, names, Some(aap)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert_eq!(
                error.message(),
                format!("the access point {aap} may not ask the authority issuing for {told}")
            );
        }
    }

    #[test]
    fn a_lifetime_is_cut_to_the_authoritys_own_and_none_is_given_at_its_end() {
        let mut case = Case::new();
        case.validity.not_after = now().plus(DAY);
        let decided = case.of("server", None, &["a.example"], None).unwrap();
        assert_eq!(decided.validity.not_after, case.validity.not_after);
        let issued = |decided: Decided, validity_days| Issuance {
            authority: case.authority.name.clone(),
            profile: None,
            subject: decided.subject,
            alt_names: decided.alt_names,
            validity_days,
            auto_renew: false,
            asked_by: case.authority.creator.clone(),
            access_point: None,
            serials: vec![IssuedSerial {
                serial: Serial::from_random([1; 16]),
                validity: decided.validity,
                revocation: None,
            }],
        };
        assert!(issued(decided, 90).is_shortened());
        let short = case.lasting("server", None, &["a.example"], None, Some(1)).unwrap();
        assert!(!issued(short, 1).is_shortened());
        case.validity.not_before = now();
        let late = case.lasting("server", None, &["a.example"], None, Some(1)).unwrap();
        assert_eq!(late.validity.not_before, now());
        case.validity.not_after = now().plus(LEAST - Duration::from_secs(1));
        assert!(case.told("server", None, &["a.example"], None).contains("ends at 2026-01-01T12:59:59Z"));
        case.authority.state = AuthorityState::Disabled;
        assert!(case.told("server", None, &["a.example"], None).contains("is Disabled"));
    }

    #[test]
    fn the_constraints_of_all_above_hold_and_so_does_the_path_length() {
        let mut case = Case::new();
        case.above = NameConstraints::read(&["example".into()], &[], &[], &[]).unwrap();
        case.authority.constraints =
            NameConstraints::read(&["orders.example".into()], &[], &[], &[]).unwrap();
        case.of("server", None, &["a.orders.example"], None).unwrap();
        assert!(case.told("server", None, &["a.example"], None).contains("outside the name constraints"));
        assert!(
            case.told("client", Some("CN=www.bank.test"), &[], None).contains("outside the name constraints")
        );
        case.authority.constraints = NameConstraints::read(&["test".into()], &[], &[], &[]).unwrap();
        assert!(case.told("server", None, &["a.test"], None).contains("outside the name constraints"));
        let case = Case::new();
        assert!(
            case.told("ca", Some("CN=sub"), &[], None)
                .ends_with("path length of the authority issuing is 0: none may stand below it")
        );
        let mut case = Case::new();
        case.authority.path_length = Some(1);
        assert_eq!(case.of("ca", Some("CN=sub"), &[], None).unwrap().authority, Some(Some(0)));
    }

    #[test]
    fn authorities_below_have_fewer_below_themselves() {
        let subject = DistinguishedName::parse("CN=sub").unwrap();
        let below = |own: Option<u8>, wanted: Option<u8>| {
            let case = Case::new();
            let authority = Authority { path_length: own, ..case.authority };
            let issuer =
                Issuer { authority: &authority, subject: &subject, validity: case.validity, above: &[] };
            issuer.decide_authority(&subject, 30, wanted, now()).map(|decided| decided.authority)
        };
        assert_eq!(below(None, None).unwrap(), Some(None));
        assert_eq!(below(None, Some(3)).unwrap(), Some(Some(3)));
        assert_eq!(below(Some(2), None).unwrap(), Some(Some(1)));
        assert_eq!(below(Some(2), Some(0)).unwrap(), Some(Some(0)));
        assert!(
            below(Some(2), Some(2)).is_err()
                && below(Some(0), None).is_err()
                && below(Some(0), Some(0)).is_err()
        );
        let root = Decided::of_root(&subject, 3_650, None, now()).unwrap();
        assert_eq!((root.authority, root.key_purposes.len()), (Some(None), 3));
        assert!(Decided::of_root(&subject, 0, None, now()).is_err());
        assert!(Decided::of_root(&subject, 36_501, None, now()).is_err());
    }

    #[test]
    fn addresses_stand_below_the_public_one() {
        let urls = Urls::of(Some("http://pki.example/"), &authority());
        assert_eq!(urls.crl, ["http://pki.example/pki/issuing.crl"]);
        assert_eq!(urls.ocsp, ["http://pki.example/pki/issuing/ocsp"]);
        assert_eq!(urls.issuer, ["http://pki.example/pki/issuing.crt"]);
        assert_eq!(Urls::of(None, &authority()), Urls::default());
    }
}
