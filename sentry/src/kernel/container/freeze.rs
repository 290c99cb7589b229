//! Pause and resume: the freezer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::boot::request::{Answer, Token};
use crate::kernel::Kernel;
use crate::kernel::container::Container;

impl Container {
    /// Whether its tasks are not to run.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    /// Whether none of its tasks is on a worker.
    fn stands_still(self: &Arc<Self>) -> bool {
        self.tasks().iter().all(|task| task.on_cpu_since.load(Ordering::SeqCst) == 0)
    }
}

impl Kernel {
    /// Stops all tasks of `container`, those in guest code by a kick; `token` is answered when none runs any more.
    /// SIGKILL ends them all the same.
    pub(super) fn freeze(&self, container: &Arc<Container>, token: Token) {
        container.state.lock().pausers.push(token);
        container.frozen.store(true, Ordering::SeqCst);
        container.tasks().iter().for_each(|task| task.notify());
        self.task_stood_still(container);
    }

    /// Lets them run again.
    pub(super) fn thaw(&self, container: &Arc<Container>) {
        container.frozen.store(false, Ordering::SeqCst);
        container.tasks().iter().for_each(|task| task.notify());
        self.answer_pausers(container);
    }

    /// A task of a frozen container has left its worker. Of several at a time the last one finds all at rest.
    pub fn task_stood_still(&self, container: &Arc<Container>) {
        let waited_for = !container.state.lock().pausers.is_empty();
        if waited_for && container.stands_still() {
            self.answer_pausers(container);
        }
    }

    fn answer_pausers(&self, container: &Container) {
        let pausers = std::mem::take(&mut container.state.lock().pausers);
        pausers.into_iter().for_each(|token| self.outside.reply(token, Ok(Answer::Done)));
    }
}
