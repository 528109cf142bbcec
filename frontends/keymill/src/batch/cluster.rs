//! Whole runs over several nodes, of which one goes while it is at work. The nodes seal by copying, so that each opens what another sealed.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use keymill_ceilings::{BareLoop, Mode};
use keymill_client::{Addresses, Credentials};

use super::interrupt::Interrupt;
use super::pipeline::Settings;
use super::rows::Rows;
use super::seal::{Connector, Refusal, Results, SealError, Sealer, Server, ServerSealer};
use super::tests::plan;
use super::{Direction, Summary, Target, run_on};
use crate::credentials::Tcp;

/// The nodes, of which one goes with the 100th request.
struct Nodes {
    server: Server,
    goes: Mutex<Option<BareLoop>>,
    sent: AtomicUsize,
    connections: AtomicUsize,
}

struct NodeSealer<'n> {
    nodes: &'n Nodes,
    sealer: ServerSealer,
}

impl<'n> Connector for &'n Nodes {
    type Sealer = NodeSealer<'n>;

    fn connect(&self) -> Result<NodeSealer<'n>, SealError> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(NodeSealer { nodes: self, sealer: self.server.connect()? })
    }

    fn move_from(&self, sealer: &NodeSealer<'n>) -> Option<NodeSealer<'n>> {
        let moved = self.server.move_from(&sealer.sealer)?;
        Some(NodeSealer { nodes: self, sealer: moved })
    }
}

impl Sealer for NodeSealer<'_> {
    fn send(&mut self, rows: &Rows) -> Result<u64, SealError> {
        let ticket = self.sealer.send(rows);
        if self.nodes.sent.fetch_add(1, Ordering::Relaxed) == 100 {
            drop(self.nodes.goes.lock().unwrap().take());
        }
        ticket
    }

    fn receive(&mut self, results: &mut Results) -> Result<(u64, Result<(), Refusal>), SealError> {
        self.sealer.receive(results)
    }

    fn should_leave(&self) -> bool {
        self.sealer.should_leave()
    }
}

fn run(
    direction: Direction,
    from: &Path,
    to: &Path,
    addresses: &Addresses,
    goes: Option<BareLoop>,
) -> (Summary, usize) {
    let plan = plan(direction, from, to, "--columns email --batch-items 4 --connections 3");
    let tcp = Tcp { addresses: addresses.clone(), tls: None };
    let credentials = Credentials::new("AK.12345678".parse().unwrap(), "secret".to_owned());
    let server = Server::new(&plan, Target { tcp, credentials });
    let (sent, connections) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let nodes = Nodes { server, goes: Mutex::new(goes), sent, connections };
    let summary = run_on(&plan, &&nodes, &Settings::new(&plan, Interrupt::default())).unwrap();
    (summary, nodes.connections.into_inner())
}

#[test]
fn a_file_comes_back_whole_though_a_node_goes_while_it_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, sealed, opened] =
        ["plain.csv", "sealed.csv", "opened.csv"].map(|name| folder.path().join(name));
    let rows: String = (0..4_000).map(|id| format!("{id},p{id}@example.org\n")).collect();
    fs::write(&plain, format!("id,email\n{rows}")).unwrap();
    let mut nodes: Vec<_> = (0..3).map(|_| BareLoop::start(Mode::Echo).unwrap()).collect();
    let addresses = Addresses::new(nodes.iter().map(|node| node.addr.to_string())).unwrap();
    let goes = nodes.remove(1);
    let (there, connections) = run(Direction::Encrypt, &plain, &sealed, &addresses, Some(goes));
    assert_eq!(there.items, 4_000);
    assert!(connections > 3, "one was made anew");
    let (back, _) = run(Direction::Decrypt, &sealed, &opened, &addresses, None);
    assert_eq!(back.items, 4_000);
    assert!(fs::read(&opened).unwrap() == fs::read(&plain).unwrap());
}
