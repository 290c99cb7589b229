//! Messages after boot: 16 bytes, little endian: kind, then three values. Longer ones carry text behind.

use crate::failure::{Failure, Status};

/// A message of either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the sandbox: send this signal to the program's process group (the foreground one of its terminal, if any).
    Signal(i32),
    /// To the sandbox: the terminal has this size now.
    WindowSize {
        /// Lines.
        rows: u16,
        /// Characters a line.
        cols: u16,
    },
    /// To the sandbox: stop running guest code, then answer [`Message::Paused`].
    Pause,
    /// To the sandbox: run guest code again.
    Resume,
    /// From the sandbox: no guest code runs any more.
    Paused,
    /// From the sandbox: the container is there, all walls stand, and its program waits or runs.
    Ready,
    /// From the sandbox: the program ended with this status.
    Exited(u8),
    /// From the sandbox: this signal ended the program.
    Signaled(u8),
    /// From the sandbox: the program could not be run.
    Failed(u8, String),
}

const SIGNAL: u32 = 1;
const WINDOW_SIZE: u32 = 2;
const PAUSE: u32 = 3;
const RESUME: u32 = 4;
const PAUSED: u32 = 5;
const EXITED: u32 = 6;
const SIGNALED: u32 = 7;
const FAILED: u32 = 8;
const READY: u32 = 9;
const HEADER: usize = 16;

impl Message {
    /// The failure as a message.
    #[must_use]
    pub fn failed(failure: &Failure) -> Self {
        Message::Failed(failure.status as u8, failure.message.clone())
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = "";
        let (kind, a, b) = match self {
            Message::Signal(n) => (SIGNAL, n.cast_unsigned(), 0),
            Message::WindowSize { rows, cols } => (WINDOW_SIZE, u32::from(*rows), u32::from(*cols)),
            Message::Pause => (PAUSE, 0, 0),
            Message::Resume => (RESUME, 0, 0),
            Message::Paused => (PAUSED, 0, 0),
            Message::Ready => (READY, 0, 0),
            Message::Exited(code) => (EXITED, u32::from(*code), 0),
            Message::Signaled(signal) => (SIGNALED, u32::from(*signal), 0),
            Message::Failed(status, message) => {
                text = message;
                (FAILED, u32::from(*status), 0)
            }
        };
        let mut bytes = Vec::with_capacity(HEADER + text.len());
        for word in [kind, a, b, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// What `bytes` mean; `None` for what this version does not know. The sandbox process is not trusted.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let word = |n: usize| Some(u32::from_le_bytes(bytes.get(n * 4..n * 4 + 4)?.try_into().ok()?));
        let byte = |n: usize| u8::try_from(word(n)?).ok();
        let short = |n: usize| u16::try_from(word(n)?).ok();
        let text = bytes.get(HEADER..)?;
        Some(match word(0)? {
            SIGNAL => Message::Signal(word(1)?.cast_signed()),
            WINDOW_SIZE => Message::WindowSize { rows: short(1)?, cols: short(2)? },
            PAUSE => Message::Pause,
            RESUME => Message::Resume,
            PAUSED => Message::Paused,
            READY => Message::Ready,
            EXITED => Message::Exited(byte(1)?),
            SIGNALED => Message::Signaled(byte(1)?),
            FAILED => Message::Failed(byte(1)?, printable(text)),
            _ => return None,
        })
    }
}

/// Text from the sandbox for a person's terminal: no control characters, and not without end.
pub fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..4096).unwrap_or(text));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The status that the sandbox process named, if it is one that it may name.
#[must_use]
pub fn status(value: u8) -> Status {
    use Status::{
        BadIdentity, Exhausted, ImageCorrupt, ImageMissing, NoInterpreter, NoPlatform, NotExecutable, NotFound,
        NotPermitted, Runtime, SandboxDied, Snapshot, WrongFormat,
    };
    let named = [
        ImageMissing,
        ImageCorrupt,
        NoPlatform,
        NotPermitted,
        Exhausted,
        SandboxDied,
        Snapshot,
        WrongFormat,
        NoInterpreter,
        BadIdentity,
        NotExecutable,
        NotFound,
    ];
    named.into_iter().find(|&s| s as u8 == value).unwrap_or(Runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip() {
        for message in [
            Message::Signal(15),
            Message::WindowSize { rows: 24, cols: 80 },
            Message::Pause,
            Message::Resume,
            Message::Paused,
            Message::Ready,
            Message::Exited(255),
            Message::Signaled(9),
            Message::Failed(127, "no such program".into()),
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn a_hostile_sandbox_cannot_confuse() {
        assert_eq!(Message::decode(b""), None);
        assert_eq!(Message::decode(&[10; 16]), None);
        assert_eq!(Message::decode(&[6, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        let Some(Message::Failed(_, text)) = Message::decode(&Message::Failed(1, "\x1b[2J\n".into()).encode()) else {
            panic!("a failure message")
        };
        assert_eq!(text, " [2J ");
        assert_eq!(status(3), Status::Runtime);
        assert_eq!(status(127), Status::NotFound);
    }
}
