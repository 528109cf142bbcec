//! Starts and ends of instances without tokens, by a root that is there, away or slow as a test says.

use std::sync::atomic::{AtomicUsize, Ordering};

use keymill_core::instance::{InstanceTerms, Stage};
use keymill_core::time::Timestamp;
use tempfile::TempDir;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// What the root does when it is asked.
enum Root {
    There,
    Away,
    /// It says that it was asked, and waits until it is told to go on.
    Slow(flume::Sender<()>, flume::Receiver<()>),
}

struct Scene {
    dedicated: Dedicated,
    root: Arc<Mutex<Root>>,
    asked: Arc<AtomicUsize>,
    _place: TempDir,
}

impl Scene {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let config = Config::default();
        let store = plugins::store(&config.store, &place.path().join("data")).unwrap();
        let root = Arc::new(Mutex::new(Root::There));
        let asked = Arc::<AtomicUsize>::default();
        let (is, counted) = (root.clone(), asked.clone());
        let derive: Derive = Arc::new(move |messages| {
            counted.fetch_add(1, Ordering::Relaxed);
            let slow = match &*is.lock() {
                Root::There => None,
                Root::Away => return Err("the token is away".to_owned()),
                Root::Slow(asked, go_on) => Some((asked.clone(), go_on.clone())),
            };
            if let Some((asked, go_on)) = slow {
                let _told = asked.send(());
                let _told = go_on.recv();
            }
            Ok(Sensitive::copied(keymill_crypto::digest::sha256(messages.as_flattened()).as_slice()))
        });
        let shared = (TokenTurns::of(&config), Domain::default());
        let dedicated = Dedicated::of(&config, store, derive, shared, place.path().join("audit")).unwrap();
        Self { dedicated, root, asked, _place: place }
    }

    /// Has the root hang from now on; returns what says that it was asked, and what has it go on.
    fn hang(&self) -> (flume::Receiver<()>, flume::Sender<()>) {
        let ((told, asked), (go_on, goes_on)) = (flume::unbounded(), flume::unbounded());
        *self.root.lock() = Root::Slow(told, goes_on);
        (asked, go_on)
    }

    /// Makes an instance, which does not run yet.
    fn made(&self, id: &str) -> Instance {
        let instance = instance(id);
        self.dedicated.create(&instance).unwrap();
        self.dedicated.leave(&instance.id);
        instance
    }

    fn start(&self, instance: &Instance) -> std::result::Result<(), ErrorKind> {
        self.dedicated.start(instance).map_err(|error| error.kind())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

pub(super) fn instance(id: &str) -> Instance {
    Instance {
        id: id.parse().unwrap(),
        name: String::new(),
        created_at: Timestamp::from_ms(0),
        stage: Stage::Made,
        domain: None,
        connection: None,
        bound: Vec::new(),
        terms: InstanceTerms::default(),
        protection: None,
    }
}

#[test]
fn one_that_is_being_started_is_started_by_nobody_else_and_no_matter_to_others() {
    let scene = Scene::new();
    let (slow, other) = (scene.made("kst-1"), scene.made("kst-2"));
    scene.start(&other).unwrap();
    let (asked, go_on) = scene.hang();
    std::thread::scope(|scope| {
        let starts = scope.spawn(|| scene.start(&slow));
        asked.recv_timeout(LONG).unwrap();
        let before = scene.asked();
        assert_eq!(scene.start(&slow), Err(ErrorKind::Unavailable), "it may be there in a moment");
        assert_eq!(scene.asked(), before, "nothing was tried a second time");
        // What runs goes on, and ends, while another starts.
        assert_eq!((scene.start(&other), scene.dedicated.running()), (Ok(()), vec![other.id.clone()]));
        scene.dedicated.leave(&other.id);
        drop(go_on);
        assert_eq!(starts.join().unwrap(), Ok(()));
    });
    assert!(scene.dedicated.gate(&slow.id).is_some());
    scene.dedicated.stop();
}

#[test]
fn one_that_is_being_started_when_all_end_is_not_waited_for_and_does_not_run() {
    let scene = Scene::new();
    let slow = scene.made("kst-1");
    let (asked, go_on) = scene.hang();
    std::thread::scope(|scope| {
        let starts = scope.spawn(|| scene.start(&slow));
        asked.recv_timeout(LONG).unwrap();
        // It returns though the root does not.
        scene.dedicated.stop();
        drop(go_on);
        assert_eq!(starts.join().unwrap(), Err(ErrorKind::Unavailable));
    });
    assert!(scene.dedicated.running().is_empty());
    assert_eq!(scene.start(&slow), Err(ErrorKind::Unavailable));
}

#[test]
fn only_what_may_come_back_by_itself_is_tried_again() {
    let scene = Scene::new();
    // What it kept is gone, as where somebody took it away.
    let lost = instance("kst-1");
    assert_eq!(scene.start(&lost), Err(ErrorKind::InstanceState));
    let before = scene.asked();
    let protected = Instance { protection: Some("production".into()), ..lost.clone() };
    assert_eq!(scene.start(&protected), Err(ErrorKind::InstanceState));
    assert_eq!(scene.asked(), before, "it was not tried");
    let terms = InstanceTerms { keys: Some(5), ..InstanceTerms::default() };
    assert_eq!(scene.start(&Instance { terms, ..lost.clone() }), Err(ErrorKind::InstanceState));
    assert!(scene.asked() > before, "other terms may be what it waits for");
    let before = scene.asked();
    scene.dedicated.forget(&lost.id);
    assert_eq!(scene.start(&lost), Err(ErrorKind::InstanceState));
    assert!(scene.asked() > before, "an operator had it tried");

    let made = scene.made("kst-2");
    *scene.root.lock() = Root::Away;
    for _ in 0..2 {
        let before = scene.asked();
        assert_eq!(scene.start(&made), Err(ErrorKind::Unavailable));
        assert!(scene.asked() > before);
    }
    *scene.root.lock() = Root::There;
    assert_eq!(scene.start(&made), Ok(()));
    scene.dedicated.stop();
}
