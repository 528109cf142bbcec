//! Secrets as consumers read them: from the client's cache, and at the server by HTTP; both against a bare actix-web server that answers a body of
//! the length that the server's answer has.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use keymill_ceilings::HttpEcho;
use keymill_client::secret_cache::Limits;
use keymill_client::{Asked, SecretCache, wait};
use keymill_core::operation::{GetSecretValueRequest, Request};

use crate::error::{BenchError, Result};
use crate::machine::cores;
use crate::plan::{Plan, Spec};
use crate::report::Unit;
use crate::secrets;
use crate::stats::Target;
use crate::web::{Signer, Web};

const CONNECTIONS: usize = 8;
/// Secrets that are read by turns.
const SECRETS: usize = 100;
/// Reads between two looks at the clock.
const ROUND: usize = 256;

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    let cached = "secret cached read, one thread".to_owned();
    let served = format!("secret GetSecretValue, http JSON, signed, {CONNECTIONS} connections");
    if !plan.args.wants(&cached) && !plan.args.wants(&served) {
        return Ok(());
    }
    let fixture = plan.fixture()?;
    secrets::make(&fixture, SECRETS)?;
    let request = GetSecretValueRequest {
        secret_name: secrets::name(0)?.into(),
        version_id: None,
        version_stage: None,
        fetch_extended_config: None,
        timeout_ms: None,
    };
    let signer = Signer::of(&fixture, &Request::from(request))?;
    let mut ours = Web::connect(fixture.http, CONNECTIONS)?;
    let reply = ours.call(&signer.sign()?)?;
    let server = HttpEcho::start_answering(cores(), reply)?;
    let echo = RefCell::new(Web::connect(server.addr, CONNECTIONS)?);
    let requests = RefCell::new(signer.sign_many(512)?);
    let rate_of_echo = RefCell::new(echo.borrow_mut().run(&requests.borrow())?);
    // The echo takes as many requests as it can in its time, each with a signature of its own, as the server does.
    let at_the_echo = |time: Duration| {
        let wanted = (*rate_of_echo.borrow() * time.as_secs_f64()) as usize;
        if requests.borrow().len() < wanted {
            *requests.borrow_mut() = signer.sign_many(wanted)?;
        }
        let rate = echo.borrow_mut().run(&requests.borrow())?;
        *rate_of_echo.borrow_mut() = rate;
        Ok(rate)
    };
    if plan.args.wants(&cached) {
        let cache = SecretCache::new(fixture.client()?, Limits::default());
        let names = (0..SECRETS).map(|n| secrets::name(n).map(Asked::current)).collect::<Result<Vec<_>>>()?;
        let against = vec![("http echo", Some(Target::AtLeast(0.50)))];
        plan.measure(
            Spec { name: cached, against, unit: Unit::Requests },
            vec![Box::new(|time| cached_reads(&cache, &names, time)), Box::new(at_the_echo)],
        )?;
    }
    if plan.args.wants(&served) {
        // Connections that waited for so long are closed.
        let mut ours = Web::connect(fixture.http, CONNECTIONS)?;
        *echo.borrow_mut() = Web::connect(server.addr, CONNECTIONS)?;
        let mut rate = ours.run(&signer.sign_many(512)?)?;
        plan.measure(
            Spec { name: served, against: vec![("http echo", None)], unit: Unit::Requests },
            vec![
                Box::new(|time: Duration| {
                    *requests.borrow_mut() = signer.sign_many((rate * time.as_secs_f64()) as usize)?;
                    rate = ours.run(&requests.borrow())?;
                    Ok(rate)
                }),
                Box::new(|_| echo.borrow_mut().run(&requests.borrow())),
            ],
        )?;
    }
    Ok(())
}

fn cached_reads(cache: &SecretCache<keymill_client::Client>, names: &[Asked], time: Duration) -> Result<f64> {
    let (begun, mut read) = (Instant::now(), 0);
    while begun.elapsed() < time {
        for name in names.iter().cycle().take(ROUND) {
            let value = wait(cache.get(name)).map_err(|error| BenchError::new(error.to_string()))?;
            if value.expose().len() != 64 {
                return Err(BenchError::new("a secret has another value"));
            }
        }
        read += ROUND;
    }
    Ok(read as f64 / begun.elapsed().as_secs_f64())
}
