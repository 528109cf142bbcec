//! A session of the provider, on the thread of its conversation.

use std::io::{self, IoSlice, Write};
use std::os::unix::net::UnixStream;

use keymill_core::Sensitive;
use keymill_core::seam::provider::{
    CryptoSession, DecryptJob, DeriveJob, JobError, KeyHandle, SessionLost, SignJob,
};
use zeroize::Zeroizing;

use super::{Serving, answer_done, answer_failed};
use crate::wire::{
    self, AeadAnswer, AeadRequest, Garbled, Header, Incoming, Job, JobsAnswer, JobsRequest, Kind, Output,
    RANDOM_BYTES,
};

/// Opens a session and serves it until the parent ends the conversation, or the provider loses it.
pub(super) fn hold(mut stream: UnixStream, incoming: Incoming, tag: u64, serving: &Serving) {
    match serving.served.provider.open_session() {
        Ok(session) => {
            if answer_done(&mut stream, tag).is_ok() {
                let mut talk = Talk { stream, incoming, session, serving, message: Zeroizing::default() };
                while talk.next().is_ok_and(|lost| !lost) {}
            }
        }
        Err(error) => {
            // The parent may be gone, which is the end, too.
            let _told = answer_failed(&mut stream, tag, &serving.failed(error));
        }
    }
}

struct Talk<'a> {
    stream: UnixStream,
    incoming: Incoming,
    session: Box<dyn CryptoSession>,
    serving: &'a Serving,
    /// The answer, but for texts.
    message: Zeroizing<Vec<u8>>,
}

/// The conversation is over: the parent has ended it, or says what cannot be understood.
struct Over;

impl From<Garbled> for Over {
    fn from(_: Garbled) -> Self {
        Over
    }
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Over
    }
}

impl Talk<'_> {
    /// Does one request, and tells whether the session is lost.
    fn next(&mut self) -> Result<bool, Over> {
        let header = self.incoming.receive(&mut self.stream, None).map_err(|_| Over)?;
        match header.kind {
            Kind::Encrypt | Kind::Decrypt => self.aead(header),
            Kind::Derive => self.jobs::<DeriveJob>(header.tag),
            Kind::Sign => self.jobs::<SignJob>(header.tag),
            Kind::DecryptAsymmetric => self.jobs::<DecryptJob>(header.tag),
            Kind::Random => self.random(header.tag),
            _ => Err(Over),
        }
    }

    fn aead(&mut self, header: Header) -> Result<bool, Over> {
        let bytes = wire::HEADER_BYTES + header.body_bytes;
        // The texts stay where they arrived: sealed or opened there, and sent from there.
        let AeadRequest { key, mut batch, texts } = AeadRequest::decode(self.incoming.take(), bytes)?;
        let mut lost = Ok(());
        match self.serving.keys.handle(key) {
            Ok(key) => {
                lost = match header.kind {
                    Kind::Encrypt => self.session.encrypt(&key, &mut batch),
                    _ => self.session.decrypt(&key, &mut batch),
                }
            }
            Err(error) => batch.items.iter_mut().for_each(|item| item.outcome = Some(Err(error))),
        }
        wire::begin(&mut self.message);
        AeadAnswer::encode(lost.as_ref().err(), &batch.items, &mut self.message);
        wire::finish(&mut self.message, Kind::Outcomes, header.tag, texts.len());
        let sent = write_both(&mut self.stream, &self.message, &batch.buffer[texts]);
        self.incoming.put_back(batch.buffer);
        self.incoming.wipe();
        sent?;
        Ok(lost.is_err())
    }

    /// Does jobs that have no common buffer.
    fn jobs<J: Local>(&mut self, tag: u64) -> Result<bool, Over> {
        let JobsRequest { key, jobs } = JobsRequest::decode(self.incoming.body())?;
        let mut jobs = jobs.into_iter().map(J::read).collect::<Result<Vec<_>, _>>()?;
        let mut lost = Ok(());
        match self.serving.keys.handle(key) {
            Ok(key) => lost = J::work(&mut *self.session, &key, &mut jobs),
            Err(error) => jobs.iter_mut().for_each(|job| job.refuse(error)),
        }
        wire::begin(&mut self.message);
        JobsAnswer::encode(lost.as_ref().err(), jobs.iter().map(J::output), &mut self.message);
        self.finish(Kind::Outputs, tag, lost)
    }

    fn random(&mut self, tag: u64) -> Result<bool, Over> {
        let bytes = match <[u8; 4]>::try_from(self.incoming.body()).map(u32::from_be_bytes) {
            Ok(bytes) if bytes as usize <= RANDOM_BYTES => bytes as usize,
            _ => return Err(Over),
        };
        wire::begin(&mut self.message);
        self.message.resize(wire::HEADER_BYTES + bytes, 0);
        match self.session.random(&mut self.message[wire::HEADER_BYTES..]) {
            Ok(()) => self.finish(Kind::Bytes, tag, Ok(())),
            Err(error) => {
                answer_failed(&mut self.stream, tag, &self.serving.failed(error))?;
                Ok(false)
            }
        }
    }

    fn finish(&mut self, kind: Kind, tag: u64, lost: Result<(), SessionLost>) -> Result<bool, Over> {
        wire::finish(&mut self.message, kind, tag, 0);
        let sent = self.stream.write_all(&self.message);
        self.message.fill(0);
        sent?;
        Ok(lost.is_err())
    }
}

