//! What is built to be signed: certificates (RFC 5280 §4) and requests for them (PKCS #10, RFC 2986), in the encoding that both ask for.

use der::asn1::{AnyRef, BitString, ObjectIdentifier, Uint};
use der::flagset::FlagSet;
use der::oid::AssociatedOid;
use der::{Encode, Sequence};
use keymill_core::Result;
use keymill_core::certificate::{AltName, DistinguishedName, KeyPurpose, Template};
use keymill_core::key::SignAlgorithm;
use keymill_core::time::Timestamp;
use std::time::Duration;
use x509_cert::Version;
use x509_cert::attr::Attributes;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::DistributionPointName;
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints,
    CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::request::ExtensionReq;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::{Time, Validity};

use crate::alt_name::{general, octets, url};
use crate::{
    MAX_ALT_NAMES, MAX_DER_BYTES, algorithm, constraints, extension, invalid, name, ocsp, public_key,
};

/// RFC 5280 §4.2.2.1.
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
const ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");

/// The part of a certificate, request, list or answer that is signed; with its signature it becomes the whole.
#[derive(Clone, Debug)]
pub struct ToBeSigned {
    bytes: Vec<u8>,
    algorithm: SignAlgorithm,
    whole: Whole,
}

/// What it becomes.
#[derive(Clone, Debug)]
enum Whole {
    /// What is signed, how, and the signature.
    Signed,
    /// The same, and certificates, in an answer about revocation.
    Answer(Vec<Vec<u8>>),
}

/// The form of all that is signed.
#[derive(Sequence)]
struct Signed<'a> {
    to_be_signed: AnyRef<'a>,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

impl ToBeSigned {
    pub(crate) fn new(part: &impl Encode, algorithm: SignAlgorithm, most: usize) -> Result<Self> {
        let bytes = encode(part)?;
        match bytes.len() <= most {
            true => Ok(Self { bytes, algorithm, whole: Whole::Signed }),
            false => Err(invalid(format!("{} bytes exceed the limit of {most}", bytes.len()))),
        }
    }

    /// Makes it a part of an answer about revocation, with the certificates that verify it.
    pub(crate) fn answering(self, certificates: &[&[u8]]) -> Self {
        Self { whole: Whole::Answer(certificates.iter().map(|der| der.to_vec()).collect()), ..self }
    }

    /// Returns the message that is signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns how it is signed.
    pub fn algorithm(&self) -> SignAlgorithm {
        self.algorithm
    }

    /// Puts the signature to it, as AsymmetricSign answers it (ECDSA and SM2 in DER), and returns the whole in DER.
    ///
    /// # Errors
    /// `InvalidParameter` for a signature of no bytes.
    pub fn finish(self, signature: &[u8]) -> Result<Vec<u8>> {
        if signature.is_empty() {
            return Err(invalid("a signature of no bytes"));
        }
        let to_be_signed = any(&self.bytes)?;
        let algorithm = algorithm::identifier(self.algorithm)?;
        let signature =
            BitString::from_bytes(signature).map_err(|_| invalid("a signature that is too long"))?;
        match &self.whole {
            Whole::Signed => encode(&Signed { to_be_signed, algorithm, signature }),
            Whole::Answer(certificates) => ocsp::successful(to_be_signed, algorithm, signature, certificates),
        }
    }
}

/// TBSCertificate (RFC 5280 §4.1).
#[derive(Sequence)]
struct TbsCertificate<'a> {
    #[asn1(context_specific = "0")]
    version: Version,
    serial: Uint,
    signature: AlgorithmIdentifierOwned,
    issuer: AnyRef<'a>,
    validity: Validity,
    subject: AnyRef<'a>,
    public_key: AnyRef<'a>,
    #[asn1(context_specific = "3")]
    extensions: Vec<Extension>,
}

/// Builds a certificate.
///
/// # Errors
/// `InvalidParameter`, naming what the template says that no certificate can.
pub fn certificate(template: &Template<'_>, algorithm: SignAlgorithm) -> Result<ToBeSigned> {
    let validity = template.validity;
    if validity.not_after < validity.not_before {
        return Err(invalid("a certificate whose last moment is before its first"));
    }
    let key_id = public_key::key_id(template.public_key)?;
    let subject = name::name_der(template.subject)?;
    ToBeSigned::new(
        &TbsCertificate {
            version: Version::V3,
            serial: Uint::new(template.serial.as_bytes()).map_err(unwritable)?,
            signature: algorithm::identifier(algorithm)?,
            issuer: any(template.issuer_der)?,
            validity: Validity::new(time(validity.not_before)?, time(validity.not_after)?),
            subject: any(&subject)?,
            public_key: any(template.public_key)?,
            extensions: extensions(template, &key_id)?,
        },
        algorithm,
        MAX_DER_BYTES,
    )
}

