//! Containers that share a sandbox: whose it is, and what they share in it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Context;
use crate::failure::{Failure, Result};
use crate::oci::namespaces::{Asked, SHARED};
use crate::state::{Pod, Record};

/// The sandbox that is to be joined.
pub struct Joined {
    /// Goes into the new container's record.
    pub pod: Pod,
    /// The container that it was made for.
    leader: Record,
    /// The others in it.
    members: Vec<Record>,
}

/// The sandbox of container `id`, which may itself be a container in another one's.
///
/// # Errors
/// There is none, or it has ended.
pub fn find(cx: &Context, id: &str) -> Result<Joined> {
    let gone = |why: &dyn std::fmt::Display| Failure::runtime(format!("the pod's sandbox {id}: {why}"));
    let named = cx.store.look(id).map_err(|e| gone(&e))?;
    let leader = match &named.pod {
        Some(pod) => cx.store.look(&pod.leader).map_err(|e| gone(&e))?,
        None => named,
    };
    if !leader.is_alive() {
        return Err(gone(&"container not running"));
    }
    let pod = Pod { leader: leader.id.clone(), directory: cx.store.container_path(&leader.id)? };
    let members = members(cx, &leader.id);
    Ok(Joined { pod, leader, members })
}

/// The containers in `leader`'s sandbox that run, besides itself.
pub fn members(cx: &Context, leader: &str) -> Vec<Record> {
    let mut all = cx.store.all();
    all.retain(|record| record.pod.as_ref().is_some_and(|pod| pod.leader == leader) && record.is_alive());
    all
}

impl Joined {
    /// Containers of the sandbox with which pid, ipc, uts and network are shared.
    ///
    /// The host's namespaces (a kind that is not in the list) are the sandbox's first container's: that is as far as a
    /// guest can see. So are networks by path: a sandbox has one.
    #[must_use]
    pub fn shares(&self, asked: &[Asked; 4]) -> [Option<String>; 4] {
        let mut shares = [const { None }; 4];
        for ((share, asked), kind) in shares.iter_mut().zip(asked).zip(SHARED) {
            *share = match asked {
                Asked::Own => None,
                Asked::Hosts => Some(self.leader.inside.clone()),
                Asked::Path(path) => self.owner(path, kind).or_else(|| {
                    if kind == "net" {
                        return Some(self.leader.inside.clone());
                    }
                    log::warn!("{}: no namespace of this pod: the container gets its own", path.display());
                    None
                }),
            };
        }
        shares
    }

    /// Whose namespace it is: by the process in its path, else by its number.
    fn owner(&self, path: &Path, kind: &str) -> Option<String> {
        let of = |record: &&Record| path == Path::new(&format!("/proc/{}/ns/{kind}", record.pid));
        if let Some(record) = self.members.iter().chain([&self.leader]).find(of) {
            return Some(record.inside.clone());
        }
        let number = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let leaders = number(Path::new(&format!("/proc/{}/ns/{kind}", self.leader.pid)));
        (leaders.is_some() && leaders == number(path)).then(|| self.leader.inside.clone())
    }
}
