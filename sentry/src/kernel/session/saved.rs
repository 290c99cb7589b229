//! Sessions' controlling terminals as saved state.

use serde::{Deserialize, Serialize};

use super::{Control, Sessions};
use crate::checkpoint::{Refused, Restorer, Saver, Unusable};

/// A session and its terminal.
#[derive(Serialize, Deserialize)]
pub struct SessionState {
    sid: i32,
    foreground: i32,
}

impl Sessions {
    /// All sessions with a terminal.
    ///
    /// # Errors
    /// A terminal.
    pub fn save(&self, _saver: &mut Saver) -> Result<Vec<SessionState>, Refused> {
        let sessions = self.0.lock();
        let states = sessions.iter().map(|((_, sid), Control { terminal: _, foreground, pids: _ })| SessionState {
            sid: *sid,
            foreground: *foreground,
        });
        let states: Vec<SessionState> = states.collect();
        match states.first() {
            Some(first) => Err(Refused::because(
                format!("the controlling terminal of session {}", first.sid),
                "run it with --no-tty",
            )),
            None => Ok(states),
        }
    }
}

impl SessionState {
    /// Ties the session to its terminal again.
    ///
    /// # Errors
    /// There is no such terminal.
    pub fn restore(self, _restorer: &mut Restorer) -> Result<(), Unusable> {
        Err(Unusable::Corrupt("a session's terminal"))
    }
}
