//! What a container uses, and its processes, for the outside.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::boot::request::{CpuStats, MemoryStats, ProcessInfo, Stats};
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::kernel::thread_group::ThreadGroup;
use crate::mm::Mm;

/// Longest command line that is shown, bytes.
const MAX_COMMAND: usize = 4096;

impl Kernel {
    /// What `container` uses.
    #[must_use]
    pub fn stats(&self, container: &Arc<Container>) -> Stats {
        let (mut total, mut user) = container.usage.gone();
        for task in container.groups().iter().flat_map(|group| group.tasks()) {
            let (all, own) = task.cpu_times();
            (total, user) = (total.saturating_add(all), user.saturating_add(own));
        }
        Stats {
            memory: self.memory_stats(container),
            cpu: CpuStats { total, user, system: total.saturating_sub(user) },
            pids: container.usage.tasks.load(Ordering::Relaxed) as u64,
            pids_limit: container.usage.pids_limit(),
        }
    }

    fn memory_stats(&self, container: &Arc<Container>) -> MemoryStats {
        // One container has all there is; of several each has what its processes map.
        let (anon, file, kernel) = if self.containers.all().len() <= 1 {
            let file = self.memory.shared();
            (self.memory.used().saturating_sub(file), file, self.memory.kernel_bytes())
        } else {
            mapped(container)
        };
        let usage = anon.saturating_add(file).saturating_add(kernel);
        MemoryStats {
            usage,
            max_usage: container.usage.note_memory(usage),
            limit: container.usage.memory_limit(),
            failcnt: container.usage.failures.load(Ordering::Relaxed),
            oom_kills: container.usage.oom_kills.load(Ordering::Relaxed),
            anon,
            file,
            kernel,
        }
    }

    /// The processes of `container` that have not ended, by their ids.
    pub(super) fn processes(&self, container: &Arc<Container>) -> Vec<ProcessInfo> {
        let alive = |group: &Arc<ThreadGroup>| !group.is_zombie();
        container.groups().into_iter().filter(alive).filter_map(|group| self.process_info(&group)).collect()
    }

    fn process_info(&self, group: &Arc<ThreadGroup>) -> Option<ProcessInfo> {
        let task = group.first_task()?;
        let usage = group.usage();
        let age = self.clock.monotonic().saturating_sub(task.start_time).max(0).cast_unsigned();
        Some(ProcessInfo {
            pid: group.tgid.0,
            ppid: group.parent_tgid(),
            uid: task.creds().uid[0],
            start: SystemTime::now() - Duration::from_nanos(age),
            cpu: usage.user.saturating_add(usage.system),
            threads: group.tasks().len(),
            command: command(group),
        })
    }
}

/// The arguments of a process, or its name in brackets.
fn command(group: &ThreadGroup) -> Vec<u8> {
    let Some(task) = group.first_task() else { return Vec::new() };
    let mut line = crate::fs::proc::command_line(&task);
    line.truncate(MAX_COMMAND);
    while line.last() == Some(&0) {
        line.pop();
    }
    if line.is_empty() {
        return [b"[", task.shared.lock().name.as_slice(), b"]"].concat();
    }
    line.iter_mut().filter(|b| **b == 0).for_each(|b| *b = b' ');
    line
}

/// Anonymous and file memory that the processes of `container` map, each address space once, and its page tables.
pub fn mapped(container: &Arc<Container>) -> (u64, u64, u64) {
    let mut seen = HashSet::new();
    let (mut anon, mut file, mut kernel) = (0u64, 0u64, 0u64);
    for mm in container.groups().iter().filter_map(|group| group.first_task()?.mm()) {
        if seen.insert(Arc::as_ptr(&mm).cast::<()>() as usize) {
            let stats = mm.stats();
            anon = anon.saturating_add(stats.rss_anon);
            file = file.saturating_add(stats.rss_shmem);
            kernel = kernel.saturating_add(Mm::table_bytes(&mm));
        }
    }
    (anon, file, kernel)
}
