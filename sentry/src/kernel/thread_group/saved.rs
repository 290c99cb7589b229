//! Processes as saved state.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{GroupState, JobEvent, ThreadGroup, Usage, VforkDone};
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::kernel::limits::Limits;
use crate::kernel::signal::saved::{ActionsState, QueueState};
use crate::kernel::task::Tid;
use crate::kernel::task::saved::TaskState;
use crate::kernel::timer_set::saved::TimerSetState;

/// [`VforkDone`].
#[derive(Serialize, Deserialize)]
pub struct VforkState {
    done: bool,
}

impl Object for VforkDone {
    type State = VforkState;

    fn save(self: &Arc<Self>, _saver: &mut Saver) -> Result<VforkState, Refused> {
        let VforkDone { done, queue: _ } = &**self;
        Ok(VforkState { done: done.load(Ordering::SeqCst) })
    }
}

impl VforkState {
    /// The wait.
    ///
    /// # Errors
    /// None.
    pub fn restore(self, _restorer: &mut Restorer) -> Result<Arc<VforkDone>, Unusable> {
        let done = VforkDone::default();
        done.done.store(self.done, Ordering::SeqCst);
        Ok(Arc::new(done))
    }
}

/// [`ThreadGroup`].
#[derive(Serialize, Deserialize)]
pub struct ThreadGroupState {
    tgid: i32,
    tree: TreeState,
    reported: bool,
    news: bool,
    pending: QueueState,
    actions: Id<ActionsState>,
    limits: Limits,
    dumpable: u8,
    personality: u32,
    oom_score_adj: i32,
    membarrier: u32,
    timers: TimerSetState,
}

/// [`GroupState`].
#[derive(Serialize, Deserialize)]
struct TreeState {
    tasks: Vec<Id<TaskState>>,
    parent: Option<Id<ThreadGroupState>>,
    children: Vec<Id<ThreadGroupState>>,
    pgid: i32,
    sid: i32,
    exiting: Option<i32>,
    exec: Option<i32>,
    zombie: Option<i32>,
    exit_signal: i32,
    stop: Option<i32>,
    stop_complete: bool,
    job_event: Option<JobEvent>,
    subreaper: bool,
    did_exec: bool,
    dead_threads: Usage,
    children_usage: Usage,
}

impl Object for ThreadGroup {
    type State = ThreadGroupState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<ThreadGroupState, Refused> {
        let ThreadGroup {
            tgid,
            // The only one.
            container: _,
            reported,
            state,
            news,
            signals,
            child_queue: _,
            exit_queue: _,
            limits,
            dumpable,
            personality,
            oom_score_adj,
            membarrier,
            timers,
        } = &**self;
        // Locks one by one: a guard in the literal would live as long as that.
        let tree = state.lock().save(saver);
        let limits = *limits.lock();
        Ok(ThreadGroupState {
            tgid: tgid.0,
            tree,
            reported: reported.load(Ordering::SeqCst),
            news: news.load(Ordering::SeqCst),
            pending: signals.change(|queue| queue.save()),
            actions: saver.actions.id(&signals.actions()),
            limits,
            dumpable: dumpable.load(Ordering::Relaxed),
            personality: personality.load(Ordering::Relaxed),
            oom_score_adj: oom_score_adj.load(Ordering::Relaxed),
            membarrier: membarrier.load(Ordering::Relaxed),
            timers: timers.save(saver),
        })
    }
}

impl GroupState {
    fn save(&self, saver: &mut Saver) -> TreeState {
        let GroupState {
            tasks,
            parent,
            children,
            // None: a traced task refuses to be saved.
            tracees: _,
            pgid,
            sid,
            exiting,
            exec,
            zombie,
            exit_signal,
            stop,
            stop_complete,
            job_event,
            subreaper,
            did_exec,
            dead_threads,
            children_usage,
        } = self;
        TreeState {
            tasks: tasks.iter().map(|task| saver.tasks.id(task)).collect(),
            parent: parent.upgrade().map(|parent| saver.groups.id(&parent)),
            children: children.iter().map(|child| saver.groups.id(child)).collect(),
            pgid: *pgid,
            sid: *sid,
            exiting: *exiting,
            exec: exec.map(|tid| tid.0),
            zombie: *zombie,
            exit_signal: *exit_signal,
            stop: *stop,
            stop_complete: *stop_complete,
            job_event: *job_event,
            subreaper: *subreaper,
            did_exec: *did_exec,
            dead_threads: *dead_threads,
            children_usage: *children_usage,
        }
    }
}

impl ThreadGroupState {
    /// The process, without threads and relatives; those follow when all exist.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<ThreadGroup>, Unusable> {
        let ThreadGroupState {
            tgid,
            tree,
            reported,
            news,
            pending,
            actions,
            limits,
            dumpable,
            personality,
            oom_score_adj,
            membarrier,
            timers,
        } = self;
        let actions = restorer.handlers(actions)?;
        let group = ThreadGroup::with(Tid(tgid), &restorer.container.clone(), actions, limits);
        group.reported.store(reported, Ordering::SeqCst);
        group.signals.change(|queue| pending.restore(queue, &restorer.kernel.queued_signals));
        group.news.store(news, Ordering::SeqCst);
        group.dumpable.store(dumpable, Ordering::Relaxed);
        group.personality.store(personality, Ordering::Relaxed);
        group.oom_score_adj.store(oom_score_adj, Ordering::Relaxed);
        group.membarrier.store(membarrier, Ordering::Relaxed);
        let linked = group.clone();
        restorer.later.push(Box::new(move |restorer| {
            tree.link(&linked, restorer)?;
            timers.restore(&linked, restorer)
        }));
        Ok(group)
    }
}

impl TreeState {
    fn link(self, group: &Arc<ThreadGroup>, restorer: &mut Restorer) -> Result<(), Unusable> {
        let tasks = self.tasks.into_iter().map(|id| restorer.task(id)).collect::<Result<Vec<_>, _>>()?;
        let children = self.children.into_iter().map(|id| restorer.group(id)).collect::<Result<Vec<_>, _>>()?;
        let parent = self.parent.map(|id| restorer.group(id)).transpose()?;
        if tasks.iter().any(|task| !Arc::ptr_eq(&task.group, group)) {
            return Err(Unusable::Corrupt("a thread of another process"));
        }
        let parent = parent.as_ref().map(Arc::downgrade).unwrap_or_default();
        *group.state.lock() = GroupState {
            tasks,
            parent,
            children,
            tracees: Vec::new(),
            pgid: self.pgid,
            sid: self.sid,
            exiting: self.exiting,
            exec: self.exec.map(Tid),
            zombie: self.zombie,
            exit_signal: self.exit_signal,
            stop: self.stop,
            stop_complete: self.stop_complete,
            job_event: self.job_event,
            subreaper: self.subreaper,
            did_exec: self.did_exec,
            dead_threads: self.dead_threads,
            children_usage: self.children_usage,
        };
        Ok(())
    }
}
