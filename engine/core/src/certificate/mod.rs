//! Certificates: the vocabulary of what they say (RFC 5280), and what an authority of this server's decides: who is issued what, what is renewed,
//! and what is said of what was revoked. How that becomes DER, and is read from it, is `keymill-x509`'s.

mod alt_name;
mod authority;
mod constraint;
mod issue;
mod managed;
mod name;
mod pattern;
mod profile;
mod renewal;
mod revocation;
mod serial;
mod template;

pub use alt_name::AltName;
pub use authority::{AccessPointNames, Authority, AuthorityState};
pub use issue::{Decided, Issuer, Urls, Wanted};
pub use managed::{
    CertificateFacts, CertificateOrigin, CertificateStatus, CertificateUse, ManagedCertificate,
};
pub use name::{AttributeKind, DistinguishedName};
pub use pattern::NamePattern;
pub use profile::{CertificateProfile, ProfileUsage};
pub use renewal::{RenewalBackOff, renewal_due};
pub use revocation::{
    Answer, Issuance, IssuedSerial, Listed, Revocation, RevocationReason, begins, is_listed,
};
pub use template::{ExtendedUsage, KeyPurpose, NameConstraints, Serial, Template, Validity};
