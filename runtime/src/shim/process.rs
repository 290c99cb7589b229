//! A process as containerd sees it: created, running, ended with a status, waited for.

use std::time::SystemTime;

use parking_lot::{Condvar, Mutex};

use super::io::{Kept, Wanted};

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    Created,
    /// A start is under way: the news of its end must come after that of its start.
    Starting,
    /// Started.
    Running,
    /// Ended.
    Ended(Exit),
}

/// Its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Status, 128+n for signal n.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// What changes.
struct State {
    phase: Phase,
    /// It ended while it was being started.
    early: Option<Exit>,
    /// Its id inside of the container; 0 before there is one.
    inside: i32,
    kept: Kept,
}

/// A process.
pub struct Process {
    /// Its name; empty for the first of a container.
    pub exec_id: String,
    /// Its streams.
    pub io: Wanted,
    state: Mutex<State>,
    changed: Condvar,
}

impl Process {
    /// A process that is created.
    pub fn new(exec_id: &str, io: Wanted, inside: i32, kept: Kept) -> Self {
        let state = State { phase: Phase::Created, early: None, inside, kept };
        Process { exec_id: exec_id.to_owned(), io, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// Its id inside of the container.
    pub fn inside(&self) -> i32 {
        self.state.lock().inside
    }

    /// Begins to start it; false where that is done or under way.
    pub fn begin(&self) -> bool {
        let mut state = self.state.lock();
        let fresh = state.phase == Phase::Created;
        if fresh {
            state.phase = Phase::Starting;
        }
        fresh
    }

    /// It could not be started.
    pub fn not_begun(&self) -> Option<Exit> {
        let mut state = self.state.lock();
        state.phase = state.early.take().map_or(Phase::Created, Phase::Ended);
        self.end(&state)
    }

    /// It is started, as `inside`. Answers its end if that has come already.
    pub fn begun(&self, inside: i32) -> Option<Exit> {
        let mut state = self.state.lock();
        state.inside = inside;
        state.phase = state.early.take().map_or(Phase::Running, Phase::Ended);
        self.end(&state)
    }

    fn end(&self, state: &State) -> Option<Exit> {
        match state.phase {
            Phase::Ended(exit) => {
                self.changed.notify_all();
                Some(exit)
            }
            _ => None,
        }
    }

    /// It has ended. Answers whether that is news that may be told.
    pub fn ended(&self, exit: Exit) -> bool {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Ended(_) => false,
            Phase::Starting => {
                state.early = Some(exit);
                false
            }
            Phase::Created | Phase::Running => {
                state.phase = Phase::Ended(exit);
                self.changed.notify_all();
                true
            }
        }
    }

    /// Waits for its end.
    pub fn wait(&self) -> Exit {
        let mut state = self.state.lock();
        loop {
            if let Phase::Ended(exit) = state.phase {
                return exit;
            }
            self.changed.wait(&mut state);
        }
    }

    /// More to be kept while there is the process.
    pub fn keep(&self, kept: Kept) {
        self.state.lock().kept.extend(kept);
    }

    /// Nobody will write to its input any more.
    pub fn close_input(&self) {
        self.state.lock().kept.close_input();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        Process::new("", Wanted::default(), 0, Kept::default())
    }

    fn exit(status: u32) -> Exit {
        Exit { status, at: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn an_end_while_starting_is_told_after_the_start() {
        let process = process();
        assert!(process.begin() && !process.begin());
        assert!(!process.ended(exit(3)));
        assert_eq!(process.begun(1), Some(exit(3)));
        assert_eq!(process.wait(), exit(3));
        assert!(!process.ended(exit(4)));
    }

    #[test]
    fn a_start_that_fails_may_be_tried_again() {
        let process = process();
        assert!(process.begin());
        assert_eq!(process.not_begun(), None);
        assert!(process.begin());
        assert_eq!(process.begun(7), None);
        assert_eq!((process.inside(), process.phase()), (7, Phase::Running));
        assert!(process.ended(exit(0)));
    }
}
