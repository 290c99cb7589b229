//! Requests from outside, as the sentry takes them: of the command that started the sandbox, by its pair; of later ones,
//! by the listening socket; of whoever signals the process. One epoll descriptor is all that the sentry sees of it.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use hostsys::SeqPacket;
use hostsys::seqpacket::Listener;
use hostsys::signals::SignalReader;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use sentry::boot::request::ProcessInfo;
use sentry::boot::{Answer, Control, ControlSource, Event, Reply, Request, Target, Token};

use super::owners::{Ended, Owners};
use super::peer::Peer;
use crate::control::protocol::{self, Call};
use crate::control::wire::Message;
use crate::failure::{Failure, Result};

/// The id of the first process in its container.
const INIT: i32 = 1;
/// Epoll's names of what is in it; peers have theirs from [`FIRST_PEER`].
const BOSS: u64 = 0;
const LISTENER: u64 = 1;
const SIGNALS: u64 = 2;
const WAKE: u64 = 3;
const FIRST_PEER: u64 = 16;
/// Connections at a time; more wait to be accepted.
const MAX_PEERS: usize = 128;

/// What the commands' sockets and the process's signals ask for.
pub struct Requests {
    epoll: Epoll,
    /// The command that started us, while it is there.
    boss: Option<Arc<SeqPacket>>,
    /// Its end is ours.
    attached: bool,
    listener: Option<Listener>,
    signals: Option<(SignalReader, Option<OwnedFd>)>,
    wake: EventFd,
    /// The container that the boss and signals mean.
    root: String,
    peers: BTreeMap<u64, Peer>,
    queue: VecDeque<Request>,
    /// Who waits for which answer.
    pending: BTreeMap<Token, Pending>,
    /// What ends with which connection.
    owners: Owners,
    next: u64,
}

/// What the creation of the root container is answered under.
const CREATED: Token = 1;

/// An answer that is waited for.
enum Pending {
    /// The boss waits for the container to be there.
    Created,
    /// The boss waits for a pause.
    Pause,
    /// A connection, with the id of its request.
    Peer { peer: u64, id: u64, container: String, makes: Makes },
    /// Nobody.
    Nobody,
}

/// What a request makes that belongs to its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Makes {
    Nothing,
    Process,
    Container,
}

