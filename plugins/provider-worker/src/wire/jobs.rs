//! The use of keys for what has no common buffer: derivations, signatures, MACs and decryptions by a private key.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 16 | generation and number of the key |
//! | 16 | 4 | jobs, n |
//! | 20 | .. | for each job: its algorithm (4 + .., empty where there is one alone) and its input (4 + ..) |
//!
//! The answer: whether the session lives, n, and for each job a byte of outcome and its output (4 + ..).

use keymill_core::Sensitive;
use keymill_core::seam::provider::{JobError, SessionLost};

use super::Garbled;
use super::failure::{lost, put_lost};
use super::items::{KeyRef, complete, outcome, outcome_code};
use super::reader::{Reader, put_bytes, put_u32};

/// Bytes of a job without its algorithm and input, and of an outcome without its output.
const JOB_BYTES: usize = 4 + 4;
const OUTCOME_BYTES: usize = 1 + 4;

/// One job as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job<'a> {
    /// The algorithm, packed; empty where there is one alone.
    pub algorithm: &'a [u8],
    /// What it is done to.
    pub input: &'a [u8],
}

/// Jobs to be done.
#[derive(Debug, PartialEq, Eq)]
pub struct JobsRequest<'a> {
    /// The key.
    pub key: KeyRef,
    /// The jobs.
    pub jobs: Vec<Job<'a>>,
}

impl<'a> JobsRequest<'a> {
    /// Begins the body of a request for `jobs` jobs, which [`JobsRequest::encode_job`] writes behind it.
    pub fn encode(key: KeyRef, jobs: usize, out: &mut Vec<u8>) {
        key.put(out);
        put_u32(out, jobs);
    }

    /// Writes a job.
    pub fn encode_job(job: Job<'_>, out: &mut Vec<u8>) {
        put_bytes(out, job.algorithm);
        put_bytes(out, job.input);
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`Garbled`] where it is none.
    pub fn decode(body: &'a [u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(body);
        let key = KeyRef::read(&mut reader)?;
        let count = reader.count(JOB_BYTES)?;
        let jobs = (0..count)
            .map(|_| Ok(Job { algorithm: reader.bytes()?, input: reader.bytes()? }))
            .collect::<Result<_, Garbled>>()?;
        reader.finish()?;
        Ok(Self { key, jobs })
    }
}

/// The output of a job: bytes, or why there are none; `None` where it was not done.
pub type Output<T> = Option<Result<T, JobError>>;

/// What became of jobs.
pub struct JobsAnswer {
    /// Whether the session is lost.
    pub lost: Option<SessionLost>,
    /// The output of each.
    pub outputs: Vec<Output<Sensitive>>,
}

impl JobsAnswer {
    /// Writes the body of an answer. The room for all of it is made at once: a vector that grows leaves copies behind.
    pub fn encode<'a>(
        lost: Option<&SessionLost>,
        outputs: impl ExactSizeIterator<Item = Output<&'a [u8]>> + Clone,
        out: &mut Vec<u8>,
    ) {
        let bytes = |output: Output<&'a [u8]>| output.and_then(Result::ok).unwrap_or(&[]);
        out.reserve(2048 + outputs.clone().map(|output| OUTCOME_BYTES + bytes(output).len()).sum::<usize>());
        put_lost(out, lost);
        put_u32(out, outputs.len());
        for output in outputs {
            out.push(outcome_code(output.map(|output| output.map(|_| ()))));
            put_bytes(out, bytes(output));
        }
    }

    /// Reads the answer to a request of `jobs` jobs, whose outputs have `output_bytes` bytes if that is known.
    ///
    /// # Errors
    /// [`Garbled`] where it is not the answer to such.
    pub fn decode(body: &[u8], jobs: usize, output_bytes: Option<usize>) -> Result<Self, Garbled> {
        let mut reader = Reader::new(body);
        let lost = lost(&mut reader)?;
        if reader.count(OUTCOME_BYTES)? != jobs {
            return Err(Garbled("an answer to another number of items"));
        }
        let mut outputs = Vec::with_capacity(jobs);
        for _ in 0..jobs {
            let outcome = outcome(reader.u8()?)?;
            let bytes = reader.bytes()?;
            complete(outcome, lost.as_ref())?;
            match outcome {
                Some(Ok(())) if output_bytes.is_some_and(|expected| expected != bytes.len()) => {
                    return Err(Garbled("an output of another length"));
                }
                Some(Err(_)) | None if !bytes.is_empty() => return Err(Garbled("an output of what failed")),
                _ => outputs.push(outcome.map(|outcome| outcome.map(|()| Sensitive::copied(bytes)))),
            }
        }
        reader.finish()?;
        Ok(Self { lost, outputs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyRef = KeyRef { generation: 5, number: 77 };

    #[test]
    fn jobs_arrive_as_they_were_sent() {
        let jobs = [Job { algorithm: b"one", input: b"" }, Job { algorithm: b"", input: &[7; 1000] }];
        let mut body = Vec::new();
        JobsRequest::encode(KEY, jobs.len(), &mut body);
        jobs.iter().for_each(|job| JobsRequest::encode_job(*job, &mut body));
        assert_eq!(JobsRequest::decode(&body).unwrap(), JobsRequest { key: KEY, jobs: jobs.to_vec() });
        assert!((0..body.len()).all(|cut| JobsRequest::decode(&body[..cut]).is_err()));
    }

    #[test]
    fn outputs_arrive_and_what_does_not_belong_is_garbled() {
        let outputs: [Output<&[u8]>; 3] = [Some(Ok(&[8; 32])), Some(Err(JobError::StaleHandle)), None];
        let encoded = |lost: Option<&SessionLost>, outputs: &[Output<&[u8]>]| {
            let mut body = Vec::new();
            JobsAnswer::encode(lost, outputs.iter().copied(), &mut body);
            body
        };
        let body = encoded(Some(&"gone".into()), &outputs);
        let read = JobsAnswer::decode(&body, 3, Some(32)).unwrap();
        assert_eq!(read.lost.map(|lost| lost.reason).as_deref(), Some("gone"));
        let read: Vec<_> = read
            .outputs
            .iter()
            .map(|output| output.as_ref().map(|output| output.as_ref().map(Sensitive::expose)))
            .collect();
        assert_eq!(
            read,
            outputs.map(|output| output.map(|output| output.map_err(|_| &JobError::StaleHandle)))
        );
        assert!(JobsAnswer::decode(&body, 2, Some(32)).is_err());
        assert!(JobsAnswer::decode(&body, 3, Some(31)).is_err());
        assert!(JobsAnswer::decode(&body, 3, None).is_ok());
        let alive = encoded(None, &outputs);
        assert!(JobsAnswer::decode(&alive, 3, None).is_err(), "the last job has no outcome");
        assert!(JobsAnswer::decode(&encoded(None, &outputs[..2]), 2, None).is_ok());
    }
}
