//! Sessions' controlling terminals as saved state.

use serde::{Deserialize, Serialize};

use super::{Control, Sessions};
use crate::checkpoint::{Id, Refused, Restorer, Saver, Unusable};
use crate::fs::tty::Tty;
use crate::fs::tty::saved::TtyState;

/// A session and its terminal.
#[derive(Serialize, Deserialize)]
pub struct SessionState {
    sid: i32,
    foreground: i32,
    tty: Id<TtyState>,
}

impl Sessions {
    /// All sessions with a terminal.
    ///
    /// # Errors
    /// A terminal that goes.
    pub fn save(&self, saver: &mut Saver) -> Result<Vec<SessionState>, Refused> {
        let sessions = self.0.lock().clone();
        let state = |((_, sid), Control { terminal, foreground, pids: _ }): (&(u32, i32), &Control)| {
            let tty = terminal.as_any().downcast_ref::<Tty>();
            let tty = tty.ok_or_else(|| Refused::new(format!("the controlling terminal of session {sid}")))?;
            Ok(SessionState { sid: *sid, foreground: *foreground, tty: tty.met(saver)? })
        };
        sessions.iter().map(state).collect()
    }
}

impl SessionState {
    /// Ties the session to its terminal again.
    ///
    /// # Errors
    /// There is no such terminal.
    pub fn restore(self, restorer: &mut Restorer) -> Result<(), Unusable> {
        let tty = restorer.tty(self.tty)?;
        restorer.kernel.sessions.attach(&restorer.container.ns.pids, self.sid, tty, self.foreground);
        Ok(())
    }
}
