//! Epolls as saved state: the interests, and which of them lie on the ready list.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::item::Item;
use super::{Epoll, EpollFile, Interest, Key, Lists};
use crate::checkpoint::{Id, Restorer, Saver, Unusable};
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};
use crate::vfs::FdNum;
use crate::vfs::saved::FileState;

#[derive(Serialize, Deserialize)]
struct ItemState {
    fd: i32,
    file: Id<FileState>,
    interest: Interest,
}

/// [`Epoll`]: interests, and the places in that list of those that were ready, in their order.
#[derive(Serialize, Deserialize)]
pub struct EpollState {
    items: Vec<ItemState>,
    ready: Vec<u32>,
}

impl Epoll {
    /// Its state. An interest in a file that is gone is none.
    pub fn save(&self, saver: &mut Saver) -> EpollState {
        let Epoll { lists, queue: _ } = self;
        let (all, listed) = {
            let Lists { items, ready } = &*lists.lock();
            let all: Vec<_> = items.iter().map(|(key, item)| (key.fd.0, item.clone())).collect();
            (all, ready.iter().cloned().collect::<Vec<_>>())
        };
        let mut state = EpollState { items: Vec::new(), ready: Vec::new() };
        let mut kept: Vec<Arc<Item>> = Vec::new();
        for (fd, item) in all {
            let Some(file) = item.file() else { continue };
            state.items.push(ItemState { fd, file: saver.files.id(&file), interest: item.interest() });
            kept.push(item);
        }
        let mut seen = HashSet::new();
        for item in listed {
            let place = kept.iter().position(|k| Arc::ptr_eq(k, &item)).and_then(|at| u32::try_from(at).ok());
            state.ready.extend(place.filter(|at| seen.insert(*at)));
        }
        state
    }
}

impl EpollState {
    /// The epoll; its interests follow when all files exist.
    #[must_use]
    pub fn restore(self, restorer: &mut Restorer) -> Arc<EpollFile> {
        let lists = Mutex::new(Level::Epoll, Lists::default());
        let epoll = Arc::new(Epoll { lists, queue: WaitQueue::new() });
        let linked = epoll.clone();
        restorer.later.push(Box::new(move |restorer| self.link(&linked, restorer)));
        Arc::new(EpollFile(epoll))
    }

    fn link(self, epoll: &Arc<Epoll>, restorer: &mut Restorer) -> Result<(), Unusable> {
        let mut items = Vec::with_capacity(self.items.len());
        for ItemState { fd, file, interest } in self.items {
            let file = restorer.file(file)?;
            let queue = file.ops.wait_queue().ok_or(Unusable::Corrupt("an epoll's interest"))?;
            let item = Item::new(epoll, &file, interest);
            epoll.lists.lock().items.insert(Key::new(FdNum(fd), &file), item.clone());
            item.enlist(queue);
            items.push(item);
        }
        for at in self.ready {
            epoll.list(items.get(at as usize).ok_or(Unusable::Corrupt("an epoll's ready list"))?);
        }
        // What the host has meanwhile made ready.
        items.iter().for_each(|item| epoll.check(item));
        Ok(())
    }
}
