//! What commands and a sandbox say to each other over its listening socket: requests and answers with an id, events
//! without. Versioned, bounded, with descriptors beside them.
//!
//! A message is a packet that begins with a header (version, length of the body, id), goes on in packets of
//! [`MAX_MESSAGE`](hostsys::seqpacket::MAX_MESSAGE) bytes if it is longer, and has its descriptors with the first.
//! The body is postcard. Neither side believes the other: what does not decode ends the connection.

use std::os::fd::OwnedFd;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sandbox::config::Role;
use crate::sandbox::describe::{ContainerConfig, LimitsConfig, ProcessConfig};

/// Of this protocol. Commands and sandboxes of different versions refuse each other in words.
pub const VERSION: u32 = 1;
/// Longest body: arguments and environment of Linux fit.
pub const MAX_BODY: usize = 4 << 20;
/// Version, length, id.
const HEADER: usize = 16;
/// Most bytes in a packet.
const PACKET: usize = hostsys::seqpacket::MAX_MESSAGE;

/// A request, for one container of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The container.
    pub container: String,
    /// What is wanted.
    pub request: Request,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Let the first process run.
    Start,
    /// One more process. It belongs to the connection: its end is told there, and it is killed when the connection
    /// closes. Descriptors: its streams, or its terminal and standard error, then those that are preserved.
    Exec {
        /// The process.
        process: Box<ProcessConfig>,
        /// Standard error is apart from the terminal.
        stderr: bool,
    },
    /// A signal.
    Signal {
        /// For whom.
        target: Target,
        /// Which.
        signo: i32,
    },
    /// A terminal's new size.
    WindowSize {
        /// Whose terminal; 0 for the first process's.
        pid: i32,
        /// Lines.
        rows: u16,
        /// Characters a line.
        cols: u16,
    },
    /// Stop all tasks.
    Pause,
    /// Let them go on.
    Resume,
    /// Who runs.
    Processes,
    /// What is used.
    Stats,
    /// New limits.
    Update(LimitsConfig),
    /// Save the sandbox. Descriptors: the state file, the pages file.
    Checkpoint {
        /// When a program says that it is ready, not now.
        at_ready: bool,
        /// The sandbox ends when it is written.
        stop: bool,
    },
    /// Tell events from now on.
    Watch,
    /// One more container, of the call's name. It belongs to the connection: the end of its first process is told there, and
    /// it is destroyed when the connection closes.
    Create {
        /// The container.
        container: Box<ContainerConfig>,
        /// What the descriptors are.
        fds: Vec<Role>,
    },
    /// Kill what is left of the container and forget it; answered when all of it is gone.
    Destroy,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The first process.
    Init,
    /// A process, by its id inside.
    Process(i32),
    /// All.
    All,
}

/// What a sandbox says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// A process, by its id inside.
    Pid(i32),
    /// Who runs.
    Processes(Vec<Process>),
    /// What is used.
    Stats(Stats),
    /// It is not done: errno and a sentence.
    Refused(i32, String),
    /// Event: a process of this connection, or the first of its container, has ended with this status of `wait(2)`.
    Exited(i32, i32),
    /// Event: a process was killed for memory.
    Oom,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id inside.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// User.
    pub uid: u32,
    /// Seconds since 1970 at its start.
    pub start: u64,
    /// CPU time in nanoseconds.
    pub cpu: u64,
    /// Command line.
    pub command: String,
}

/// What a container uses, as its kernel counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Bytes now.
    pub memory: u64,
    /// Most bytes ever.
    pub memory_max: u64,
    /// At most; 0 for no limit.
    pub memory_limit: u64,
    /// How often the limit was met.
    pub memory_failcnt: u64,
    /// Processes killed for memory.
    pub oom_kills: u64,
    /// CPU time in nanoseconds: all, in guest code, in the sandbox's kernel.
    pub cpu: [u64; 3],
    /// Tasks.
    pub pids: u64,
    /// At most; 0 for no limit.
    pub pids_limit: u64,
}