/// What jobs of all kinds have in common.
trait Local: Sized {
    fn read(job: Job<'_>) -> Result<Self, Garbled>;
    fn work(session: &mut dyn CryptoSession, key: &KeyHandle, jobs: &mut [Self]) -> Result<(), SessionLost>;
    fn refuse(&mut self, error: JobError);
    fn output(&self) -> Output<&[u8]>;
}

impl Local for DeriveJob {
    fn read(job: Job<'_>) -> Result<Self, Garbled> {
        let (blocks, rest) = job.input.as_chunks();
        match <[[u8; 16]; 2]>::try_from(blocks) {
            Ok(messages) if rest.is_empty() && job.algorithm.is_empty() => Ok(Self::new(messages)),
            _ => Err(Garbled("a derivation from other than two blocks")),
        }
    }

    fn work(session: &mut dyn CryptoSession, key: &KeyHandle, jobs: &mut [Self]) -> Result<(), SessionLost> {
        session.derive(key, jobs)
    }

    fn refuse(&mut self, error: JobError) {
        self.output = Some(Err(error));
    }

    fn output(&self) -> Output<&[u8]> {
        self.output.as_ref().map(|output| output.as_ref().map(Sensitive::expose).map_err(|error| *error))
    }
}

impl Local for SignJob {
    fn read(job: Job<'_>) -> Result<Self, Garbled> {
        Ok(Self::new(wire::unpacked(job.algorithm)?, job.input.to_vec()))
    }

    fn work(session: &mut dyn CryptoSession, key: &KeyHandle, jobs: &mut [Self]) -> Result<(), SessionLost> {
        session.sign(key, jobs)
    }

    fn refuse(&mut self, error: JobError) {
        self.output = Some(Err(error));
    }

    fn output(&self) -> Output<&[u8]> {
        self.output.as_ref().map(|output| output.as_ref().map(Vec::as_slice).map_err(|error| *error))
    }
}

impl Local for DecryptJob {
    fn read(job: Job<'_>) -> Result<Self, Garbled> {
        Ok(Self::new(wire::unpacked(job.algorithm)?, job.input.to_vec()))
    }

    fn work(session: &mut dyn CryptoSession, key: &KeyHandle, jobs: &mut [Self]) -> Result<(), SessionLost> {
        session.decrypt_asymmetric(key, jobs)
    }

    fn refuse(&mut self, error: JobError) {
        self.output = Some(Err(error));
    }

    fn output(&self) -> Output<&[u8]> {
        self.output.as_ref().map(|output| output.as_ref().map(Sensitive::expose).map_err(|error| *error))
    }
}

fn write_both(to: &mut impl Write, one: &[u8], other: &[u8]) -> io::Result<()> {
    let mut slices = [IoSlice::new(one), IoSlice::new(other)];
    let mut slices = slices.as_mut_slice();
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match to.write_vectored(slices) {
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