impl Requests {
    /// Requests of the command behind `boss`, about the container `root`.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new(boss: Arc<SeqPacket>, attached: bool, root: &str) -> Result<Self> {
        let failed =
            |what: &'static str| move |e| Failure::host("listening for requests", hostsys::Error::new(what, e));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll_create1"))?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags).map_err(failed("eventfd2"))?;
        epoll.add(&boss, EpollEvent::new(EpollFlags::EPOLLIN, BOSS)).map_err(failed("epoll_ctl"))?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE)).map_err(failed("epoll_ctl"))?;
        Ok(Requests {
            epoll,
            boss: Some(boss),
            attached,
            listener: None,
            signals: None,
            wake,
            root: root.to_owned(),
            peers: BTreeMap::new(),
            queue: VecDeque::new(),
            pending: BTreeMap::new(),
            owners: Owners::default(),
            next: FIRST_PEER,
        })
    }

    /// Takes connections from `listener` as well, and tells the boss when the container is there.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn listen(&mut self, listener: Listener) -> Result<()> {
        self.add(&listener, LISTENER)?;
        self.listener = Some(listener);
        self.pending.insert(CREATED, Pending::Created);
        Ok(())
    }

    /// Passes `signals` of this process on to the first guest process; SIGWINCH tells the size of `terminal`.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn pass_signals(&mut self, signals: SignalReader, terminal: Option<OwnedFd>) -> Result<()> {
        self.add(&signals, SIGNALS)?;
        self.signals = Some((signals, terminal));
        Ok(())
    }

    /// What the creation of the root container is to be answered under: commands that leave wait for it.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        self.pending.contains_key(&CREATED).then_some(CREATED)
    }

    fn add(&self, fd: &impl AsFd, name: u64) -> Result<()> {
        let added = self.epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, name));
        added.map_err(|e| Failure::host("listening for requests", hostsys::Error::new("epoll_ctl", e)))
    }

    fn ask(&mut self, pending: Pending, control: Control) {
        self.next += 1;
        self.pending.insert(self.next, pending);
        self.queue.push_back(Request { token: self.next, control });
    }

    /// Looks at everything that has something; false where nothing had.
    fn look(&mut self) -> bool {
        let mut events = [EpollEvent::empty(); 16];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in events.iter().take(count) {
            match event.data() {
                BOSS => self.hear_boss(),
                LISTENER => self.accept(),
                SIGNALS => self.take_signals(),
                WAKE => drop(self.wake.read()),
                peer => self.hear_peer(peer),
            }
        }
        count > 0
    }

    fn hear_boss(&mut self) {
        let Some(boss) = self.boss.clone() else { return };
        loop {
            match boss.try_receive() {
                Ok(None) => return,
                Ok(Some(message)) if !message.is_eof() => self.boss_says(&message.bytes),
                _ => {
                    let _ = self.epoll.delete(&*boss);
                    self.boss = None;
                    if self.attached {
                        // Nobody will take the exit status.
                        self.ask(Pending::Nobody, Control::Shutdown);
                    }
                    return;
                }
            }
        }
    }

    fn boss_says(&mut self, bytes: &[u8]) {
        let id = self.root.clone();
        match Message::decode(bytes) {
            Some(Message::Signal(signo)) => {
                self.ask(Pending::Nobody, Control::Signal { id, target: Target::Init, signo })
            }
            Some(Message::WindowSize { rows, cols }) => {
                self.ask(Pending::Nobody, Control::WindowSize { id, pid: INIT, rows, cols });
            }
            Some(Message::Pause) => self.ask(Pending::Pause, Control::Pause { id }),
            Some(Message::Resume) => self.ask(Pending::Nobody, Control::Resume { id }),
            _ => {}
        }
    }

    fn accept(&mut self) {
        while self.peers.len() < MAX_PEERS {
            let Some(Ok(Some(socket))) = self.listener.as_ref().map(Listener::accept) else { return };
            self.next += 1;
            let name = self.next;
            let peer = Peer::new(socket);
            if self.add(&peer, name).is_ok() {
                self.peers.insert(name, peer);
            }
        }
        // Until one goes: a listener that stays readable would be looked at for ever.
        if let Some(listener) = &self.listener {
            let _ = self.epoll.delete(listener);
        }
    }

    fn take_signals(&mut self) {
        let id = self.root.clone();
        while let Some(Ok(Some(signal))) = self.signals.as_mut().map(|(signals, _)| signals.next()) {
            if signal != Signal::SIGWINCH {
                let control = Control::Signal { id: id.clone(), target: Target::Init, signo: signal as i32 };
                self.ask(Pending::Nobody, control);
                continue;
            }
            let terminal = self.signals.as_ref().and_then(|(_, terminal)| terminal.as_ref());
            if let Some(Ok(size)) = terminal.map(|fd| hostsys::tty::window_size(fd.as_fd())) {
                let control = Control::WindowSize { id: id.clone(), pid: INIT, rows: size.rows, cols: size.cols };
                self.ask(Pending::Nobody, control);
            }
        }
    }

    fn hear_peer(&mut self, name: u64) {
        loop {
            let Some(peer) = self.peers.get_mut(&name) else { return };
            match peer.hear() {
                Ok(None) => return,
                Ok(Some(whole)) => self.peer_asks(name, whole.id, whole.value, whole.fds),
                Err(why) => {
                    if let Some(why) = why {
                        log::warn!("a command on the control socket was cut off: {why}");
                    }
                    self.forget(name);
                    return;
                }
            }
        }
    }

    fn peer_asks(&mut self, peer: u64, id: u64, call: Call, fds: Vec<OwnedFd>) {
        let container = call.container.clone();
        let makes = match call.request {
            protocol::Request::Exec { .. } => Makes::Process,
            protocol::Request::Create { .. } => Makes::Container,
            _ => Makes::Nothing,
        };
        match super::peer::control(call, fds) {
            Ok(Some(control)) => self.ask(Pending::Peer { peer, id, container, makes }, control),
            Ok(None) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.watches = Some(container);
                }
                self.tell(peer, id, &protocol::Answer::Done);
            }
            Err(failure) => self.tell(peer, id, &protocol::Answer::Refused(libc::EINVAL, failure.message)),
        }
    }

    fn tell(&mut self, name: u64, id: u64, answer: &protocol::Answer) {
        let Some(peer) = self.peers.get_mut(&name) else { return };
        if let Err(why) = peer.tell(id, answer) {
            log::warn!("a command on the control socket was cut off: {why}");
            self.forget(name);
        }
    }

    /// Lets a connection go; what was its ends.
    fn forget(&mut self, name: u64) {
        let was_full = self.peers.len() >= MAX_PEERS;
        let Some(peer) = self.peers.remove(&name) else { return };
        let _ = self.epoll.delete(&peer);
        if let (true, Some(listener)) = (was_full, &self.listener) {
            let _ = self.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER));
        }
        for end in self.owners.forget(name) {
            self.end(end);
        }
    }

    fn end(&mut self, control: Control) {
        self.ask(Pending::Nobody, control);
        // We may be called from an answer or an event, after the sentry has looked for requests.
        let _ = self.wake.write(1);
    }

    /// Something was made: it belongs to who asked for it, if that is still there.
    fn made(&mut self, peer: u64, container: String, answer: &Answer, makes: Makes) {
        let peer = Some(peer).filter(|peer| self.peers.contains_key(peer));
        let end = match (makes, answer) {
            (Makes::Process, Answer::Pid(pid)) => self.owners.executed(peer, container, *pid),
            (Makes::Container, _) => self.owners.created(peer, container),
            _ => None,
        };
        end.into_iter().for_each(|end| self.end(end));
    }

    /// The container `id` has ended: nothing more is to be heard of it.
    fn dismiss_watchers(&mut self, id: &str) {
        for name in self.watchers(id) {
            self.forget(name);
        }
    }

    fn watchers(&self, id: &str) -> Vec<u64> {
        self.peers.iter().filter(|(_, p)| p.watches.as_deref() == Some(id)).map(|(name, _)| *name).collect()
    }
}

