//! MessagePack TCP over TLS 1.3, against the bare loop over the same.

use std::fs;

use keymill_ceilings::{BareLoop, Mode};
use keymill_client::{Options, Tls};
use keymill_core::Sensitive;
use keymill_runtime::clock::Clock;
use keymill_tls::{ClientOptions, ClientTls, ServerTls};

use crate::error::{BenchError, Result};
use crate::identity::Identity;
use crate::plan::{Leg, Plan, Spec};
use crate::pump::{Pump, Shape, What};
use crate::report::Unit;
use crate::stats::Target;

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    let rows = [What::BatchEncrypt, What::BatchDecrypt]
        .map(|what| (what, format!("tcp over TLS 1.3 {what:?} 256 x 1 KiB, 4 in flight, 2 connections")));
    if !rows.iter().any(|(_, name)| plan.args.wants(name)) {
        return Ok(());
    }
    let identity = Identity::new(Clock::default().now())?;
    let certificate = keymill_x509::pem("CERTIFICATE", &identity.certificate);
    let key = keymill_x509::pem("PRIVATE KEY", &identity.key);
    let tls = keymill_tls::Options::supplied("keymill bench".to_owned(), keymill_msgpack::ALPN);
    let tls = ServerTls::open(tls).map_err(BenchError::because("TLS"))?;
    tls.supply(certificate.clone().into_bytes(), Sensitive::new(key.into_bytes()))
        .map_err(BenchError::because("TLS"))?;
    let fixture = plan.fixture()?;
    let listening = fixture.listen(tls)?;
    let bare = BareLoop::start_tls(Mode::Seal, &identity.certificate, &identity.key)?;
    let options = client(&certificate)?;
    let (credentials, key) = (fixture.credentials(), fixture.key());
    for (what, name) in rows {
        if !plan.args.wants(&name) {
            continue;
        }
        let shape = Shape { what, items: 256, item_len: 1024, depth: 4, connections: 2 };
        let legs = [listening.address, bare.addr].map(|address| -> Result<Leg<'_>> {
            let mut pump = Pump::open_by(&options, address, &credentials, &key, shape)?;
            Ok(Box::new(move |time| pump.run(time)))
        });
        let legs = legs.into_iter().collect::<Result<_>>()?;
        let against = vec![("bare loop over TLS", Some(Target::AtLeast(0.88)))];
        plan.measure(Spec { name, against, unit: Unit::Items }, legs)?;
    }
    Ok(())
}

/// Makes the options of a client that trusts this certificate alone.
fn client(certificate: &str) -> Result<Options> {
    let directory = tempfile::tempdir()?;
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, certificate)?;
    let options = ClientOptions { ca, identity: None, read_key: |_| Ok(None) };
    let tls = ClientTls::open(&options, keymill_msgpack::ALPN).map_err(BenchError::because("TLS"))?;
    Ok(Options { tls: Some(Tls { tls, host: Some("127.0.0.1".to_owned()) }), ..Options::default() })
}
