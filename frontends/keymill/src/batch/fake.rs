//! A sealer without a server: it seals so that tests can see the context, and misbehaves as a script says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keymill_core::context::EncryptionContext;

use super::Direction;
use super::plan::Plan;
use super::rows::Rows;
use super::seal::{Connector, Refusal, Results, SealError, Sealer};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// The connection is lost instead of an answer.
    Lost,
    /// The request is refused for now.
    Busy,
    /// The cell of this place is refused for good.
    Cell(usize),
    /// All cells run out of time.
    Late,
    /// The request is refused for good.
    Denied,
    /// The answer holds one cell too few.
    Short,
    /// The worker panics.
    Panic,
}

/// Makes sealers that ask `script` what happens to the request of each number, counted over all connections.
pub(super) struct Fake<'f> {
    direction: Direction,
    common: Option<EncryptionContext>,
    per_row: bool,
    script: Box<dyn Fn(usize) -> Trouble + Sync + 'f>,
    /// Requests of one connection, after which it had better be left.
    pub(super) leaves_after: u64,
    requests: AtomicUsize,
    pub(super) connections: AtomicUsize,
}

impl<'f> Fake<'f> {
    pub(super) fn new(plan: &Plan, script: impl Fn(usize) -> Trouble + Sync + 'f) -> Self {
        Self {
            direction: plan.direction,
            common: plan.context.common(),
            per_row: plan.context.is_per_row(),
            script: Box::new(script),
            leaves_after: u64::MAX,
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        }
    }

    /// Returns how many requests came.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

pub(super) struct FakeSealer<'f> {
    fake: &'f Fake<'f>,
    sent: u64,
    answers: VecDeque<Answer>,
}

struct Answer {
    ticket: u64,
    trouble: Trouble,
    items: Vec<Option<Vec<u8>>>,
}

impl<'f> Connector for &'f Fake<'f> {
    type Sealer = FakeSealer<'f>;

    fn connect(&self) -> Result<FakeSealer<'f>, SealError> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(FakeSealer { fake: self, sent: 0, answers: VecDeque::new() })
    }

    fn move_from(&self, sealer: &FakeSealer<'f>) -> Option<FakeSealer<'f>> {
        assert!(sealer.answers.is_empty(), "something would be lost");
        self.connect().ok()
    }
}

impl Sealer for FakeSealer<'_> {
    fn send(&mut self, rows: &Rows) -> Result<u64, SealError> {
        let trouble = (self.fake.script)(self.fake.requests.fetch_add(1, Ordering::Relaxed));
        let contexts: Vec<_> = match self.fake.per_row {
            true => rows.contexts().cloned().collect(),
            false => vec![self.fake.common.clone().unwrap_or_default(); rows.cells()],
        };
        let work = match self.fake.direction {
            Direction::Encrypt => seal,
            Direction::Decrypt => open,
            Direction::ReEncrypt => seal_anew,
        };
        let items = rows.items().zip(&contexts).map(|(item, context)| work(item, context)).collect();
        self.sent += 1;
        self.answers.push_back(Answer { ticket: self.sent, trouble, items });
        Ok(self.sent)
    }

    fn should_leave(&self) -> bool {
        self.sent >= self.fake.leaves_after
    }

    fn receive(&mut self, results: &mut Results) -> Result<(u64, Result<(), Refusal>), SealError> {
        results.clear();
        // Every other answer overtakes the one before it.
        let next =
            if self.sent.is_multiple_of(2) { self.answers.pop_back() } else { self.answers.pop_front() };
        let Answer { ticket, trouble, items } = next.unwrap();
        let refused = |passing| {
            Ok((ticket, Err(Refusal { message: "refused".to_owned(), passing, wait: Duration::ZERO })))
        };
        match trouble {
            Trouble::Lost => return Err(SealError::Lost("cut off".to_owned())),
            Trouble::Busy => return refused(true),
            Trouble::Denied => return refused(false),
            Trouble::Panic => panic!("as the script says"),
            Trouble::None | Trouble::Cell(_) | Trouble::Late | Trouble::Short => {}
        }
        for (index, item) in items.iter().enumerate() {
            let code = match (item, trouble) {
                (_, Trouble::Late) => "RequestTimeout",
                (_, Trouble::Cell(cell)) if cell == index => "InvalidParameter",
                (None, _) => "InvalidParameter",
                (Some(item), _) => {
                    results.push(Some(item));
                    continue;
                }
            };
            results.push(None);
            results.failures.push((index, code.to_owned(), "the cell fails".to_owned()));
        }
        if trouble == Trouble::Short {
            results.push(Some(b"one too many"));
        }
        Ok((ticket, Ok(())))
    }
}

/// Any bytes that are no text, the context, and the plaintext unreadable.
fn seal(item: &[u8], context: &EncryptionContext) -> Option<Vec<u8>> {
    let length = (context.canonical().len() as u32).to_be_bytes();
    let body = item.iter().map(|byte| byte ^ 0xa5);
    Some([&[0xff][..], &length, context.canonical()].concat().into_iter().chain(body).collect())
}

fn seal_anew(item: &[u8], context: &EncryptionContext) -> Option<Vec<u8>> {
    open(item, context).and_then(|plain| seal(&plain, context))
}

fn open(item: &[u8], context: &EncryptionContext) -> Option<Vec<u8>> {
    let (length, rest) = item.strip_prefix(&[0xff])?.split_first_chunk::<4>()?;
    let (sealed_with, body) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    (sealed_with == context.canonical()).then(|| body.iter().map(|byte| byte ^ 0xa5).collect())
}
