//! Terminals as saved state. A console's host side is given anew; a terminal whose user was outside hangs up.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::state::State;
use super::{MasterFile, PTY_LIMIT, SlaveFile, Tty};
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};

/// Mode and owner of a name in devpts.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Looks {
    /// Permission bits.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// [`Tty`].
#[derive(Serialize, Deserialize)]
pub struct TtyState {
    index: u32,
    state: State,
    looks: Option<Looks>,
    owner: Option<u32>,
}

impl Object for Tty {
    type State = TtyState;

    fn save(self: &Arc<Self>, _saver: &mut Saver) -> Result<TtyState, Refused> {
        let Tty { index, me: _, kernel: _, home: _, state, node, owner, looks, slave_queue: _, master_queue: _ } =
            &**self;
        let now = node.get().map(|node| {
            let attr = node.attr();
            Looks { perm: attr.perm, uid: attr.uid, gid: attr.gid }
        });
        let state = state.lock().clone();
        Ok(TtyState { index: *index, state, looks: now.or(*looks), owner: owner.get().copied() })
    }
}

impl TtyState {
    /// The terminal, found by its index where its master is open. Nobody has it open yet.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<Tty>, Unusable> {
        let TtyState { index, mut state, looks, owner } = self;
        let bad = Unusable::Corrupt("a terminal");
        if index >= PTY_LIMIT || !state.input.is_sound() || !state.output.is_sound() {
            return Err(bad);
        }
        // Counted again as they come.
        state.slaves = 0;
        let (kernel, home) = (Arc::downgrade(&restorer.kernel), restorer.container.ptys.clone());
        let open = state.master_open;
        let tty = Arc::new_cyclic(|me| Tty {
            index,
            me: me.clone(),
            kernel,
            home: Arc::downgrade(&home),
            state: Mutex::new(Level::File, state),
            node: OnceLock::new(),
            owner: owner.map_or_else(OnceLock::new, OnceLock::from),
            looks,
            slave_queue: WaitQueue::new(),
            master_queue: WaitQueue::new(),
        });
        if open && home.open.lock().insert(index, tty.clone()).is_some() {
            return Err(bad);
        }
        Ok(tty)
    }
}

impl Tty {
    /// Its place in the table.
    ///
    /// # Errors
    /// It is going.
    pub fn met(&self, saver: &mut Saver) -> Result<Id<TtyState>, Refused> {
        let me = self.me.upgrade().ok_or_else(|| Refused::new("a terminal that goes"))?;
        Ok(saver.ttys.id(&me))
    }

    /// Nobody holds its master any more: it hangs up.
    pub fn abandon(&self) {
        self.master_closed();
    }
}

impl SlaveFile {
    /// The open slave, which has seen so many hang-ups.
    #[must_use]
    pub fn restored(tty: Arc<Tty>, hangups: u32) -> Arc<Self> {
        tty.state.lock().slaves += 1;
        Arc::new(SlaveFile { tty, hangups })
    }
}

impl MasterFile {
    /// The open master.
    #[must_use]
    pub fn restored(tty: Arc<Tty>) -> Arc<Self> {
        Arc::new(MasterFile { tty })
    }
}
