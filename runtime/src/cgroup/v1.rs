//! Version 1: a directory per hierarchy.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::files::{make as make_dir, patiently, read, set_cpuset, write, write_if_there};
use crate::failure::{Failure, Result};

type Dirs = [(Vec<String>, PathBuf)];

/// The directory of a controller.
pub fn dir_of<'a>(dirs: &'a Dirs, controller: &str) -> Option<&'a Path> {
    dirs.iter().find(|(names, _)| names.iter().any(|n| n == controller)).map(|(_, dir)| dir.as_path())
}

/// Makes a cgroup. A new one of the cpuset controller has no CPU and no memory until it is given some.
pub fn make(controllers: &[String], dir: &Path) -> Result<()> {
    make_dir(dir)?;
    if controllers.iter().any(|c| c == "cpuset") {
        inherit_cpuset(dir)?;
    }
    Ok(())
}

fn inherit_cpuset(dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(dir, file).is_some_and(|value| value.is_empty()) {
            let Some(parent) = dir.parent() else { return Ok(()) };
            inherit_cpuset(parent)?;
            write(dir, file, read(parent, file).unwrap_or_default())?;
        }
    }
    Ok(())
}

/// Writes limits.
pub fn set(dirs: &Dirs, resources: &LinuxResources) -> Result<()> {
    if let (Some(dir), Some(memory)) = (dir_of(dirs, "memory"), resources.memory()) {
        set_memory(dir, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        set_cpu(dirs, cpu)?;
    }
    if let (Some(dir), Some(pids)) = (dir_of(dirs, "pids"), resources.pids()) {
        set_pids(dir, pids.limit())?;
    }
    if let (Some(dir), Some(io)) = (dir_of(dirs, "blkio"), resources.block_io()) {
        set_io(dir, io)?;
    }
    if let Some(dir) = dir_of(dirs, "hugetlb") {
        for limit in resources.hugepage_limits().iter().flatten() {
            write_if_there(dir, &format!("hugetlb.{}.limit_in_bytes", limit.page_size()), limit.limit())?;
        }
    }
    Ok(())
}

/// The sandbox's own threads and stubs count here, and the guest's tasks do not: the guest's limit is kept by its kernel,
/// and this one only stops a sandbox that was taken over. So it is never less than a sandbox needs.
pub const SANDBOX_TASKS: i64 = 512;

fn set_pids(dir: &Path, limit: i64) -> Result<()> {
    match limit {
        0 => Ok(()),
        n if n < 0 => write(dir, "pids.max", "max"),
        n => write(dir, "pids.max", n.max(SANDBOX_TASKS)),
    }
}

fn set_memory(dir: &Path, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().filter(|&n| n != 0);
    let swap = memory.swap().filter(|&n| n != 0).or(limit.filter(|&n| n == -1));
    // Memory must stay below memory and swap at every step: raise the outer one first, lower the inner one first.
    let files = [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap)];
    let current = read(dir, "memory.limit_in_bytes").and_then(|n| n.parse::<u64>().ok()).unwrap_or(u64::MAX);
    let raises = limit.is_some_and(|n| u64::try_from(n).map_or(true, |n| n > current));
    let mut order = files;
    if raises {
        order.reverse();
    }
    for (file, value) in order {
        let Some(value) = value else { continue };
        if file.contains("memsw") {
            write_if_there(dir, file, value)?;
        } else {
            write(dir, file, value)?;
        }
    }
    if let Some(n) = memory.reservation().filter(|&n| n != 0) {
        write(dir, "memory.soft_limit_in_bytes", n)?;
    }
    if let Some(n) = memory.swappiness() {
        write(dir, "memory.swappiness", n)?;
    }
    if memory.disable_oom_killer() == Some(true) {
        write(dir, "memory.oom_control", 1)?;
    }
    Ok(())
}

fn set_cpu(dirs: &Dirs, cpu: &LinuxCpu) -> Result<()> {
    if let Some(dir) = dir_of(dirs, "cpu") {
        if let Some(n) = cpu.shares().filter(|&n| n != 0) {
            write(dir, "cpu.shares", n)?;
        }
        // A quota must fit its period at every step; the period first fits fresh cgroups, whose quota is none.
        if let Some(n) = cpu.period().filter(|&n| n != 0) {
            write(dir, "cpu.cfs_period_us", n)?;
        }
        if let Some(n) = cpu.quota().filter(|&n| n != 0) {
            write(dir, "cpu.cfs_quota_us", n)?;
        }
        if let Some(n) = cpu.burst() {
            write_if_there(dir, "cpu.cfs_burst_us", n)?;
        }
        if let Some(n) = cpu.realtime_period().filter(|&n| n != 0) {
            write_if_there(dir, "cpu.rt_period_us", n)?;
        }
        if let Some(n) = cpu.realtime_runtime().filter(|&n| n != 0) {
            write_if_there(dir, "cpu.rt_runtime_us", n)?;
        }
        if let Some(n) = cpu.idle() {
            write_if_there(dir, "cpu.idle", n)?;
        }
    }
    if let Some(dir) = dir_of(dirs, "cpuset") {
        set_cpuset(dir, cpu)?;
    }
    Ok(())
}

fn set_io(dir: &Path, io: &LinuxBlockIo) -> Result<()> {
    if let Some(weight) = io.weight().filter(|&n| n != 0) {
        let file = if dir.join("blkio.bfq.weight").exists() { "blkio.bfq.weight" } else { "blkio.weight" };
        write_if_there(dir, file, weight)?;
    }
    let throttles = [
        ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
    ];
    for (file, list) in throttles {
        for device in list.iter().flatten() {
            write(dir, file, format!("{}:{} {}", device.major(), device.minor(), device.rate()))?;
        }
    }
    Ok(())
}

/// Holds or releases all tasks.
pub fn freeze(dirs: &Dirs, frozen: bool) -> Result<()> {
    let Some(dir) = dir_of(dirs, "freezer").filter(|dir| dir.exists()) else {
        return if frozen { Err(Failure::runtime("this host has no freezer cgroup")) } else { Ok(()) };
    };
    let state = if frozen { "FROZEN" } else { "THAWED" };
    write(dir, "freezer.state", state)?;
    // A task that forks while it is frozen can leave the state at FREEZING: writing it again helps.
    let done = patiently(|| {
        read(dir, "freezer.state").as_deref() == Some(state) || {
            let _ = write(dir, "freezer.state", state);
            false
        }
    });
    if done { Ok(()) } else { Err(Failure::runtime(format!("cgroup {}: not {state} in time", dir.display()))) }
}
