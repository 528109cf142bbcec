//! The parent's end of one conversation: a question, and its answer within the time that it may take.

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::wire::{self, Failed, Header, Incoming, Kind, ReceiveError};

/// How long the end of a session is waited for, so that the next finds its place free.
const CLOSING: Duration = Duration::from_secs(1);

/// One conversation. After the first thing that goes wrong there is no other question.
pub(crate) struct Connection {
    stream: UnixStream,
    timeout: Duration,
    tag: u64,
    message: Zeroizing<Vec<u8>>,
    incoming: Incoming,
    lost: bool,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream, timeout: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self {
            stream,
            timeout,
            tag: 0,
            message: Zeroizing::default(),
            incoming: Incoming::default(),
            lost: false,
        })
    }

    /// Returns how long an answer may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Begins a question; its body is to be written behind what is there.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        wire::begin(&mut self.message);
        &mut self.message
    }

    /// Asks the question that was begun, with `texts` behind it, and returns what sort of answer came.
    pub(crate) fn ask<'a>(
        &mut self,
        kind: Kind,
        texts: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Header, Trouble> {
        if self.lost {
            return Err(Trouble::Gone("it was lost before".into()));
        }
        // Until all has gone well.
        self.lost = true;
        let texts: Vec<IoSlice<'_>> = texts.map(IoSlice::new).collect();
        self.tag += 1;
        let more = texts.iter().map(|text| text.len()).sum();
        wire::finish(&mut self.message, kind, self.tag, more);
        let deadline = Instant::now() + self.timeout;
        let mut slices = Vec::with_capacity(1 + texts.len());
        slices.push(IoSlice::new(&self.message));
        slices.extend(texts);
        write_all(&mut &self.stream, &mut slices, deadline)?;
        self.message.fill(0);
        let header = self.incoming.receive(&mut &self.stream, Some(deadline))?;
        if header.tag != self.tag {
            return Err(Trouble::Garbled("an answer to another question"));
        }
        self.lost = false;
        Ok(header)
    }

    /// Asks a question without texts, to which the answer is `expected`, or why not.
    pub(crate) fn ask_for(&mut self, kind: Kind, expected: Kind) -> Result<Result<&[u8], Failed>, Trouble> {
        let header = self.ask(kind, [].into_iter())?;
        if header.kind == Kind::Failed {
            return Ok(Err(self.read(header, Kind::Failed, Failed::decode)?));
        }
        self.read(header, expected, Ok).map(Ok)
    }

    /// Reads the body of the answer, which must be of a kind.
    pub(crate) fn read<'a, T>(
        &'a mut self,
        header: Header,
        expected: Kind,
        decode: impl FnOnce(&'a [u8]) -> Result<T, wire::Garbled>,
    ) -> Result<T, Trouble> {
        if header.kind != expected {
            return Err(self.unexpected());
        }
        let Self { incoming, lost, .. } = self;
        decode(incoming.body()).map_err(|garbled| {
            *lost = true;
            Trouble::Garbled(garbled.0)
        })
    }

    /// An answer that does not belong to the question.
    pub(crate) fn unexpected(&mut self) -> Trouble {
        self.lost = true;
        Trouble::Garbled("an answer of another kind")
    }

    /// Returns the body of the last answer.
    pub(crate) fn answer(&self) -> &[u8] {
        self.incoming.body()
    }

    /// Wipes what the last answer left.
    pub(crate) fn wipe(&mut self) {
        self.incoming.wipe();
    }

    /// Ends the conversation, and waits until the other side has ended it.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.lost, true) {
            return;
        }
        let asked = self.stream.shutdown(std::net::Shutdown::Write);
        if asked.is_ok() && self.stream.set_read_timeout(Some(CLOSING)).is_ok() {
            let _ended = (&self.stream).read(&mut [0]);
        }
    }

    /// Gives the stream to whoever watches for a late answer.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }
}

fn write_all(to: &mut impl Write, mut slices: &mut [IoSlice<'_>], deadline: Instant) -> Result<(), Trouble> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match to.write_vectored(slices) {
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Trouble::Hung),
            Err(error) => return Err(Trouble::Gone(error.to_string())),
        }
        if !slices.is_empty() && Instant::now() > deadline {
            return Err(Trouble::Hung);
        }
    }
    Ok(())
}

