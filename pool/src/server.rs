//! The daemon: keeps blanks ready and hands them out. One thread, since making a blank forks.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use hostsys::seqpacket::Listener;
use hostsys::signals::SignalReader;
use hostsys::{Child, SeqPacket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::proto::{Ask, Stats, Told, send};

/// A sandbox process that waits to be told what it is.
pub struct Blank {
    /// The process.
    pub child: Child,
    /// Where it is told, and where it has said that it is ready.
    pub control: SeqPacket,
}

/// Who makes blanks.
pub trait Maker {
    /// What its blanks are; whoever takes one names it.
    fn kind(&self) -> &str;
    /// Starts one. It sends a message when it is ready.
    ///
    /// # Errors
    /// The host does not let us, in a sentence.
    fn make(&mut self) -> Result<Blank, String>;
}

/// How much is kept ready.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Blanks.
    pub blanks: usize,
}

/// Connections at a time.
const MAX_PEERS: usize = 128;

struct Pool<'a> {
    maker: &'a mut dyn Maker,
    limits: Limits,
    warming: Vec<Blank>,
    ready: VecDeque<Blank>,
    peers: Vec<SeqPacket>,
    stats: Stats,
}

/// Serves until SIGTERM or SIGINT. Blanks that nobody has taken end with it; instances go on.
///
/// # Errors
/// What `poll` or a signal descriptor says.
pub fn serve(maker: &mut dyn Maker, limits: Limits, listener: &Listener, mut signals: SignalReader) -> io::Result<()> {
    let (warming, ready, peers) = (Vec::new(), VecDeque::new(), Vec::new());
    let mut pool = Pool { maker, limits, warming, ready, peers, stats: Stats::default() };
    loop {
        let refilled = pool.refill();
        pool.wait(listener.as_fd(), signals.as_fd(), refilled)?;
        while let Some(signal) = signals.next().map_err(|e| io::Error::from_raw_os_error(e.errno()))? {
            match signal {
                Signal::SIGCHLD => reap(),
                _ => return Ok(()),
            }
        }
        pool.look_after_blanks();
        while pool.peers.len() < MAX_PEERS {
            match listener.accept() {
                Ok(Some(peer)) => pool.peers.push(peer),
                _ => break,
            }
        }
        pool.hear_peers();
    }
}

/// Takes the ends of blanks and instances: nobody else can.
fn reap() {
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

impl Pool<'_> {
    /// Starts one blank, where one is missing. False where one could not be started.
    fn refill(&mut self) -> bool {
        if self.ready.len() + self.warming.len() >= self.limits.blanks {
            return true;
        }
        match self.maker.make() {
            Ok(blank) => {
                self.stats.made += 1;
                self.warming.push(blank);
                true
            }
            Err(why) => {
                log::error!("no blank sandbox: {why}");
                false
            }
        }
    }

    fn wait(&self, listener: BorrowedFd<'_>, signals: BorrowedFd<'_>, refilled: bool) -> io::Result<()> {
        // After a failure the next try is made in a while.
        const AGAIN: u16 = 1000;
        let missing = self.ready.len() + self.warming.len() < self.limits.blanks;
        let timeout = match (missing, refilled) {
            (true, true) => PollTimeout::ZERO,
            (true, false) => PollTimeout::from(AGAIN),
            (false, _) => PollTimeout::NONE,
        };
        let fds = [listener, signals].into_iter().chain(self.peers.iter().map(AsFd::as_fd));
        let fds = fds.chain(self.warming.iter().chain(&self.ready).map(|blank| blank.control.as_fd()));
        let mut set: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut set, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Blanks that have said that they are ready can be taken; those that have ended are forgotten.
    fn look_after_blanks(&mut self) {
        for blank in std::mem::take(&mut self.warming) {
            match blank.control.try_receive() {
                Ok(None) => self.warming.push(blank),
                Ok(Some(message)) if !message.is_eof() => self.ready.push_back(blank),
                _ => self.stats.died += 1,
            }
        }
        let before = self.ready.len();
        // A blank that waits says nothing: whatever is heard is its end.
        self.ready.retain(|blank| matches!(blank.control.try_receive(), Ok(None)));
        self.stats.died += (before - self.ready.len()) as u64;
    }

    fn hear_peers(&mut self) {
        for peer in std::mem::take(&mut self.peers) {
            match peer.try_receive() {
                Ok(None) => self.peers.push(peer),
                Ok(Some(message)) if !message.is_eof() => match serde_json::from_slice(&message.bytes) {
                    Ok(ask) => {
                        if self.answer(&peer, &ask).is_ok() {
                            self.peers.push(peer);
                        }
                    }
                    Err(e) => log::warn!("a request that means nothing: {e}"),
                },
                _ => {}
            }
        }
    }

    fn answer(&mut self, peer: &SeqPacket, ask: &Ask) -> io::Result<()> {
        match ask {
            Ask::Take { kind } if kind == self.maker.kind() => match self.ready.pop_front() {
                Some(blank) => {
                    self.stats.taken += 1;
                    send(peer, &Told::Blank { pid: blank.child.pid() }, &[blank.control.as_fd()])
                }
                None => self.miss(peer),
            },
            Ask::Take { .. } => self.miss(peer),
            Ask::Stats => {
                let (ready, warming) = (self.ready.len() as u64, self.warming.len() as u64);
                send(peer, &Told::Stats(Stats { ready, warming, ..self.stats }), &[])
            }
        }
    }

    fn miss(&mut self, peer: &SeqPacket) -> io::Result<()> {
        self.stats.missed += 1;
        send(peer, &Told::Empty, &[])
    }
}
