//! The suite for `Store` on the etcd store, over a real etcd, under a prefix of its own for each test. In the same etcd somebody else
//! writes all the time: revisions of a store have gaps then, and its watches see nothing of it.

use std::sync::{Mutex, Weak};

use keymill_conformance::store::Fixture;
use keymill_databases::{Etcd, shared};
use keymill_store_etcd::{Config, open};

static ETCD: Mutex<Weak<Etcd>> = Mutex::new(Weak::new());

fn fixture() -> Fixture {
    let etcd = shared(&ETCD, Etcd::start);
    let config = Config { prefix: etcd.fresh_prefix(), ..Config::new(etcd.endpoints()) };
    let store = open(config).expect("the store opens");
    Fixture::new(store).keeping(etcd)
}

keymill_conformance::store_suite!(fixture);
