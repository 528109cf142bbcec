//! HTTP `Encrypt` with a signature, by `/v1` in JSON and by the cloud's dialect, against a bare actix-web server that answers a body of the same length. Both get the
//! same requests, signed before the clock starts, by the same client.

use std::cell::RefCell;
use std::time::Duration;

use keymill_ceilings::HttpEcho;

use crate::error::Result;
use crate::fixture::Fixture;
use crate::machine::cores;
use crate::plan::{Plan, Spec};
use crate::report::Unit;
use crate::stats::Target;
use crate::web::{Signer, Web};

const CONNECTIONS: usize = 8;
const PLAINTEXT: [u8; 1024] = [0x5a; 1024];

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    for (what, signer) in [("JSON, signed", json as MakeSigner), ("cloud RPC, signed", rpc)] {
        measure_one(plan, format!("http Encrypt 1 KiB, {what}, {CONNECTIONS} connections"), signer)?;
    }
    Ok(())
}

type MakeSigner = fn(&Fixture) -> Result<Signer>;

fn json(fixture: &Fixture) -> Result<Signer> {
    Signer::new(fixture, &PLAINTEXT)
}

fn rpc(fixture: &Fixture) -> Result<Signer> {
    Signer::rpc(fixture, &PLAINTEXT)
}

fn measure_one(plan: &mut Plan<'_>, name: String, signer: MakeSigner) -> Result<()> {
    if !plan.args.wants(&name) {
        return Ok(());
    }
    let fixture = plan.fixture()?;
    let signer = signer(&fixture)?;
    let mut ours = Web::connect(fixture.http, CONNECTIONS)?;
    let reply = ours.call(&signer.sign()?)?;
    let server = HttpEcho::start_answering(cores(), reply)?;
    let mut echo = Web::connect(server.addr, CONNECTIONS)?;
    // What the last leg of ours sent, for the echo to get the same.
    let requests = RefCell::new(signer.sign_many(512)?);
    let mut rate = ours.run(&requests.borrow())?;
    plan.measure(
        Spec { name, against: vec![("http echo", Some(Target::AtLeast(0.65)))], unit: Unit::Requests },
        vec![
            Box::new(|time: Duration| {
                *requests.borrow_mut() = signer.sign_many((rate * time.as_secs_f64()) as usize)?;
                rate = ours.run(&requests.borrow())?;
                Ok(rate)
            }),
            Box::new(|_| echo.run(&requests.borrow())),
        ],
    )?;
    Ok(())
}