/// Why a conversation is over.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The other side ended it.
    Gone(String),
    /// No answer came in time.
    Hung,
    /// An answer came that is none.
    Garbled(&'static str),
}

impl From<ReceiveError> for Trouble {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Ended => Trouble::Gone("the connection ended".into()),
            ReceiveError::Late => Trouble::Hung,
            ReceiveError::Garbled(garbled) => Trouble::Garbled(garbled.0),
        }
    }
}

impl Trouble {
    /// Says what happened, for the log.
    pub(crate) fn reason(&self, timeout: Duration) -> String {
        match self {
            Trouble::Gone(why) => format!("the worker is gone: {why}"),
            Trouble::Hung => format!("the worker did not answer within {} ms", timeout.as_millis()),
            Trouble::Garbled(what) => format!("the worker answered with {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const TIMEOUT: Duration = Duration::from_millis(100);

    /// Asks of a worker that answers with these bytes, whatever the question, and then ends the conversation or not.
    fn ask(answer: Vec<u8>, ends: bool) -> (Result<Vec<u8>, Trouble>, Connection) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours, TIMEOUT).unwrap();
        let worker = thread::spawn(move || {
            let question = Incoming::default().receive(&mut theirs, None).unwrap();
            assert_eq!((question.kind, question.tag), (Kind::Random, 1));
            theirs.write_all(&answer).unwrap();
            (!ends).then_some(theirs)
        });
        connection.begin().extend([0; 4]);
        let answered = connection.ask_for(Kind::Random, Kind::Bytes);
        let answered = answered.map(|answer| answer.expect("no test has it fail").to_vec());
        drop(worker.join().unwrap());
        (answered, connection)
    }

    fn answer(kind: Kind, tag: u64, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        wire::begin(&mut message);
        message.extend(body);
        wire::finish(&mut message, kind, tag, 0);
        message
    }

    #[test]
    fn the_answer_to_a_question_is_its_body() {
        let (answered, _) = ask(answer(Kind::Bytes, 1, b"four"), false);
        assert_eq!(answered.unwrap(), b"four");
    }

    #[test]
    fn an_answer_that_is_none_ends_the_conversation_for_good() {
        let good = answer(Kind::Bytes, 1, b"four");
        let garbled = [
            answer(Kind::Bytes, 2, b"four"),
            answer(Kind::Bytes, 0, b"four"),
            answer(Kind::Done, 1, b""),
            answer(Kind::Failed, 1, b"\x09\0\0\0\0\0"),
            [&good[..], &good[..]].concat(),
            vec![0x5a; 64],
        ];
        for bytes in garbled {
            let (answered, mut connection) = ask(bytes.clone(), false);
            assert!(matches!(answered, Err(Trouble::Garbled(_))), "{bytes:?}: {answered:?}");
            connection.begin();
            let again = connection.ask_for(Kind::Random, Kind::Bytes).err();
            assert!(matches!(again, Some(Trouble::Gone(_))), "{bytes:?}: {again:?}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_is_an_end_or_late() {
        let good = answer(Kind::Bytes, 1, b"four");
        for cut in [0, 1, 15, 16, 19] {
            let (answered, _) = ask(good[..cut].to_vec(), true);
            assert!(matches!(answered, Err(Trouble::Gone(_))), "{cut} bytes: {answered:?}");
        }
        let (answered, _) = ask(good[..17].to_vec(), false);
        assert!(matches!(answered, Err(Trouble::Gone(_) | Trouble::Hung)), "{answered:?}");
    }

    #[test]
    fn a_worker_that_says_nothing_or_takes_nothing_is_late() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours, TIMEOUT).unwrap();
        connection.begin();
        assert!(matches!(connection.ask_for(Kind::Canary, Kind::Done), Err(Trouble::Hung)));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours, TIMEOUT).unwrap();
        connection.begin();
        let long = vec![0; 4 * 1024 * 1024];
        assert!(matches!(connection.ask(Kind::Encrypt, [&long[..]].into_iter()), Err(Trouble::Hung)));
    }
}
