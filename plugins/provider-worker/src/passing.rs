//! Hands the ends of new connections over the first one. Nothing of them has a name in a file system or elsewhere, so there is
//! nothing that others could connect to (unix(7), `SCM_RIGHTS`).

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The byte that a connection comes with: a message must have one.
const WITH: [u8; 1] = [b'c'];

/// Hands over one end of a connection.
pub(crate) fn pass(over: &UnixStream, stream: &UnixStream) -> io::Result<()> {
    let descriptors = [stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(over, &[IoSlice::new(&WITH)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for the next connection; `None` when there is nobody who could hand over one.
pub(crate) fn accept(over: &UnixStream) -> io::Result<Option<UnixStream>> {
    loop {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(over, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC);
        match received {
            Ok(received) if received.bytes == 0 => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        return match descriptor {
            Some(descriptor) if byte == WITH => Ok(Some(UnixStream::from(descriptor))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        };
    }
}

/// Takes the connection that this process was started with as its standard input. Nothing else can read from it then: neither a module
/// that asks for a PIN, nor a process that it starts.
pub(crate) fn inherited() -> io::Result<UnixStream> {
    let descriptor: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let stream = UnixStream::from(descriptor);
    // Fails where it is no socket of this kind: somebody started a worker by hand.
    stream.peer_addr()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_connection_that_was_handed_over_works() {
        let (over, other) = UnixStream::pair().unwrap();
        for text in [b"one", b"two"] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            pass(&over, &theirs).unwrap();
            drop(theirs);
            accept(&other).unwrap().unwrap().write_all(text).unwrap();
            let mut read = Vec::new();
            ours.read_to_end(&mut read).unwrap();
            assert_eq!(read, text);
        }
        drop(over);
        assert!(accept(&other).unwrap().is_none());
    }

    #[test]
    fn a_byte_without_a_connection_is_none() {
        let (mut over, other) = UnixStream::pair().unwrap();
        over.write_all(&WITH).unwrap();
        assert!(accept(&other).is_err());
    }
}