impl ControlSource for Requests {
    fn fd(&self) -> &OwnedFd {
        &self.epoll.0
    }

    fn next(&mut self) -> Option<Request> {
        loop {
            if let Some(request) = self.queue.pop_front() {
                return Some(request);
            }
            if !self.look() {
                return None;
            }
        }
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        match self.pending.remove(&token) {
            Some(Pending::Pause) => {
                if let Some(boss) = &self.boss {
                    let _ = boss.send(&Message::Paused.encode(), &[]);
                }
            }
            // What kept it from being there is the end of the sandbox, and told as that.
            Some(Pending::Created) => {
                if let (Some(boss), Ok(_)) = (&self.boss, &reply) {
                    let _ = boss.send(&Message::Ready.encode(), &[]);
                }
            }
            Some(Pending::Peer { peer, id, container, makes }) => {
                if let Ok(answer) = &reply {
                    self.made(peer, container, answer, makes);
                }
                self.tell(peer, id, &answer(reply));
            }
            Some(Pending::Nobody) | None => {
                if let Err((errno, sentence)) = reply {
                    log::debug!("a request was refused: {sentence} ({errno})");
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Exited { id, pid, status, .. } => match self.owners.ended(&id, pid) {
                Ended::Executed(peer) => self.tell(peer, 0, &protocol::Answer::Exited(pid, status)),
                Ended::First(peer) => {
                    self.tell(peer, 0, &protocol::Answer::Exited(pid, status));
                    self.dismiss_watchers(&id);
                }
                Ended::Nobody => {}
            },
            Event::Oom { id } => {
                for peer in self.watchers(&id) {
                    self.tell(peer, 0, &protocol::Answer::Oom);
                }
            }
        }
    }
}

fn answer(reply: Reply) -> protocol::Answer {
    match reply {
        Ok(Answer::Done) => protocol::Answer::Done,
        Ok(Answer::Pid(pid)) => protocol::Answer::Pid(pid),
        Ok(Answer::Processes(all)) => protocol::Answer::Processes(all.into_iter().map(process).collect()),
        Ok(Answer::Stats(stats)) => protocol::Answer::Stats(protocol::Stats {
            memory: stats.memory.usage,
            memory_max: stats.memory.max_usage,
            memory_limit: stats.memory.limit.unwrap_or(0),
            memory_failcnt: stats.memory.failcnt,
            oom_kills: stats.memory.oom_kills,
            cpu: [stats.cpu.total, stats.cpu.user, stats.cpu.system],
            pids: stats.pids,
            pids_limit: stats.pids_limit.unwrap_or(0),
        }),
        Err((errno, sentence)) => protocol::Answer::Refused(errno.raw(), sentence),
    }
}

/// Longest command line that is told.
const MAX_COMMAND: usize = 256;

fn process(info: ProcessInfo) -> protocol::Process {
    let command = String::from_utf8_lossy(info.command.get(..MAX_COMMAND).unwrap_or(&info.command)).into_owned();
    let since = info.start.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    protocol::Process { pid: info.pid, ppid: info.ppid, uid: info.uid, start: since.as_secs(), cpu: info.cpu, command }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::client::{Connection, Heard};

    fn requests(attached: bool) -> (SeqPacket, Requests) {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        (ours, Requests::new(Arc::new(theirs), attached, "do").unwrap())
    }

    #[test]
    fn requests_come_in_order_and_a_pause_is_answered() {
        let (ours, mut requests) = requests(true);
        assert!(requests.next().is_none());
        for message in [Message::Signal(15), Message::Pause, Message::Resume] {
            ours.send(&message.encode(), &[]).unwrap();
        }
        ours.send(b"rubbish", &[]).unwrap();
        assert!(matches!(requests.next().unwrap().control, Control::Signal { signo: 15, target: Target::Init, .. }));
        let pause = requests.next().unwrap();
        assert!(matches!(pause.control, Control::Pause { .. }));
        assert!(ours.try_receive().unwrap().is_none());
        requests.reply(pause.token, Ok(Answer::Done));
        assert!(matches!(requests.next().unwrap().control, Control::Resume { .. }));
        assert_eq!(Message::decode(&ours.receive().unwrap().bytes), Some(Message::Paused));
        assert!(requests.next().is_none());
        drop(ours);
        assert!(matches!(requests.next().unwrap().control, Control::Shutdown));
        assert!(requests.next().is_none());
    }

    #[test]
    fn a_detached_sandbox_outlives_its_command() {
        let (ours, mut requests) = requests(false);
        drop(ours);
        assert!(requests.next().is_none());
    }

    #[test]
    fn a_process_goes_with_its_connection() {
        let dir = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(dir.path()).unwrap();
        let (_ours, mut requests) = requests(false);
        requests.listen(Listener::bind(dir.as_fd(), "control.sock").unwrap()).unwrap();
        let mut command = Connection::open(dir.as_fd(), "c").unwrap();
        let null = hostsys::fds::dev_null().unwrap();
        let process = crate::oci::process::tests_process();
        let exec = protocol::Request::Exec { process: Box::new(process), stderr: false };
        let id = command.send(exec, &[null.as_fd(), null.as_fd(), null.as_fd()]).unwrap();
        let request = requests.next().unwrap();
        assert!(matches!(&request.control, Control::Exec { id, .. } if id == "c"));
        requests.reply(request.token, Ok(Answer::Pid(7)));
        assert_eq!(command.hear().unwrap(), Heard::Answer(id, protocol::Answer::Pid(7)));
        command.send(protocol::Request::Signal { target: protocol::Target::Process(7), signo: 2 }, &[]).unwrap();
        let signal = requests.next().unwrap();
        requests.reply(signal.token, Err((abi::Errno::ESRCH, "nobody".into())));
        assert!(matches!(command.hear().unwrap(), Heard::Answer(2, protocol::Answer::Refused(libc::ESRCH, _))));
        drop(command);
        let kill = requests.next().unwrap().control;
        assert!(matches!(kill, Control::Signal { target: Target::Process(7), signo: libc::SIGKILL, .. }));
        assert!(requests.next().is_none());
    }

    #[test]
    fn an_end_is_told_to_its_connection() {
        let dir = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(dir.path()).unwrap();
        let (_ours, mut requests) = requests(false);
        requests.listen(Listener::bind(dir.as_fd(), "control.sock").unwrap()).unwrap();
        let mut command = Connection::open(dir.as_fd(), "c").unwrap();
        command.send(protocol::Request::Watch, &[]).unwrap();
        assert!(requests.next().is_none());
        assert_eq!(command.hear().unwrap(), Heard::Answer(1, protocol::Answer::Done));
        let peer = *requests.peers.keys().next().unwrap();
        requests.made(peer, "c".into(), &Answer::Pid(9), Makes::Process);
        let when = std::time::SystemTime::now();
        requests.event(Event::Exited { id: "c".into(), pid: 9, status: 256, when });
        requests.event(Event::Oom { id: "other".into() });
        requests.event(Event::Oom { id: "c".into() });
        assert_eq!(command.hear().unwrap(), Heard::Answer(0, protocol::Answer::Exited(9, 256)));
        assert_eq!(command.hear().unwrap(), Heard::Answer(0, protocol::Answer::Oom));
        drop(requests);
        assert_eq!(command.hear().unwrap(), Heard::Gone);
    }
}
