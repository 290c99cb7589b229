//! Whose processes and containers are whose: what a command started through the control socket ends with its connection.

use std::collections::BTreeMap;

use sentry::boot::{Control, Target};

/// Who has what. Connections by their names.
#[derive(Default)]
pub struct Owners {
    /// Executed processes by container and id; `None`: the owner is gone, and it was killed.
    processes: BTreeMap<(String, i32), Option<u64>>,
    /// Containers besides the root.
    containers: BTreeMap<String, u64>,
}

/// Who hears of the end of a process.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The one who executed it.
    Executed(u64),
    /// The one whose container ends with it.
    First(u64),
    /// Nobody.
    Nobody,
}

/// The request that kills a process.
fn kill((id, pid): (String, i32)) -> Control {
    Control::Signal { id, target: Target::Process(pid), signo: libc::SIGKILL }
}

impl Owners {
    /// A process runs that `peer` asked for; without `peer` it is to be killed by what is answered.
    pub fn executed(&mut self, peer: Option<u64>, container: String, pid: i32) -> Option<Control> {
        let key = (container, pid);
        self.processes.insert(key.clone(), peer);
        peer.is_none().then(|| kill(key))
    }

    /// A container is there that `peer` asked for; without `peer` it is to be destroyed by what is answered.
    pub fn created(&mut self, peer: Option<u64>, id: String) -> Option<Control> {
        match peer {
            Some(peer) => {
                self.containers.insert(id, peer);
                None
            }
            None => Some(Control::Destroy { id }),
        }
    }

    /// Lets `peer` go; answers what ends what was its.
    pub fn forget(&mut self, peer: u64) -> Vec<Control> {
        let mut ends = Vec::new();
        for (key, owner) in self.processes.iter_mut().filter(|(_, owner)| **owner == Some(peer)) {
            *owner = None;
            ends.push(kill(key.clone()));
        }
        self.containers.retain(|id, owner| {
            let gone = *owner == peer;
            if gone {
                ends.push(Control::Destroy { id: id.clone() });
            }
            !gone
        });
        ends
    }

    /// The process `pid` of `container` has ended. What is told and was not executed is the first of its container.
    pub fn ended(&mut self, container: &str, pid: i32) -> Ended {
        match self.processes.remove(&(container.to_owned(), pid)) {
            Some(Some(peer)) => Ended::Executed(peer),
            Some(None) => Ended::Nobody,
            None => self.containers.get(container).map_or(Ended::Nobody, |peer| Ended::First(*peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_executed_ends_with_its_owner() {
        let mut owners = Owners::default();
        assert!(owners.executed(Some(20), "c".into(), 7).is_none());
        assert!(matches!(owners.executed(None, "c".into(), 8), Some(Control::Signal { .. })));
        assert_eq!(owners.ended("c", 8), Ended::Nobody);
        let ends = owners.forget(20);
        assert!(matches!(ends.as_slice(), [Control::Signal { target: Target::Process(7), signo: libc::SIGKILL, .. }]));
        assert_eq!(owners.ended("c", 7), Ended::Nobody);
        assert!(owners.forget(20).is_empty());
    }

    #[test]
    fn a_container_ends_with_its_owner() {
        let mut owners = Owners::default();
        assert!(owners.created(Some(20), "c".into()).is_none());
        assert!(matches!(owners.created(None, "d".into()), Some(Control::Destroy { .. })));
        owners.executed(Some(21), "c".into(), 7);
        assert_eq!(owners.ended("c", 7), Ended::Executed(21));
        assert_eq!(owners.ended("c", 1), Ended::First(20));
        assert_eq!(owners.ended("root", 1), Ended::Nobody);
        assert!(matches!(owners.forget(20).as_slice(), [Control::Destroy { id }] if id == "c"));
        assert_eq!(owners.ended("c", 1), Ended::Nobody);
    }
}