fn extensions(template: &Template<'_>, key_id: &[u8]) -> Result<Vec<Extension>> {
    let mut all = Vec::new();
    match template.authority {
        // RFC 5280 §4.2.1.9: critical, and not there for others.
        Some(length) => {
            let constraints = BasicConstraints { ca: true, path_len_constraint: length };
            all.push(extension(true, &constraints)?);
        }
        None if template.key_purposes.contains(&KeyPurpose::KeyCertSign) => {
            return Err(invalid("a key that signs certificates is of an authority"));
        }
        None => {}
    }
    if !template.key_purposes.is_empty() {
        all.push(extension(true, &KeyUsage(key_usages(template.key_purposes)))?);
    }
    if !template.extended_usages.is_empty() {
        let usages = template.extended_usages.iter().map(|usage| extension::usage_oid(*usage)).collect();
        all.push(extension(false, &ExtendedKeyUsage(usages))?);
    }
    if !template.alt_names.is_empty() {
        all.push(alt_names(template.subject, template.alt_names)?);
    }
    match (template.name_constraints.map(constraints::build).transpose()?.flatten(), template.authority) {
        (Some(constraints), Some(_)) => all.push(extension(true, &constraints)?),
        (Some(_), None) => return Err(invalid("name constraints are of authorities")),
        (None, _) => {}
    }
    all.push(extension(false, &SubjectKeyIdentifier(octets(key_id)?))?);
    if let Some(id) = template.authority_key_id {
        let id = AuthorityKeyIdentifier { key_identifier: Some(octets(id)?), ..Default::default() };
        all.push(extension(false, &id)?);
    }
    if !template.crl_urls.is_empty() {
        let points: Result<_> = template.crl_urls.iter().map(|at| distribution_point(at)).collect();
        all.push(extension(false, &CrlDistributionPoints(points?))?);
    }
    let accesses = template.ocsp_urls.iter().map(|url| (OCSP, url));
    let accesses = accesses.chain(template.issuer_urls.iter().map(|url| (ISSUERS, url)));
    let access = |(access_method, at): (_, &String)| -> Result<_> {
        Ok(AccessDescription { access_method, access_location: url(at)? })
    };
    let accesses: Vec<_> = accesses.map(access).collect::<Result<_>>()?;
    if !accesses.is_empty() {
        all.push(extension(false, &AuthorityInfoAccessSyntax(accesses))?);
    }
    Ok(all)
}

/// RFC 5280 §4.2.1.6: critical where there is no other name.
fn alt_names(subject: &DistinguishedName, names: &[AltName]) -> Result<Extension> {
    if names.len() > MAX_ALT_NAMES {
        return Err(invalid(format!("more than {MAX_ALT_NAMES} alternative names")));
    }
    let names: Result<_> = names.iter().map(general).collect();
    extension(subject.attributes().is_empty(), &SubjectAltName(names?))
}

fn key_usages(purposes: &[KeyPurpose]) -> FlagSet<KeyUsages> {
    let usage = |purpose: &KeyPurpose| match purpose {
        KeyPurpose::DigitalSignature => KeyUsages::DigitalSignature,
        KeyPurpose::NonRepudiation => KeyUsages::NonRepudiation,
        KeyPurpose::KeyEncipherment => KeyUsages::KeyEncipherment,
        KeyPurpose::DataEncipherment => KeyUsages::DataEncipherment,
        KeyPurpose::KeyAgreement => KeyUsages::KeyAgreement,
        KeyPurpose::KeyCertSign => KeyUsages::KeyCertSign,
        KeyPurpose::CrlSign => KeyUsages::CRLSign,
    };
    purposes.iter().fold(FlagSet::default(), |all, purpose| all | usage(purpose))
}

fn distribution_point(at: &str) -> Result<DistributionPoint> {
    let name = DistributionPointName::FullName(vec![url(at)?]);
    Ok(DistributionPoint { distribution_point: Some(name), reasons: None, crl_issuer: None })
}

/// CertificationRequestInfo (RFC 2986 §4.1).
#[derive(Sequence)]
struct RequestInfo<'a> {
    version: u8,
    subject: AnyRef<'a>,
    public_key: AnyRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    attributes: Attributes,
}

/// Builds a request for a certificate.
///
/// # Errors
/// `InvalidParameter`, naming what is wrong.
pub fn request(
    subject: &DistinguishedName,
    alt_names: &[AltName],
    public_key_spki: &[u8],
    algorithm: SignAlgorithm,
) -> Result<ToBeSigned> {
    public_key::read(public_key_spki)?;
    let mut attributes = Attributes::default();
    if !alt_names.is_empty() {
        let asked = ExtensionReq(vec![self::alt_names(subject, alt_names)?]);
        let asked = asked.try_into().map_err(unwritable)?;
        attributes.insert(asked).map_err(unwritable)?;
    }
    let subject = name::name_der(subject)?;
    let info =
        RequestInfo { version: 0, subject: any(&subject)?, public_key: any(public_key_spki)?, attributes };
    ToBeSigned::new(&info, algorithm, MAX_DER_BYTES)
}

pub(crate) fn extension(critical: bool, value: &(impl AssociatedOid + Encode)) -> Result<Extension> {
    extension_of(oid_of(value), critical, value)
}

fn oid_of<T: AssociatedOid>(_: &T) -> ObjectIdentifier {
    T::OID
}

/// Returns an extension of any kind.
pub(crate) fn extension_of(
    extn_id: ObjectIdentifier,
    critical: bool,
    value: &impl Encode,
) -> Result<Extension> {
    Ok(Extension { extn_id, critical, extn_value: octets(encode(value)?)? })
}

/// Returns a time as certificates have it: UTCTime through 2049, GeneralizedTime after (RFC 5280 §4.1.2.5).
pub(crate) fn time(at: Timestamp) -> Result<Time> {
    let date = der::DateTime::from_unix_duration(Duration::from_secs(at.as_s()));
    date.map(Time::from).map_err(|_| invalid("a time after the year 9999"))
}

/// Returns bytes that are DER already.
pub(crate) fn any(der: &[u8]) -> Result<AnyRef<'_>> {
    AnyRef::try_from(der).map_err(|_| invalid("a part that is not DER"))
}

pub(crate) fn encode(part: &impl Encode) -> Result<Vec<u8>> {
    part.to_der().map_err(unwritable)
}

pub(crate) fn unwritable(_: der::Error) -> keymill_core::Error {
    invalid("a part that has no encoding")
}