/// A message cut into packets. Descriptors go with the first.
///
/// # Errors
/// It is too long.
pub fn encode<T: Serialize>(id: u64, value: &T) -> Result<Vec<Vec<u8>>, String> {
    let body = postcard::to_stdvec(value).map_err(|e| format!("encoding a message: {e}"))?;
    let len = u32::try_from(body.len()).ok().filter(|&n| n as usize <= MAX_BODY);
    let len = len.ok_or_else(|| format!("a message of {} bytes is longer than {MAX_BODY}", body.len()))?;
    let (first, rest) = body.split_at(body.len().min(PACKET - HEADER));
    let mut packet = Vec::with_capacity(HEADER + first.len());
    packet.extend_from_slice(&VERSION.to_le_bytes());
    packet.extend_from_slice(&len.to_le_bytes());
    packet.extend_from_slice(&id.to_le_bytes());
    packet.extend_from_slice(first);
    Ok(std::iter::once(packet).chain(rest.chunks(PACKET).map(<[u8]>::to_vec)).collect())
}

/// Puts packets together.
#[derive(Debug, Default)]
pub struct Assembler {
    id: u64,
    len: usize,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
    open: bool,
}

/// A message, whole.
#[derive(Debug)]
pub struct Whole<T> {
    /// Of the request, 0 of an event.
    pub id: u64,
    /// What it says.
    pub value: T,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
}

impl Assembler {
    /// Takes the next packet; answers the message that it completes.
    ///
    /// # Errors
    /// Rubbish, or another version: the connection is of no use any more.
    pub fn take<T: DeserializeOwned>(
        &mut self,
        packet: hostsys::seqpacket::Message,
    ) -> Result<Option<Whole<T>>, String> {
        let hostsys::seqpacket::Message { bytes, fds } = packet;
        if self.open {
            self.body.extend_from_slice(&bytes);
            self.fds.extend(fds);
        } else {
            self.begin(&bytes, fds)?;
        }
        if self.body.len() > self.len || self.fds.len() > hostsys::seqpacket::MAX_FDS {
            return Err("a message is longer than it says".to_owned());
        }
        if self.body.len() < self.len {
            return Ok(None);
        }
        let done = std::mem::take(self);
        let value = postcard::from_bytes(&done.body).map_err(|e| format!("a message that means nothing ({e})"))?;
        Ok(Some(Whole { id: done.id, value, fds: done.fds }))
    }

    fn begin(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<(), String> {
        let (header, body) = bytes.split_at_checked(HEADER).ok_or("a message without a header")?;
        let word = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        if word(0) != VERSION {
            return Err(format!("it speaks version {} of the protocol, not {VERSION}", word(0)));
        }
        let len = word(4) as usize;
        if len > MAX_BODY {
            return Err(format!("a message of {len} bytes"));
        }
        self.id = u64::from(word(8)) | u64::from(word(12)) << 32;
        (self.len, self.body, self.fds, self.open) = (len, body.to_vec(), fds, true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostsys::seqpacket::Message;

    fn cross(value: &Call, id: u64) -> Whole<Call> {
        let mut assembler = Assembler::default();
        let packets = encode(id, value).unwrap();
        let last = packets.len() - 1;
        for (n, bytes) in packets.into_iter().enumerate() {
            match assembler.take(Message { bytes, fds: Vec::new() }).unwrap() {
                Some(whole) => {
                    assert_eq!(n, last);
                    return whole;
                }
                None => assert!(n < last),
            }
        }
        panic!("never whole")
    }

    #[test]
    fn short_and_long_messages_cross() {
        let short = Call { container: "x".into(), request: Request::Signal { target: Target::All, signo: 9 } };
        let got = cross(&short, 1 << 40 | 7);
        assert_eq!((got.id, got.value), (1 << 40 | 7, short));
        for len in [PACKET - HEADER, PACKET * 3, 1 << 20] {
            let long = Call { container: "y".repeat(len), request: Request::Start };
            assert_eq!(cross(&long, 2).value, long);
        }
    }

    #[test]
    fn rubbish_is_an_error() {
        let take = |bytes: Vec<u8>| Assembler::default().take::<Call>(Message { bytes, fds: Vec::new() });
        assert!(take(Vec::new()).is_err());
        assert!(take(vec![9; 64]).unwrap_err().contains("version"));
        let mut packet = encode(1, &Answer::Done).unwrap().remove(0);
        packet.push(0);
        assert!(take(packet).is_err());
        let mut long = encode(1, &Answer::Done).unwrap().remove(0);
        long[7] = 0xff;
        assert!(take(long).is_err());
        assert!(encode(1, &"x".repeat(MAX_BODY)).is_err());
    }
}
